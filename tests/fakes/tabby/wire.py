"""HTTP/1.1 as the double speaks it: one request on each connection, plain answers and event streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

LARGEST_BODY = 4_000_000


@dataclass(frozen=True)
class Request:
    """What a client sent. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A plain answer."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Canned:
    """What a path answers in place of the real thing, for trouble on the wire."""

    body: bytes = b""
    status: int = 200
    content_type: str = "application/json"
    is_truncated: bool = False  # more is announced than is sent, then the connection breaks
    is_endless: bool = False  # the body again and again, until the client leaves
    is_silent: bool = False  # the request is read and never answered
    is_raw: bool = False  # the body is everything, head included; then the connection ends


class Refusal(Exception):
    """Ends a request with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def json_answer(data: Any, status: int = 200) -> Answer:
    """JSON without blanks, as TabbyAPI's framework writes it."""
    return Answer(status, json.dumps(data, separators=(",", ":")).encode())


def refusal(status: int, detail: Any) -> Refusal:
    """TabbyAPI's shape of a refusal."""
    return Refusal(json_answer({"detail": detail}, status))


def server_fault() -> Refusal:
    """What its framework answers to an exception that nobody foresaw."""
    return Refusal(Answer(500, b"Internal Server Error", "text/plain; charset=utf-8"))


async def read_request(reader: asyncio.StreamReader) -> Request:
    """One request.

    Raises:
        ConnectionError, asyncio.IncompleteReadError, ValueError: none came.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = min(int(headers.get("content-length", "0")), LARGEST_BODY)
    return Request(method, target.partition("?")[0], headers, await reader.readexactly(length))


class Connection:
    """The way back to one client."""

    def __init__(self, writer: asyncio.StreamWriter, origin: str = "") -> None:
        self._writer = writer
        self._origin = origin
        self.has_begun = False

    async def send(self, answer: Answer, *, is_head: bool = False) -> None:
        """A plain answer, whole."""
        headers = {"content-length": str(len(answer.body)), "content-type": answer.content_type, **answer.headers}
        self._head(answer.status, headers)
        if not is_head:
            self._writer.write(answer.body)
        await self._writer.drain()

    async def send_canned(self, canned: Canned) -> None:
        """Trouble, as told. Never returns for one that is endless or silent."""
        if canned.is_silent:
            await asyncio.get_running_loop().create_future()
        if canned.is_raw:
            self.has_begun = True
        elif canned.is_truncated:
            self._head(
                canned.status, {"content-length": str(len(canned.body) + 1000), "content-type": canned.content_type}
            )
        else:
            self._head(canned.status, {"content-type": canned.content_type})
        self._writer.write(canned.body)
        await self._writer.drain()
        while canned.is_endless:
            self._writer.write(canned.body)
            await self._writer.drain()
            await asyncio.sleep(0.001)

    async def begin_events(self) -> None:
        """Head of an event stream; sent at once, before anything is done."""
        headers = {
            "cache-control": "no-store",
            "x-accel-buffering": "no",
            "content-type": "text/event-stream; charset=utf-8",
            "transfer-encoding": "chunked",
        }
        self._head(200, headers)
        await self._writer.drain()

    async def send_event(self, data: Any) -> None:
        """One event."""
        text = data if isinstance(data, str) else json.dumps(data)
        await self._chunk(f"data: {text}\r\n\r\n")

    async def send_ping(self) -> None:
        """A comment that keeps the stream alive."""
        await self._chunk(f": ping - {datetime.now(UTC)}\r\n\r\n")

    async def end_events(self) -> None:
        """The proper end."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    def break_off(self) -> None:
        """Cut the connection in the middle."""
        self._writer.transport.abort()

    async def _chunk(self, text: str) -> None:
        data = text.encode()
        self._writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self._writer.drain()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.has_begun = True
        cors = (
            {"access-control-allow-origin": self._origin, "access-control-allow-credentials": "true"}
            if self._origin
            else {}
        )
        lines = {"server": "uvicorn", **headers, **cors, "vary": "Origin", "connection": "close"}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._writer.write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{text}\r\n".encode())
