"""What is asked of a router over HTTP. No httpx error leaves this module, and no key.

Source: llama.cpp tools/server/README.md ("Using multiple models") and server-models.cpp, checked on builds 10068 and 11434. GET /models is
open to everybody, with any key or none; GET /props is not. POST /models/load answers when a process is started, not when it is ready.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import Verification
from gantry.runtimes.bounded_reading import UnreadableError, one_line, read_all, read_events, read_json
from gantry.runtimes.exceptions import LoadFailed, RuntimeAway, RuntimeFault, RuntimeRefused
from gantry.runtimes.llama_client import LlamaClient
from gantry.runtimes.llama_router_models import RouterModel, read_models

CONNECT_SECONDS = 5.0
QUICK_SECONDS = 10.0
# Starting a process is quick; at its limit of models a router first ends another, which takes up to its stop-timeout (10 s).
CHANGE_SECONDS = 20.0
SILENCE_SECONDS = (
    30.0  # of the event stream, which sends no pings: then it is opened anew, in case the connection is dead
)
NOT_RUNNING = "model is not running"
ALREADY_RUNNING = "model is already running"
_NO_AUTOLOAD = {"autoload": "false"}  # a question about a model must not load it


@dataclass(frozen=True, slots=True)
class RouterFacts:
    """What a router says of itself."""

    version: str
    max_models: int  # at most so many at once; 0: no limit


_HIGHEST_LIMIT = 2**31  # what a column holds; nobody means more

# The most specific first. The words follow "The router".
_FAULTS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "could not be reached in time"),
    (httpx.ConnectError, "could not be reached: nothing answers at its address"),
    (httpx.UnsupportedProtocol, "has no usable address: it begins with http:// or https://"),
    (httpx.InvalidURL, "has no usable address"),
    (httpx.TimeoutException, "did not answer in time"),
    (httpx.TransportError, "broke the connection"),
    (UnreadableError, "sent an answer that cannot be read: its address may belong to another program"),
    (Exception, "did not answer properly"),
)
_TROUBLE = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError)


class RouterClient:
    """Questions to one router. Any thread may ask.

    Raises (all methods): RuntimeAway, RuntimeRefused.
    """

    def __init__(self, url: str, api_key: str = "", transport: httpx.BaseTransport | None = None) -> None:
        """Open no connection yet, and keep none: idle ones hold up a llama-server's new requests for 5 s.

        Args:
            url: without a path.
            transport: what stands in for the network.
        """
        self.url = url.rstrip("/")
        self.api_key = api_key
        self._http = httpx.Client(
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=0), trust_env=False, transport=transport
        )
        self._single = LlamaClient(transport, query=_NO_AUTOLOAD)

    def facts(self) -> RouterFacts:
        """What it is, asked with the key."""
        props = self._get("/props")
        if not isinstance(props, Mapping) or props.get("role") != "router":
            raise RuntimeRefused(
                "What answers at its address is no router: start llama-server without a model for that.",
                code=ErrorCode.RUNTIME_UNREACHABLE,
            )
        most = props.get("max_instances")
        if not isinstance(most, int) or isinstance(most, bool) or not 0 <= most < _HIGHEST_LIMIT:
            most = 0
        return RouterFacts(version=one_line(props.get("build_info")), max_models=most)

    def models(self, *, reload: bool = False) -> list[RouterModel]:
        """All its models; with `reload`, after it has read its sources again. That ends those whose source has changed."""
        try:
            return read_models(self._get("/models?reload=1" if reload else "/models"))
        except UnreadableError as exc:
            raise _fault(exc) from exc

    def find(self, name: str) -> RouterModel | None:
        """One of its models, by its id or one of its aliases."""
        return next((model for model in self.models() if model.answers_to(name)), None)

    def load(self, name: str) -> bool:
        """Have it start loading; False when somebody was faster.

        Raises:
            LoadFailed: it would not.
        """
        status, data = self._ask("POST", "/models/load", {"model": name}, CHANGE_SECONDS)
        if status == httpx.codes.OK:
            return True
        words = self._words(data)
        if status == httpx.codes.NOT_FOUND or words == "model is not found":
            raise LoadFailed(f"The router has no model {name}.", code=ErrorCode.NOT_DOWNLOADED)
        if status in (401, 403):
            raise _refused_key()
        if words == ALREADY_RUNNING:
            return False
        raise LoadFailed(f"The router would not load it: {words or status}.")

    def unload(self, name: str) -> None:
        """Have it end. One that is not running, or not there, is no error; one that loads is killed."""
        status, data = self._ask("POST", "/models/unload", {"model": name}, CHANGE_SECONDS)
        if status in (401, 403):
            raise _refused_key()
        words = self._words(data)
        is_gone = status == httpx.codes.NOT_FOUND or words in {NOT_RUNNING, "model is not found"}
        if status != httpx.codes.OK and not is_gone:
            raise RuntimeRefused(f"The router would not unload it: {words or status}.", code=ErrorCode.UNLOAD_FAILED)

    @contextmanager
    def events(self) -> Generator[EventStream]:
        """The stream of what happens to models. There is no replay: what was before is in `models` only."""
        timeout = httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
        try:
            with self._http.stream("GET", f"{self.url}/models/sse", headers=self._headers(), timeout=timeout) as answer:
                self._expect(answer.status_code, b"")
                yield EventStream(answer)
        except _TROUBLE as exc:
            raise _fault(exc) from exc

    def verify(self, name: str, *, is_embedding: bool) -> Verification:
        """One real token, or one real embedding. One that is not loaded is not loaded by this.

        Raises:
            VerifyFailed: it gave none.
        """
        return self._single.verify(self.url, self.api_key, name, is_embedding=is_embedding)

    def busy_count(self, name: str) -> int:
        """How many requests a model is answering; 0 where the router's slots are not shown."""
        try:
            return self._single.busy_count(self.url, self.api_key, name)
        except RuntimeRefused as fault:
            if fault.code == ErrorCode.UNAUTHORISED:
                raise
            return 0

    def _get(self, path: str) -> Any:
        status, data = self._ask("GET", path, None, QUICK_SECONDS)
        self._expect(status, data)
        try:
            return read_json(data)
        except UnreadableError as exc:
            raise _fault(exc) from exc

    def _ask(self, method: str, path: str, body: Any, seconds: float) -> tuple[int, bytes]:
        timeout = httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        deadline = time.monotonic() + seconds
        try:
            with self._http.stream(
                method, f"{self.url}{path}", json=body, headers=self._headers(), timeout=timeout
            ) as answer:
                return answer.status_code, read_all(answer.iter_raw(), deadline)
        except _TROUBLE as exc:
            raise _fault(exc) from exc

    def _headers(self) -> dict[str, str]:
        if "@" in self.url:
            raise RuntimeRefused("The router's address holds a user name or password: it takes an API key only.")
        headers = {"Accept-Encoding": "identity"}
        if self.api_key:
            if not self.api_key.isascii() or not self.api_key.isprintable() or self.api_key != self.api_key.strip():
                raise RuntimeRefused("The API key has characters that no key has.", code=ErrorCode.UNAUTHORISED)
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers

    def _expect(self, status: int, data: bytes) -> None:
        if status in (401, 403):
            raise _refused_key()
        if status != httpx.codes.OK:
            words = self._words(data)
            raise RuntimeAway(f"The router answered {status}{f': {words}' if words else ''}.")

    def _words(self, data: bytes) -> str:
        """The message of an error, without our key should it be repeated there."""
        try:
            answer = read_json(data)
        except UnreadableError:
            return ""
        error = answer.get("error") if isinstance(answer, Mapping) else None
        words = one_line(error.get("message") if isinstance(error, Mapping) else error)
        return words.replace(self.api_key, "…") if self.api_key else words


class EventStream:
    """An open stream of events."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each event as it comes.

        Raises:
            UnreadableError: it does not end where it should.
        """
        yield from read_events(self._answer.iter_raw())

    def close(self) -> None:
        """End it from another thread than the one that reads."""
        stream = self._answer.extensions.get("network_stream")
        handle = stream.get_extra_info("socket") if stream is not None else None
        if isinstance(handle, socket.socket):
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)


def _fault(exc: Exception) -> RuntimeFault:
    words = next(words for kind, words in _FAULTS if isinstance(exc, kind))
    return RuntimeAway(f"The router {words}.")


def _refused_key() -> RuntimeFault:
    return RuntimeRefused("The router refused its API key.", code=ErrorCode.UNAUTHORISED)
