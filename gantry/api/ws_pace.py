"""How fast one connection takes what is sent to it."""

from __future__ import annotations

import asyncio
from typing import Any

from gantry.api.ws_daphne import transport_of


class Pace:
    """Says when a connection takes more.

    ASGI leaves that to `send`, which a server lets wait while its reader is slow. Daphne's returns at once, and what nobody reads heaps
    up in its memory; so what Twisted tells those who write much (IPushProducer) is listened to here. With another server, `ready` does
    not wait, since `send` does.
    """

    def __init__(self, send: Any) -> None:
        """Take the `send` that the server itself gave."""
        self._takes_more = asyncio.Event()
        self._takes_more.set()
        transport = transport_of(send)
        if transport is not None:
            # Daphne leaves the HTTP half registered, which a slow reader would keep from *reading*, pongs and goodbyes too.
            transport.unregisterProducer()
            transport.registerProducer(self, True)

    async def ready(self) -> None:
        """Return once the connection takes more, or is gone."""
        await self._takes_more.wait()

    def pauseProducing(self) -> None:  # noqa: N802 - Twisted's names
        """64 KiB wait in the server, beside what the kernel holds."""
        self._takes_more.clear()

    def resumeProducing(self) -> None:  # noqa: N802
        """The kernel has taken all of it."""
        self._takes_more.set()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is gone: nobody needs to wait for it."""
        self._takes_more.set()
