"""What is asked of a running llama-server over HTTP. No httpx error leaves this module.

Source: llama.cpp tools/server/README.md (GET /health, GET /slots, POST /v1/completions, POST /v1/embeddings),
checked on build 10068.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import httpx

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import Verification
from gantry.runtimes.bounded_reading import UnreadableError, read_all, read_json
from gantry.runtimes.exceptions import RuntimeAway, RuntimeFault, RuntimeRefused, VerifyFailed

HEALTH_SECONDS = 0.2  # asked while a load is followed, which must go on giving signs
QUICK_SECONDS = 2.0
VERIFY_SECONDS = 60.0


class Health(StrEnum):
    """What GET /health tells."""

    AWAY = "away"
    LOADING = "loading"  # it listens, and still loads the model
    READY = "ready"


class AnswerLate(RuntimeAway):
    """It is there, and did not answer within the time."""


# The most specific first.
_FAULTS: tuple[tuple[type[Exception], type[RuntimeFault], str], ...] = (
    (httpx.ConnectError, RuntimeAway, "nothing listens there"),
    (httpx.ConnectTimeout, RuntimeAway, "nothing listens there"),
    (httpx.TimeoutException, AnswerLate, "no answer in time"),
    (httpx.TransportError, RuntimeAway, "the connection broke"),
    (httpx.HTTPError, RuntimeAway, "the answer cannot be read"),
    (UnreadableError, RuntimeRefused, ""),  # it says by itself what is wrong
    (httpx.InvalidURL, RuntimeAway, "it has no usable address"),
)


class LlamaClient:
    """Short questions to llama-servers: each for one model, or a router that is told which model is meant."""

    def __init__(self, transport: httpx.BaseTransport | None = None, *, query: Mapping[str, str] | None = None) -> None:
        """Open no connection yet, and keep none: idle ones hold up llama-server's new requests for 5 s.

        Args:
            transport: what stands in for the network.
            query: what is added to each question's address.
        """
        limits = httpx.Limits(max_connections=20, max_keepalive_connections=0)
        self._query = dict(query or {})
        self._http = httpx.Client(
            limits=limits,
            trust_env=False,
            transport=transport,
        )

    def health(self, base_url: str) -> Health:
        """How far it is. Not to answer is an answer here, not an error."""
        try:
            status = self._http.get(f"{base_url}/health", timeout=HEALTH_SECONDS).status_code
        except httpx.HTTPError:
            return Health.AWAY
        return {200: Health.READY, 503: Health.LOADING}.get(status, Health.AWAY)

    def busy_count(self, base_url: str, api_key: str, model_id: str = "") -> int:
        """How many of its slots work on a request.

        The slots answer between two steps of the model's work. One step on a long prompt may take longer
        than anybody wants to wait here, so no answer in time means that it works on at least one.

        Args:
            model_id: which one is meant, where the server is a router.

        Raises:
            RuntimeAway, RuntimeRefused.
        """
        try:
            slots = self._json(
                "GET", f"{base_url}/slots", api_key, QUICK_SECONDS, {"model": model_id} if model_id else {}
            )
        except AnswerLate:
            return 1
        if not isinstance(slots, list):
            raise RuntimeRefused("It gave no list of slots.", code=ErrorCode.RUNTIME_UNREACHABLE)
        return sum(1 for slot in slots if isinstance(slot, Mapping) and slot.get("is_processing"))

    def verify(self, base_url: str, api_key: str, model_id: str, *, is_embedding: bool) -> Verification:
        """One real token, or one real embedding.

        Raises:
            VerifyFailed: it gave none.
        """
        started = time.monotonic()
        try:
            prove = self._embed if is_embedding else self._complete
            text = prove(base_url, api_key, model_id)
        except VerifyFailed:
            raise
        except RuntimeFault as exc:
            code = exc.code if exc.code == ErrorCode.UNAUTHORISED else ErrorCode.VERIFY_FAILED
            raise VerifyFailed(exc.detail, code=code) from exc
        return Verification(time.monotonic() - started, text)

    def _complete(self, base_url: str, api_key: str, model_id: str) -> str:
        body = {"model": model_id, "prompt": "Hello", "max_tokens": 1, "n": 1, "temperature": 0}
        answer = self._json("POST", f"{base_url}/v1/completions", api_key, VERIFY_SECONDS, body=body)
        # The count and not the text: the first token may be one that is not shown.
        if not isinstance(answer, dict) or not _at(answer, "usage", "completion_tokens"):
            raise VerifyFailed("It answered without a token.")
        return str(_at(answer, "choices", 0, "text") or "")

    def _embed(self, base_url: str, api_key: str, model_id: str) -> str:
        body = {"model": model_id, "input": "Hello"}
        answer = self._json("POST", f"{base_url}/v1/embeddings", api_key, VERIFY_SECONDS, body=body)
        vector = _at(answer, "data", 0, "embedding")
        if not isinstance(vector, list) or not vector:
            raise VerifyFailed("It answered without an embedding.")
        return f"{len(vector)} numbers"

    def _json(
        self,
        method: str,
        url: str,
        api_key: str,
        seconds: float,
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> Any:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        params = {**self._query, **(query or {})}
        deadline = time.monotonic() + seconds
        try:
            with self._http.stream(method, url, params=params, json=body, timeout=seconds, headers=headers) as answer:
                data = read_all(answer.iter_bytes(), deadline)
            if answer.is_success:
                return read_json(data)
        except (httpx.HTTPError, httpx.InvalidURL, UnreadableError) as exc:
            raise _fault(exc) from exc
        raise _refusal(answer.status_code, data)


def _fault(exc: Exception) -> RuntimeFault:
    _, fault, detail = next(row for row in _FAULTS if isinstance(exc, row[0]))
    return fault(f"llama-server: {detail or exc}.")


def _refusal(status: int, data: bytes) -> RuntimeFault:
    if status in (401, 403):
        return RuntimeRefused("It refused its key.", code=ErrorCode.UNAUTHORISED)
    if status == 503:
        return RuntimeAway("It is still loading the model.")
    return RuntimeRefused(f"It answered {status}: {_message(data)}", code=ErrorCode.LOAD_FAILED)


def _message(data: bytes) -> str:
    try:
        words = _at(read_json(data), "error", "message")
    except UnreadableError:
        words = None
    return str(words or data.decode(errors="replace"))[:300]


def _at(data: Any, *keys: str | int) -> Any:
    """A value deep in JSON; None when anything on the way is not there."""
    for key in keys:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data
