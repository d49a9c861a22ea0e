"""Streaming chat with any server that speaks OpenAI's chat completions, llama-server first.

Source: POST /v1/chat/completions with `stream`, checked on llama-server builds 10068 and 11434. Its last chunk carries `usage` and
`timings`; an error in the middle of an answer comes as one more `data:` line in the stream that began with status 200. Both it and TabbyAPI
keep a silent connection open with comments, TabbyAPI for ever when its model is unloaded in mid-answer: only data count as a sign of life.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypedDict

import httpx

from gantry.planning.states import ErrorCode
from gantry.runtimes.bounded_reading import LARGEST_ANSWER, EventLines, UnreadableError, one_line, read_json
from gantry.runtimes.exceptions import RuntimeAway, RuntimeFault, RuntimeRefused
from gantry.runtimes.registry import capabilities_of

CONNECT_SECONDS = 5.0
# Until the first words: the question may wait for a free slot, and 30,000 tokens are read for a quarter of an hour on a CPU.
FIRST_SECONDS = 1200.0
# Between two pieces of the text, not in all: a long answer may take as long as it likes.
SILENCE_SECONDS = 120.0
# What a model definition may set for chat; anything else in `sampling` is not sent.
SAMPLING_NAMES = frozenset({"temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "stop"})


class ChatMessage(TypedDict):
    """One message of the prompt."""

    role: str  # user or assistant
    content: str


@dataclass(frozen=True, slots=True)
class ChatTarget:
    """A server that answers. `base_url` is without /v1."""

    base_url: str
    api_key: str = field(default="", repr=False)
    model_id: str = ""
    must_name_model: bool = (
        False  # it answers with whatever it holds: only the name in the answer tells which model that is
    )
    first_seconds: float = FIRST_SECONDS
    silence_seconds: float = SILENCE_SECONDS

    def may_be_named(self, name: str) -> bool:
        """Whether an answer that bears this name is the model's. TabbyAPI gives the last component of its path."""
        return not self.must_name_model or name in {"", self.model_id, self.model_id.rpartition("/")[2]}


def target_for(kind: str, base_url: str, api_key: str, model_id: str) -> ChatTarget:
    """Where a model on a runtime of this kind is asked."""
    return ChatTarget(base_url, api_key, model_id, must_name_model=capabilities_of(kind).answers_any_name)


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """A piece of an answer. The figures come with the last pieces, when the server tells them."""

    text: str = ""
    finish_reason: str = ""  # "stop" or "length" on the piece that ends the text, else ""
    token_count: int | None = None  # tokens of the whole answer
    tokens_per_second: float | None = None


class ContextExceeded(RuntimeRefused):
    """The prompt is longer than the model's context.

    Attributes:
        context_tokens: how many tokens fit, or None when the server does not say.
    """

    def __init__(self, detail: str, context_tokens: int | None) -> None:
        super().__init__(detail)
        self.context_tokens = context_tokens


class AnotherModelAnswers(RuntimeFault):
    """The server holds another model by now, and answers with that one.

    Attributes:
        name: of the model that answers, as the server tells it.
    """

    code = ErrorCode.CALL_FAILED

    def __init__(self, name: str) -> None:
        self.name = one_line(name)
        super().__init__(f"does not answer any more: {self.name} was loaded in its place and answers now")


# Most specific first. The words follow the model's name in a sentence.
_FAULTS: tuple[tuple[type[httpx.HTTPError], str], ...] = (
    (httpx.ConnectTimeout, "could not be reached"),
    (httpx.ConnectError, "could not be reached"),
    (httpx.ReadTimeout, "went silent"),
    (httpx.TimeoutException, "did not answer in time"),
    (httpx.TransportError, "broke off in the middle"),
    (httpx.HTTPError, "did not answer properly"),
)
_LARGEST_FIGURE = 2**31  # what the column of an answer holds
_BROKE_OFF = "broke off in the middle"


async def stream_chat(
    target: ChatTarget, messages: Sequence[ChatMessage], sampling: Mapping[str, Any] | None = None
) -> AsyncGenerator[ChatDelta, None]:
    """Ask for an answer and yield it piece by piece, until the server says that it is done.

    Closing the generator closes the connection, and with that the server stops generating.

    Args:
        messages: the conversation, oldest first; it ends with a question.
        sampling: the model's defaults; names outside `SAMPLING_NAMES` are left out.

    Raises:
        ContextExceeded: the conversation is longer than the model's context.
        AnotherModelAnswers: it is not the model that was asked who answers, where the target can tell.
        RuntimeRefused: the server refused (key, parameter, an error while generating).
        RuntimeAway: nothing listens, the connection broke, no word came within `first_seconds`, or nothing more for `silence_seconds`.
    """
    body = _request_body(target, messages, sampling or {})
    timeout = httpx.Timeout(target.first_seconds, connect=CONNECT_SECONDS)
    try:
        # trust_env off: a proxy set for the outside has no business between Gantry and a model on loopback.
        async with (
            httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
            aclosing(await _ask(client, target, body)) as response,
            aclosing(_deltas(response, target)) as deltas,
        ):
            async for delta in deltas:
                yield delta
    except httpx.HTTPError as exc:
        raise _away(exc) from exc
    except UnreadableError as exc:
        raise RuntimeAway("sent something that is no answer") from exc


async def _ask(client: httpx.AsyncClient, target: ChatTarget, body: Mapping[str, Any]) -> httpx.Response:
    """An answer that has begun. Its head, or all of a refusal, has to be there in time: httpx bounds only each piece.

    Raises:
        RuntimeFault: it is a refusal, or it did not begin in time.
    """
    headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    url = f"{target.base_url.rstrip('/')}/v1/chat/completions"
    try:
        async with asyncio.timeout(target.first_seconds):
            response = await client.send(client.build_request("POST", url, json=body, headers=headers), stream=True)
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.status_code, await _whole(response))
            return response
    except TimeoutError:
        raise _silent_for(target.first_seconds) from None


async def _whole(response: httpx.Response) -> bytes:
    """A body; of one that is too large, the beginning."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > LARGEST_ANSWER:
            break
    return bytes(body)


def _request_body(target: ChatTarget, messages: Sequence[ChatMessage], sampling: Mapping[str, Any]) -> dict[str, Any]:
    body = {name: value for name, value in sampling.items() if name in SAMPLING_NAMES}
    body |= {"messages": list(messages), "stream": True, "stream_options": {"include_usage": True}}
    return body | ({"model": target.model_id} if target.model_id else {})


async def _deltas(response: httpx.Response, target: ChatTarget) -> AsyncGenerator[ChatDelta, None]:
    """The pieces in a stream.

    Raises:
        AnotherModelAnswers: a piece bears the name of another model.
        RuntimeAway: the stream ended before the server said that it was done, or no data came for too long.
        RuntimeRefused: the stream told of an error, or is none.
        UnreadableError: what came is no answer.
    """
    if "text/event-stream" not in response.headers.get("content-type", ""):
        raise RuntimeRefused("did not stream: its address may belong to another program")
    patience, is_finished = target.first_seconds, False
    async with aclosing(_events(response)) as events:
        while (event := await _next_event(events, patience)) is not None:
            if event == b"[DONE]":
                return
            chunk = _parse(event)
            _check_name(chunk, target)
            delta = _delta(chunk)
            if delta.text:
                patience = target.silence_seconds
            is_finished = is_finished or bool(delta.finish_reason)
            yield delta
    if not is_finished:
        raise RuntimeAway(_BROKE_OFF)


async def _events(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The data of each event."""
    lines = EventLines()
    async for chunk in response.aiter_bytes():
        for data in lines.feed(chunk):
            yield data


async def _next_event(events: AsyncGenerator[bytes, None], patience: float) -> bytes | None:
    """The next one with data, or None at the end of the stream. Comments do not count, however many come.

    Raises:
        RuntimeAway: none came within `patience` seconds.
    """
    try:
        async with asyncio.timeout(patience):
            return await anext(events, None)
    except TimeoutError:
        raise _silent_for(patience) from None


def _silent_for(seconds: float) -> RuntimeAway:
    return RuntimeAway(f"went silent: nothing came for {seconds:.0f} seconds")


def _check_name(chunk: Mapping[str, Any], target: ChatTarget) -> None:
    name = chunk.get("model")
    if isinstance(name, str) and not target.may_be_named(name):
        raise AnotherModelAnswers(name)


def _parse(data: bytes) -> dict[str, Any]:
    chunk = read_json(data)
    if not isinstance(chunk, dict):
        raise UnreadableError("an event is no JSON object")
    if chunk.get("error"):
        raise _fault_from(chunk["error"], status=0)
    return chunk


def _delta(chunk: Mapping[str, Any]) -> ChatDelta:
    choices = chunk.get("choices")
    choice = _mapping(choices[0]) if isinstance(choices, list) and choices else {}
    text, reason = _mapping(choice.get("delta")).get("content"), choice.get("finish_reason")
    timings, usage = _mapping(chunk.get("timings")), _mapping(chunk.get("usage"))
    count = _number(timings.get("predicted_n")) or _number(usage.get("completion_tokens"))
    return ChatDelta(
        text=_storable(text) if isinstance(text, str) else "",
        finish_reason=reason if isinstance(reason, str) else "",
        token_count=None if count is None else int(count),
        tokens_per_second=_number(timings.get("predicted_per_second")),
    )


def _storable(text: str) -> str:
    """Without what no database takes: half a surrogate pair, and the character zero."""
    return text.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """A figure that can be kept; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and 0 <= value < _LARGEST_FIGURE else None


def _away(exc: httpx.HTTPError) -> RuntimeAway:
    return RuntimeAway(next(words for kind, words in _FAULTS if isinstance(exc, kind)))


def _refusal(status: int, body: bytes) -> RuntimeFault:
    """The fault behind an answer that is not 200."""
    try:
        error = _mapping(read_json(body)).get("error")
    except UnreadableError:
        error = None
    return _fault_from(error, status)


def _fault_from(error: Any, status: int) -> RuntimeFault:
    """The fault behind an error object, or a text in its place; `status` is 0 for one that came inside a stream."""
    details = _mapping(error)
    message = one_line(error if isinstance(error, str) else details.get("message"))
    code = status or int(_number(details.get("code")) or 0)
    # Named by type since build 6000; before that only the words told it.
    if details.get("type") == "exceed_context_size_error" or "exceeds the available context" in message:
        limit = _number(details.get("n_ctx"))
        return ContextExceeded(message, None if limit is None else int(limit))
    if code in {401, 403}:
        return RuntimeRefused("refused Gantry's key", code=ErrorCode.UNAUTHORISED)
    if code == httpx.codes.SERVICE_UNAVAILABLE:
        return RuntimeAway("is still loading")
    if message:
        return RuntimeRefused(f"refused: {message}")
    return RuntimeRefused(f"refused with status {code}" if code else "refused without a reason")
