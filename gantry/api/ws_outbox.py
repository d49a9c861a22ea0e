"""What waits to be sent to one connection: bounded, and of what replaces itself only the latest."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable

# More than all models of a large installation with their job and memory: then somebody does not read at all.
MOST_WAITING = 1000


class TooSlow(Exception):
    """So much waits that the reader cannot be brought up to date any more."""


class Outbox:
    """Filled without waiting by whoever has news, emptied by the one task that sends. For one event loop."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, str] = OrderedDict()
        self._has_some = asyncio.Event()

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def put(self, text: str, key: Hashable = None) -> None:
        """Add a message; one with the same key that still waits is dropped for it. Without a key it replaces none.

        Beyond MOST_WAITING nothing is added; `next` says so.
        """
        key = object() if key is None else key
        self._waiting.pop(key, None)
        if len(self._waiting) <= MOST_WAITING:
            self._waiting[key] = text
        self._has_some.set()

    async def next(self) -> str:
        """The message that has waited longest.

        Raises:
            TooSlow: more than MOST_WAITING wait.
        """
        await self._has_some.wait()
        if len(self._waiting) > MOST_WAITING:
            raise TooSlow
        _, text = self._waiting.popitem(last=False)
        if not self._waiting:
            self._has_some.clear()
        return text
