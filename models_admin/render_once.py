"""Rendering once per process what many sockets are about to send."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async

_SIZE = 128  # parts kept; an event has a handful, for a handful of audiences


class RenderOnce:
    """Remembers the last parts by event and audience; those who ask while a part is being made wait for the same one."""

    def __init__(self, size: int = _SIZE) -> None:
        self._size = size
        self._parts: OrderedDict[Hashable, asyncio.Future[str]] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], str]) -> str:
        """The part for this key; `make` runs in the database's thread, and only for the first who asks."""
        part = self._parts.get(key)
        if part is None:
            part = asyncio.ensure_future(database_sync_to_async(make)())
            part.add_done_callback(lambda done: self._forget_failure(key, done))
            self._parts[key] = part
            while len(self._parts) > self._size:
                self._parts.popitem(last=False)
        # One socket that closes while it waits must not cancel the rendering for the others.
        return await asyncio.shield(part)

    def _forget_failure(self, key: Hashable, done: asyncio.Future[str]) -> None:
        if done.cancelled() or done.exception() is not None:
            self._parts.pop(key, None)


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, RenderOnce] = WeakKeyDictionary()


def render_once() -> RenderOnce:
    """The one of the running event loop."""
    return _by_loop.setdefault(asyncio.get_running_loop(), RenderOnce())
