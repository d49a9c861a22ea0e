"""How soon many clients are told what has happened: from the row of a real switch to the last of them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench.callers import spread
from tests.functional.api_seeds.world import GPT, HELD, World, start_world

CLIENTS, QUICK_CLIENTS = 1000, 20
ROUNDS = 3  # switches that each kind of client follows
AT_ONCE = 50  # clients that connect at the same moment
PATIENCE_SECONDS = 300.0
_TEXT, _PING, _PONG = 1, 9, 10

Seen = tuple[int, bool]  # number of an event of the job, and whether it was the last one
Listen = Callable[[World, int], AsyncGenerator[Seen]]
Arrivals = dict[int, list[float]]  # number of an event -> when each client had it, seconds since the epoch


def measure(folder: Path, clients: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Let so many clients of each kind follow some switches. Gives the figures."""
    _allow_files(2 * clients + 500)
    kinds = {"WebSocket /ws/events": _websocket, "SSE /api/v1/jobs/…/events": _sse}
    with start_world(folder / "fanout") as world:
        cases: list[dict[str, Any]] = []
        for name, listen in kinds.items():
            delays: list[float] = []
            for _ in range(ROUNDS if clients > QUICK_CLIENTS else 1):
                delays += _round(world, listen, clients)
            cases.append({"name": name, "seconds": spread(delays)})
            say(f"{name}, {clients} clients: median {1000 * cases[-1]['seconds']['median']:.0f} ms to the last one")
    return {"clients": clients, "cases": cases}


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """The figures for people."""
    yield f"Fan-out: {figures['clients']} clients, from the row of each event of a switch to the last client"
    yield f"  {'':28} {'events':>7} {'median':>9} {'p99':>9} {'most':>9}"
    for case in figures["cases"]:
        took = case["seconds"]
        yield (
            f"  {case['name']:28} {took['count']:7} {1000 * took['median']:6.0f} ms {1000 * took['p99']:6.0f} ms "
            f"{1000 * took['most']:6.0f} ms"
        )


def _round(world: World, listen: Listen, clients: int) -> list[float]:
    """One switch that stands still until all clients listen. Seconds from each row that came then to the last client that had it."""
    world.switch(GPT)
    job = world.post("/api/switch-model", model_id=HELD).json()["job_id"]
    held = world.held()
    known, arrivals = asyncio.run(_follow(world, listen, job, clients, held.go_on))
    rows = world.ask("SwitchEvent", f"filter(job={job}).values('seq', 'at')")
    written = {row["seq"]: datetime.fromisoformat(row["at"]).timestamp() for row in rows}
    return [max(at) - written[seq] for seq, at in arrivals.items() if seq > known]


async def _follow(
    world: World, listen: Listen, job: int, clients: int, go_on: Callable[[], None]
) -> tuple[int, Arrivals]:
    """(the last event before the load went on, when each event came to each client)."""
    arrivals: Arrivals = defaultdict(list)
    known, waiting, all_listen, gate = 0, clients, asyncio.Event(), asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        nonlocal known, waiting
        is_new = True
        await gate.acquire()
        async with aclosing(listen(world, job)) as seen:
            async for seq, is_last in seen:
                arrivals[seq].append(time.time())
                if is_new:
                    is_new, waiting, known = False, waiting - 1, max(known, seq)
                    gate.release()
                    if not waiting:
                        all_listen.set()
                if is_last:
                    return

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(one())
        await all_listen.wait()
        known = max(arrivals)
        go_on()
    return known, arrivals


async def _websocket(world: World, job: int) -> AsyncGenerator[Seen]:
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    async with _connected(world.url) as (reader, writer):
        await _send_head(world, writer, "ws/events", upgrade)
        assert b" 101 " in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
        while True:
            opcode, data = await _read_frame(reader)
            if opcode == _PING:
                writer.write(bytes([0x80 | _PONG, 0x80 | len(data), 0, 0, 0, 0]) + data)  # masked with zeros
            message: dict[str, Any] = json.loads(data) if opcode == _TEXT else {"type": ""}
            told = (
                message.get("job") if message["type"] == "snapshot" else message if message["type"] == "job" else None
            )
            if told and told["job_id"] == job:
                yield told["seq"], told["is_finished"]


async def _read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    opcode, size = (await reader.readexactly(2))[:2]
    if size >= 126:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    return opcode & 0x0F, await reader.readexactly(size)


async def _sse(world: World, job: int) -> AsyncGenerator[Seen]:
    async with _connected(world.url) as (reader, writer):
        await _send_head(world, writer, f"api/v1/jobs/{job}/events", [])
        assert b" 200 " in (await reader.readuntil(b"\r\n\r\n")).splitlines()[0]
        seq = 0
        while line := await reader.readline():
            if line.startswith(b"id: "):
                seq = int(line[4:])
            elif line.startswith(b"event: "):
                yield seq, line == b"event: end\n"


@asynccontextmanager
async def _connected(url: str) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _send_head(world: World, writer: asyncio.StreamWriter, path: str, more: list[str]) -> None:
    credentials = [f"{name}: {value}" for name, value in world.headers().items()]
    writer.write("\r\n".join([f"GET /{path} HTTP/1.1", "Host: localhost", *credentials, *more, "", ""]).encode())
    await writer.drain()


def _allow_files(count: int) -> None:
    """A connection is an open file, here and, by inheritance, in the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )
