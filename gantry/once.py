"""Making a thing once although many ask for it at the same moment."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
_KEPT = 128  # events times parts times audiences; only those of the last second matter


class Once(Generic[T]):
    """Things by key, each made once in this process; those who ask meanwhile wait for the same one."""

    def __init__(self) -> None:
        # Futures belong to a loop, so each loop has its own.
        self._by_loop: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, OrderedDict[Hashable, asyncio.Future[T]]
        ] = weakref.WeakKeyDictionary()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """The thing for `key`, made by `make` if nobody has asked for it before."""
        made = self._by_loop.setdefault(asyncio.get_running_loop(), OrderedDict())
        if key not in made:
            made[key] = asyncio.ensure_future(make())
            made[key].add_done_callback(lambda done: _forget_failure(made, key, done))
            while len(made) > _KEPT:
                made.popitem(last=False)
        # Shielded: the first to ask may go away while others still wait.
        return await asyncio.shield(made[key])


def _forget_failure(made: OrderedDict[Hashable, asyncio.Future[T]], key: Hashable, done: asyncio.Future[T]) -> None:
    if done.cancelled() or done.exception() is not None:
        made.pop(key, None)
