"""Clients that cost next to nothing beside the server that they measure: HTTP/1.1 on connections that stay, many in one thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Caller:
    """Sends the same GET again and again."""

    url: str
    headers: Mapping[str, str]
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)

    async def call(self) -> bytes:
        """The body of one answer, which is a 200.

        Raises:
            AssertionError: it is not.
        """
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        writer.write(self._request())
        status, body = await _answer(reader)
        assert b" 200 " in status, (status, body[:300])
        self._idle.append((reader, writer))
        return body

    async def close(self) -> None:
        """End the connections."""
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()
        self._idle.clear()

    def _request(self) -> bytes:
        parts = urlsplit(self.url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {target} HTTP/1.1", f"Host: {parts.netloc}", *(f"{n}: {v}" for n, v in self.headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self.url)
        return await asyncio.open_connection(parts.hostname, parts.port)


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    status, length = await reader.readline(), None
    while (line := await reader.readline()) not in {b"\r\n", b""}:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    if length is not None:
        return status, await reader.readexactly(length)
    body = b""  # without a length it comes in chunks
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return status, body


async def steadily(caller: Caller, per_second: float, seconds: float) -> list[float]:
    """Seconds that each of so many calls took, counted from when it was due: a server that is late makes no call come later."""
    began, count = time.perf_counter() + 0.05, int(per_second * seconds)

    async def one(number: int) -> float:
        due = began + number / per_second
        await asyncio.sleep(due - time.perf_counter())
        await caller.call()
        return time.perf_counter() - due

    return await asyncio.gather(*map(one, range(count)))


async def at_full_speed(caller: Caller, at_once: int, seconds: float) -> float:
    """Calls answered in a second, when so many callers send the next one as soon as they have an answer."""
    deadline, done = time.perf_counter() + seconds, 0

    async def again_and_again() -> None:
        nonlocal done
        while time.perf_counter() < deadline:
            await caller.call()
            done += 1

    await asyncio.gather(*(again_and_again() for _ in range(at_once)))
    return done / seconds


def spread(values: list[float]) -> dict[str, Any]:
    """Count, median, 99th percentile and the largest."""
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "median": round(median(ordered), 5),
        "p99": round(quantiles(ordered, n=100, method="inclusive")[98] if len(ordered) > 1 else ordered[0], 5),
        "most": round(ordered[-1], 5),
    }
