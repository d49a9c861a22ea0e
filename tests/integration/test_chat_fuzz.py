"""1,000 chats that went wrong: the client raises nothing but its own errors, what it gives can be kept and shown, and every chat ends.

Seeded: a case that fails is named by its number and fails again. The answers are those of the real llama-server and of TabbyAPI's double,
and of the real TabbyAPI where recordings stand beside the project. They come over real sockets.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from random import Random

import pytest

from gantry.runtimes.chat_client import ChatDelta, ChatTarget, ContextExceeded, stream_chat
from gantry.runtimes.exceptions import RuntimeFault
from tests.integration.tabby.mutations import Recorded, framed, mutate, recorded_from_captures, recorded_from_double
from tests.integration.tabby.test_double_replay import CAPTURES
from tests.unit.runtimes import chat_answers

CASES, BLOCKS = 1000, 5
PATH = "/v1/chat/completions"
PATIENCE_SECONDS = 0.05  # of the client with a server that says nothing
FAR_TOO_LONG_SECONDS = 5.0
MODELS = ("alpha-7b", "tiny.gguf", "another")


@cache
def recordings() -> tuple[Recorded, ...]:
    """All chats that there are to be spoilt."""
    real = recorded_from_captures(CAPTURES) if CAPTURES.is_dir() else []
    chats = [answer for answer in (*recorded_from_double(), *real) if answer.path == PATH and answer.parts]
    return (*chats, *llama_server())


def llama_server() -> list[Recorded]:
    """Answers of llama-server, among them one that breaks off with an error."""
    whole = [*chat_answers.ANSWER]
    broken = [*whole[:3], chat_answers.SLOT_DIED]
    streams = [tuple(f"data: {event}\n\n".encode() for event in events) for events in (whole, whole, broken)]
    refusals = chat_answers.REFUSALS.items()
    return [
        *(Recorded(PATH, 200, "text/event-stream", parts) for parts in streams),
        *(Recorded(PATH, status, "application/json; charset=utf-8", (body,)) for status, body in refusals),
    ]


class BadDay:
    """A server: each chat gets the next answer."""

    url = ""
    random = Random()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take the question; then send an answer in pieces, and end, fall silent or babble on."""
        random = self.random  # this chat's: the next one may begin before this one's end is noticed here
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
            await reader.readexactly(int(length))
            await _send(random, writer)
            await _end(random, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has heard enough
        finally:
            writer.close()


async def _send(random: Random, writer: asyncio.StreamWriter) -> None:
    streams = [answer for answer in recordings() if answer.is_stream]
    answer = random.choice(streams if random.random() < 0.7 else recordings())
    raw = framed(random, answer) if random.random() < 0.3 else mutate(random, answer)
    size = random.choice([7, 1000, 100_000]) if len(raw) < 5000 else 100_000
    for start in range(0, len(raw), size):
        writer.write(raw[start : start + size])
        await writer.drain()


async def _end(random: Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    way = random.random()
    if way < 0.05:
        await reader.read()  # until the client goes away
    elif way < 0.15:
        data = random.choice([b": ping\r\n\r\n", b"x", b"1\r\nx\r\n", b"8\r\n: ping\n\n\r\n"])
        while not reader.at_eof():
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(PATIENCE_SECONDS / 10)


@asynccontextmanager
async def bad_day() -> AsyncIterator[BadDay]:
    day = BadDay()
    server = await asyncio.start_server(day.answer, "127.0.0.1", 0)
    async with server:
        day.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield day


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes longer than all the rest."""
    monkeypatch.setattr(
        "httpx._transports.default.create_ssl_context", lambda **_: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    )


@pytest.mark.parametrize("block", range(BLOCKS))
async def test_spoilt_chats_never_raise_anything_else_and_every_chat_ends(block: int) -> None:
    async with bad_day() as day:
        for number in range(block, CASES, BLOCKS):
            day.random = Random(f"chat-{number}")
            await attempt(day, f"case {number}")


async def attempt(day: BadDay, case: str) -> None:
    """One chat. The client's own errors are fine, with words fit to be shown."""
    target = ChatTarget(
        day.url,
        "key",
        day.random.choice(MODELS),
        must_name_model=day.random.random() < 0.5,
        first_seconds=PATIENCE_SECONDS,
        silence_seconds=PATIENCE_SECONDS,
    )
    try:
        async with asyncio.timeout(FAR_TOO_LONG_SECONDS):
            async for delta in stream_chat(target, [{"role": "user", "content": "hello"}]):
                check_delta(delta, case)
    except RuntimeFault as fault:
        check_fault(fault, case)
    except Exception as exc:
        raise AssertionError(f"{case}: {exc!r}") from exc


def check_delta(delta: ChatDelta, case: str) -> None:
    """A database takes it."""
    assert isinstance(delta.text, str), case
    delta.text.encode()
    assert "\x00" not in delta.text, case
    assert delta.token_count is None or 0 <= delta.token_count < 2**31, case
    assert delta.tokens_per_second is None or 0 <= delta.tokens_per_second < 2**31, case


def check_fault(fault: RuntimeFault, case: str) -> None:
    """A page shows it."""
    if isinstance(fault, ContextExceeded):
        assert fault.context_tokens is None or type(fault.context_tokens) is int, case
        assert fault.detail == "" or fault.detail.isprintable(), case
        return
    assert fault.detail, case
    assert fault.detail.isprintable(), case
    assert len(fault.detail) < 500, case
