"""What is there and in which state, kept ready in each web process for whoever polls it.

As long as somebody asks, one task in the process reads the rows: when a live event says that they have changed, and from time to time
without one, for an event can be lost. A request takes what lies ready. Only the first one waits, and one that would get something too
old: older than a second while a job is under way, or while there are no events because the broker is away.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import time
import weakref
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag
from pydantic import BaseModel

from gantry import live
from gantry.planning.types import ModelSpec
from models_admin import specs
from models_admin.actor import Actor
from models_admin.job_requests import need_status
from models_admin.overview import Overview, overview

log = structlog.get_logger(__name__)

OLDEST_SECONDS = (
    1.0  # of what anybody is given during a job; at other times, as long as events come, nothing changes without one
)
OLDEST_SECONDS_AT_REST = 10.0
# Between two looks without an event; less than the age above, so that nobody has to wait for one.
LOOK_SECONDS, LOOK_SECONDS_AT_REST = 0.4, 5.0
PAUSE_SECONDS = 0.1  # between two readings, however many events come
UNASKED_SECONDS = 30.0  # after which nothing is kept ready any more

T = TypeVar("T")
Document = Callable[["Status"], BaseModel]


@dataclass(frozen=True, slots=True)
class Body:
    """An answer as it goes over the wire."""

    content: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Status:
    """How everything was at one moment. What is made of it is made once."""

    overview: Overview
    specs: Mapping[int, ModelSpec]  # what a load of each model takes, by primary key
    read_at: float = field(default_factory=time.monotonic)
    bodies: dict[Document, Body] = field(default_factory=dict)

    @property
    def age_seconds(self) -> float:
        """How old it is."""
        return time.monotonic() - self.read_at

    def body(self, document: Document) -> Body:
        """A document about this moment, as JSON. Fields that were left out are not in it."""
        if document not in self.bodies:
            content = document(self).model_dump_json(exclude_unset=True).encode()
            self.bodies[document] = Body(content, quote_etag(hashlib.sha256(content).hexdigest()[:32]))
        return self.bodies[document]


class StatusCache:
    """Keeps the status ready in one event loop; use `cached_status`."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._reading: asyncio.Task[Status] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._is_told = False  # events come
        self._asked_at = 0.0

    async def get(self) -> Status:
        """The status, never too old."""
        self._asked_at = time.monotonic()
        if self._keeper is None or self._keeper.done():
            self._keeper = _start(self._keep())
        oldest = OLDEST_SECONDS_AT_REST if self._is_at_rest else OLDEST_SECONDS
        if self._status is not None and self._status.age_seconds < oldest:
            return self._status
        return await self._read()

    async def _read(self) -> Status:
        """Read the rows; those who ask meanwhile share it. Shielded: the first to ask may go away."""
        if self._reading is None or self._reading.done():
            self._reading = _start(_read_rows())
        reading = self._reading
        status = await asyncio.shield(reading)
        if reading is self._reading:  # else it was begun before something that is known to have changed
            self._status = status
        return status

    def forget(self) -> None:
        """What was read, and what is being read, is old."""
        self._status = self._reading = None

    @property
    def _is_at_rest(self) -> bool:
        """No job is under way, and when one begins an event will say so."""
        return self._is_told and self._status is not None and self._status.overview.job is None

    async def _keep(self) -> None:
        # A task of its own: a layer takes a `receive` that is cancelled for the end of its channel.
        listener = _start(self._listen())
        try:
            while time.monotonic() - self._asked_at < UNASKED_SECONDS:
                if listener.done():
                    listener = _start(self._listen())
                await self._wait()
                try:
                    await self._read()
                except Exception as exc:  # noqa: BLE001 - the database is away, say: whoever asks meets that themselves
                    log.warning("status_not_read", reason=repr(exc))
                    await _let_connection_go()
            await _let_connection_go()
        finally:
            listener.cancel()

    async def _wait(self) -> None:
        """Until something has changed, or it is time to look without a word."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS_AT_REST if self._is_at_rest else LOOK_SECONDS):
                await self._changed.wait()
            await asyncio.sleep(PAUSE_SECONDS)
        # Before the rows are read: what changes while they are read is read again.
        self._changed.clear()

    async def _listen(self) -> None:
        layer, channel = get_channel_layer(), ""
        try:
            channel = await layer.new_channel()
            await layer.group_add(live.STATUS_GROUP, channel)
            self._is_told = True
            while True:
                self._changed.set()  # the first time for what nobody told while it was not listening
                await layer.receive(channel)
        except Exception as exc:  # noqa: BLE001 - whatever the layer fails with, the rows are looked at all the same
            log.warning("live_hints_away", reason=repr(exc))
        finally:
            self._is_told = False
            with suppress(Exception):  # the broker is away: then there is nothing to leave
                await layer.group_discard(live.STATUS_GROUP, channel)


_caches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, StatusCache] = weakref.WeakKeyDictionary()


async def cached_status() -> Status:
    """How everything is; during a job at most OLDEST_SECONDS old."""
    return await _caches.setdefault(asyncio.get_running_loop(), StatusCache()).get()


def forget() -> None:
    """Have the next one who asks wait for the rows: what this process itself has changed is seen at once by whoever asked for it."""
    cache = _caches.get(asyncio.get_running_loop())
    if cache is not None:
        cache.forget()


async def visible_status(actor: Actor) -> Status:
    """The same, for an actor.

    Raises:
        NotAllowed: may not see the state of models.
    """
    await sync_to_async(need_status)(actor)
    return await cached_status()


async def answer(request: HttpRequest, actor: Actor, document: Document) -> HttpResponseBase:
    """A document about the present status; 304 to a client that has it already and says so (`If-None-Match`).

    Raises:
        NotAllowed: may not see the state of models.
    """
    await sync_to_async(need_status)(actor)
    return await answer_anybody(request, document)


async def answer_anybody(request: HttpRequest, document: Document) -> HttpResponse:
    """The same, to whoever is known to be allowed to see it."""
    body = (await cached_status()).body(document)
    headers = {"ETag": body.etag, "Cache-Control": "private, no-cache"}
    response = HttpResponse(body.content, content_type="application/json", headers=headers)
    return get_conditional_response(request, etag=body.etag, response=response) or response


@database_sync_to_async  # type: ignore[untyped-decorator]
def _let_connection_go() -> None:
    """End the connection that `_read_rows` leaves open."""


@sync_to_async
def _read_rows() -> Status:
    """Read everything, and leave the connection open.

    With SQLite, the last connection to be closed writes the log back and holds up everybody: that would be after many a request.
    """
    read_at = time.monotonic()  # before the first row: what is read may be older than the end of the reading
    seen = overview()
    return Status(seen, specs.specs_for([row.model for row in seen.rows]), read_at)


def _start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that belongs to no request: it does not use the thread of one, which ends with it."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())
