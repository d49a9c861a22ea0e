"""Live updates of the Models tab and of a switch's page: the present state on connect, then HTML for each event."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from typing_extensions import override

from gantry import live
from gantry.live import JobSnapshot, JobUpdated, ModelsChanged
from gantry.once import Once
from gantry.planning.states import JobState
from models_admin import overview, rendering
from models_admin.actor import Actor
from models_admin.audience import Audience
from models_admin.roles import may_enter_admin

REFUSED = 4403
TRY_AGAIN = 1011
# Between two tellings of a page. Nobody sees more than ten changes a second, and what is rendered for them a load that begins would wait for.
PAUSE_SECONDS = 0.1
_RIGHTS_SECONDS = 30.0  # how long somebody whose rights were taken away may still see updates

log = structlog.get_logger(__name__)

_parts: Once[str] = Once()  # by part, event and audience: rendered once in this process, however many look


@dataclass
class _News:
    """What a page has not been told yet: of each thing the latest, for whatever is sent shows all of it.

    Events come in bursts, and rendering takes longer than an event. A page that was sent each of them would be told last of what
    matters most, the end.
    """

    jobs: dict[int, JobUpdated] = field(default_factory=dict)
    model_ids: set[str] | None = None  # None: no news; empty: all of them
    models_event: str = ""
    memory_event: str = ""
    requests_event: str = ""

    def __bool__(self) -> bool:
        return bool(self.jobs or self.model_ids is not None or self.requests_event or self.memory_event)

    def add(self, message: Any, job_id: int | None) -> bool:
        """Note a live event (gantry.live); False for any other message. With `job_id`, only what is about that job counts."""
        match message["type"]:
            case "job_updated":
                if job_id in {None, message["job"]["id"]}:
                    self.jobs[message["job"]["id"]] = message
            case "models_changed":
                if job_id is None:
                    self._add_models(message)
            case "memory_changed":
                if job_id is None:
                    self.memory_event = message["event_id"]
            case "requests_changed":
                self.requests_event = message["event_id"]
            case _:
                return False
        return True

    def _add_models(self, message: ModelsChanged) -> None:
        is_all = not message["model_ids"] or self.model_ids == set()
        self.model_ids = set() if is_all else {*(self.model_ids or ()), *message["model_ids"]}
        self.models_event = self.memory_event = message["event_id"]  # with the models go the memory bar's names


class ModelsTabConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels ships no types
    """One open page of one member of staff. With `?job=17` it tells of that job's page only."""

    actor: Actor
    job_id: int | None = None
    sees_audit: bool
    checked_at: float
    telling: asyncio.Task[None] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Made by channels for each connection."""
        super().__init__(*args, **kwargs)
        self.news, self.has_news, self.has_end = _News(), asyncio.Event(), asyncio.Event()

    @override
    async def connect(self) -> None:
        """Accept staff who may see models; they get everything as it is now."""
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        job = query.get("job", [""])[0]
        self.job_id = int(job) if job.isascii() and job.isdigit() and len(job) < 19 else None
        if not await self._may_watch():
            await self.close(REFUSED)
            return
        # Joined before the state is read, so that nothing falls between the two.
        await self.channel_layer.group_add(live.STATUS_GROUP, self.channel_name)
        if self.job_id is None:
            await self.channel_layer.group_add(live.REQUESTS_GROUP, self.channel_name)
        await self.accept()
        await self._send_present()
        self.telling = asyncio.create_task(self._tell())

    @override
    async def disconnect(self, code: int) -> None:
        """Leave the group."""
        if self.telling is not None:
            self.telling.cancel()
        await self.channel_layer.group_discard(live.STATUS_GROUP, self.channel_name)
        await self.channel_layer.group_discard(live.REQUESTS_GROUP, self.channel_name)

    @override
    async def dispatch(self, message: Any) -> None:
        """Note what has happened, and leave everything else to channels.

        Channels looks after database connections before each message, in the one thread in which pages are rendered: news would wait
        there for what is being rendered, and none could overtake another.
        """
        if not self.news.add(message, self.job_id):
            await super().dispatch(message)
            return
        self.has_news.set()
        if live.is_end(message):
            self.has_end.set()

    async def _tell(self) -> None:
        """Send what is new for as long as the page is open. When that fails, it is told to connect again."""
        try:
            while True:
                await self.has_news.wait()
                self.has_news.clear()
                self.has_end.clear()
                # One part after the other: a job that moves meanwhile comes before whatever else still waits.
                while self.news:
                    if not await self._still_may_watch():
                        return
                    await self._send_next()
                with contextlib.suppress(TimeoutError):  # the end of a job is told at once
                    await asyncio.wait_for(self.has_end.wait(), PAUSE_SECONDS)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("page_not_told")
            with contextlib.suppress(Exception):  # it may be gone already
                await self.close(TRY_AGAIN)

    async def _send_next(self) -> None:
        news, audience = self.news, Audience.of(self.actor, None)
        if news.jobs:
            message = news.jobs.pop(next(iter(news.jobs)))
            await self._send_job(message["job"], message["event_id"])
        elif news.model_ids is not None:
            wanted, news.model_ids = sorted(news.model_ids), None
            await self._send(("rows", news.models_event, *wanted, audience), lambda: _rows(wanted, audience))
        elif news.requests_event:
            event, news.requests_event = news.requests_event, ""
            if audience.may_answer:
                await self._send(("requests", event, audience), lambda: rendering.render_requests(audience))
        else:
            event, news.memory_event = news.memory_event, ""
            await self._send(("memory", event), _memory)

    async def _send_job(self, job: JobSnapshot, event: str) -> None:
        if self.job_id is not None:
            await self._send_story(job, event)
            return
        audience = Audience.of(self.actor, job)
        await self._send(("panel", event, audience), lambda: _panel(job, audience))

    async def _send(self, key: Hashable, make: Callable[[], str]) -> None:
        await self.send(text_data=await _parts.get(key, database_sync_to_async(make)))

    async def _send_present(self) -> None:
        if self.job_id is not None:
            story = await database_sync_to_async(rendering.story_with_rights)(self.job_id, self.actor)
            if story:
                await self.send(text_data=story)
            return
        parts = await database_sync_to_async(rendering.render_present)(lambda job: Audience.of(self.actor, job))
        for part in parts:
            await self.send(text_data=part)

    async def _send_story(self, job: JobSnapshot, event: str) -> None:
        audience, pk, sees_audit = Audience.of(self.actor, job), job["id"], self.sees_audit
        await self._send(
            ("story", event, audience, sees_audit), lambda: rendering.render_story(pk, audience, with_audit=sees_audit)
        )

    async def _still_may_watch(self) -> bool:
        """Look again from time to time: somebody may have signed out or lost the right."""
        if time.monotonic() - self.checked_at < _RIGHTS_SECONDS or await self._may_watch():
            return True
        await self.close(REFUSED)
        return False

    async def _may_watch(self) -> bool:
        allowed: bool = await database_sync_to_async(self._read_rights)()
        return allowed

    def _read_rights(self) -> bool:
        """Reads the person and the rights afresh; later questions about rights are answered from what is read here."""
        self.checked_at = time.monotonic()
        user = _staff_member(self.scope)
        if user is None:
            return False
        self.actor = Actor(user, "websocket")
        Audience.of(self.actor, None)  # asked again from the event loop, where nothing can be read
        self.sees_audit = user.has_perm("models_admin.view_auditentry")
        may_see_jobs = self.job_id is not None and user.has_perm("models_admin.view_switchjob")
        return may_see_jobs or user.has_perm("models_admin.view_modeldefinition")


def _staff_member(scope: Any) -> User | None:
    user, session = scope["user"], scope.get("session")
    if not user.is_authenticated or (
        session is not None and session.session_key and not session.exists(session.session_key)
    ):
        return None
    found: User | None = get_user_model().objects.filter(pk=user.pk).first()
    return found if found is not None and may_enter_admin(found) else None


def _panel(job: JobSnapshot, audience: Audience) -> str:
    if job["state"] == JobState.WAITING:
        # A job that waits behind another one does not take the panel from it.
        working = overview.current_job()
        if working and working["id"] != job["id"]:
            # Whether this audience may cancel that other job comes with its own next event.
            job, audience = working, replace(audience, may_cancel=False)
    return rendering.render_job_update(job, audience)


def _rows(model_ids: list[str], audience: Audience) -> str:
    """Some rows, or the whole list when all may have changed or one of them is gone."""
    job = overview.current_job()
    if model_ids:
        rows = overview.model_rows(job, model_ids=model_ids, with_people=True)
        if len(rows) == len(set(model_ids)):
            return rendering.render_rows(rows, audience)
    return rendering.render_list(overview.model_rows(job, with_people=True), audience)


def _memory() -> str:
    return rendering.render_memory(overview.memory_now())
