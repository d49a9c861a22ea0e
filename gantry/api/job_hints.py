"""Hints that a job has moved: heard once in each process, and passed on to all who follow that job.

A place in the channel layer for each of a thousand clients would have the layer decode each message a thousand times.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import structlog
from channels.layers import get_channel_layer

from gantry import live

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0  # how often the rows are read when the broker is away, so that nobody can tell us when


class Ear:
    """Listens for one job. Of several hints only the latest counts: the rows tell the rest."""

    def __init__(self, hub: _Hub) -> None:
        self._hub = hub
        self._heard = asyncio.Event()
        self._seq = self._told = 0  # the last event that was heard of, and that was passed on

    def hear(self, seq: int = 0) -> None:
        """The job has moved; without a number: wake up, for nobody tells any more."""
        self._seq = max(self._seq, seq)
        self._heard.set()

    async def next_after(self, seen: int, seconds: float) -> int:
        """The number of the latest event past `seen` that was heard of, each told once; 0 when none came for so long, or nobody can tell."""
        if not self._hub.is_told:
            self._hub.start()
            await asyncio.sleep(min(LOOK_SECONDS, seconds))
            return 0
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._seq <= max(seen, self._told) and self._hub.is_told:
                    self._heard.clear()
                    await self._heard.wait()
        if self._seq <= max(seen, self._told):
            return 0
        self._told = self._seq
        return self._seq


class _Hub:
    """The one who listens to the layer, as long as somebody follows a job."""

    def __init__(self) -> None:
        self.is_told = False
        self._ears: defaultdict[int, set[Ear]] = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None
        self._is_ready = asyncio.Event()  # it has joined, or knows that it cannot

    async def add(self, job_id: int, ear: Ear) -> None:
        """Tell this one too; whatever happens after this returns is told."""
        self._ears[job_id].add(ear)
        self.start()
        await self._is_ready.wait()

    async def remove(self, job_id: int, ear: Ear) -> None:
        """Tell it no more. The last one waits until the place in the layer is given up."""
        self._ears[job_id].discard(ear)
        if not self._ears[job_id]:
            del self._ears[job_id]
        if not self._ears and self._listener is not None:
            listener, self._listener = self._listener, None
            listener.cancel()
            await asyncio.wait({listener})

    def start(self) -> None:
        """Listen, unless that is being done."""
        if self._listener is None or self._listener.done():
            self._is_ready.clear()
            # It belongs to no request, and outlives the one that was first.
            self._listener = asyncio.get_running_loop().create_task(self._listen(), context=contextvars.Context())

    async def _listen(self) -> None:
        layer, channel, me = get_channel_layer(), "", asyncio.current_task()
        try:
            channel = await layer.new_channel()
            await layer.group_add(live.STATUS_GROUP, channel)
            self.is_told = True
            self._is_ready.set()
            while True:
                message = await layer.receive(channel)
                if message["type"] == "job_updated":
                    for ear in self._ears.get(message["job"]["id"], ()):
                        ear.hear(message["job"]["seq"])
        except Exception as exc:  # noqa: BLE001 - whatever the layer fails with, the rows tell the same a little later
            log.warning("live_hints_away", reason=repr(exc))
        finally:
            if self._listener in {me, None}:  # else another one listens already
                self.is_told = False
                self._is_ready.set()
                for ears in self._ears.values():
                    for ear in ears:
                        ear.hear()
            with suppress(Exception):  # the broker is away: then there is nothing to leave
                await layer.group_discard(live.STATUS_GROUP, channel)


_hubs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Hub] = weakref.WeakKeyDictionary()


@asynccontextmanager
async def listening(job_id: int) -> AsyncGenerator[Ear]:
    """An ear for a job; whatever happens once it is there is heard, as long as the broker answers."""
    hub = _hubs.setdefault(asyncio.get_running_loop(), _Hub())
    ear = Ear(hub)
    try:
        await hub.add(job_id, ear)
        yield ear
    finally:
        await hub.remove(job_id, ear)
