"""The double's time: the real one, or one that a test moves by hand so that nothing depends on how fast the machine is."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Protocol

SETTLE_TURNS = 30  # turns of the event loop in which everything that one instant caused has happened


class Clock(Protocol):
    """What the double waits by."""

    async def sleep(self, seconds: float) -> None:
        """Return when so much of its time has passed."""
        ...


class RealClock:
    """Seconds are seconds."""

    async def sleep(self, seconds: float) -> None:
        """Plain waiting."""
        await asyncio.sleep(seconds)


class ManualClock:
    """Stands still until it is advanced. Used by the double's own event loop only."""

    def __init__(self) -> None:
        """Start at zero."""
        self.now = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced past the moment."""
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + max(0.0, seconds), next(self._order), waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Let so much time pass: each sleeper wakes at its own moment, in order, and what it causes happens before the next."""
        end = self.now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end + 1e-9:
            moment, _, waiter = heapq.heappop(self._sleepers)
            if waiter.done():  # its task was cancelled meanwhile
                continue
            self.now = max(self.now, moment)
            waiter.set_result(None)
            await settle()
        self.now = end


async def settle() -> None:
    """Let everything happen that needs no further time."""
    for _ in range(SETTLE_TURNS):
        await asyncio.sleep(0)
