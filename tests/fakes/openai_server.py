"""A server that speaks OpenAI's chat completions over real HTTP on loopback, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from anyio.from_thread import start_blocking_portal

_HEAD = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nConnection: close\r\n\r\n"


@dataclass
class OpenAIServer:
    """What the next requests get, and what they asked for. Set the fields before a request."""

    pieces: list[str] = field(default_factory=lambda: ["Hel", "lo ", "there"])
    delay_seconds: float = 0.0  # before each piece
    first_delay_seconds: float = 0.0  # before the first piece, as while a long prompt is read
    hang_after: int | None = None  # says no more after so many pieces
    ping_seconds: float = 0.0  # between two comments while it says nothing; 0: none
    answers_as: str = ""  # the name of the model in each piece; "": none
    break_after: int | None = None  # closes the connection after so many pieces
    error_after: int | None = None  # sends `error` in the stream after so many pieces
    error: dict[str, Any] = field(
        default_factory=lambda: {"code": 500, "message": "the slot died", "type": "server_error"}
    )
    status: int = 200
    error_body: bytes = b""
    head_status: int = 200  # of an answer that comes in pieces
    content_type: bytes = b"text/event-stream"
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)  # the client went away before the end
    base_url: str = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        try:
            await self._read_request(reader)
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.disconnected.set()
        finally:
            writer.close()

    async def _read_request(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        lower = {name.lower(): value for name, value in headers.items()}
        self.keys.append(lower.get("authorization", ""))
        self.requests.append(json.loads(await reader.readexactly(int(lower["content-length"]))))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.status != 200:
            writer.write(_HEAD % (self.status, b"application/json") + self.error_body)
            await writer.drain()
            return
        writer.write(_HEAD % (self.head_status, self.content_type))
        await self._wait(reader, self.first_delay_seconds)
        for number, piece in enumerate(self.pieces):
            if not await self._may_go_on(number, reader, writer):
                return
            await self._wait(reader, self.delay_seconds)
            await self._send(writer, {"choices": [{"delta": {"content": piece}, "finish_reason": None}]})
        if await self._may_go_on(len(self.pieces), reader, writer):
            await self._finish(writer)

    async def _may_go_on(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self.hang_after == number:
            await self._hang(reader, writer)
        if self.error_after == number:
            await self._send(writer, {"error": self.error})
        return number not in {self.break_after, self.error_after}

    async def _hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._wait(reader, self.ping_seconds or 3600)
            writer.write(b": ping\n\n")
            await writer.drain()

    async def _finish(self, writer: asyncio.StreamWriter) -> None:
        count = len(self.pieces)
        await self._send(writer, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
        timings = {"predicted_n": count, "predicted_per_second": 42.0}
        await self._send(writer, {"choices": [], "usage": {"completion_tokens": count}, "timings": timings})
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    async def _wait(self, reader: asyncio.StreamReader, seconds: float) -> None:
        """Sleep, but notice at once when the client hangs up."""
        if not seconds:
            return
        try:
            gone = await asyncio.wait_for(reader.read(1), seconds)
        except TimeoutError:
            return
        if gone == b"":
            raise ConnectionResetError

    async def _send(self, writer: asyncio.StreamWriter, chunk: dict[str, Any]) -> None:
        named = {**chunk, "model": self.answers_as} if self.answers_as else chunk
        writer.write(b"data: " + json.dumps(named).encode() + b"\n\n")
        await writer.drain()


@asynccontextmanager
async def openai_server(**settings: Any) -> AsyncIterator[OpenAIServer]:
    """A running fake; `settings` are its fields."""
    fake = OpenAIServer(**settings)
    server = await asyncio.start_server(fake.handle, "127.0.0.1", 0)
    fake.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.close()
        await asyncio.sleep(0)


@contextmanager
def openai_server_in_thread(**settings: Any) -> Iterator[OpenAIServer]:
    """A running fake for tests that have no event loop of their own."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(openai_server(**settings)) as fake:
        yield fake
