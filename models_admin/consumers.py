"""Live updates of the Models tab and of a switch's page: the present state on connect, then HTML for each event."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from typing_extensions import override

from gantry import live
from gantry.live import JobSnapshot, JobUpdated, MemoryChanged, ModelsChanged
from gantry.once import Once
from gantry.planning.states import JobState
from models_admin import overview, rendering
from models_admin.actor import Actor
from models_admin.audience import Audience

REFUSED = 4403
_RIGHTS_SECONDS = 30.0  # how long somebody whose rights were taken away may still see updates

_parts: Once[str] = Once()  # by part, event and audience: rendered once in this process, however many look


class ModelsTabConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels ships no types
    """One open page of one member of staff. With `?job=17` it tells of that job's page only."""

    actor: Actor
    job_id: int | None
    sees_audit: bool
    checked_at: float

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
        await self.accept()
        await self._send_present()

    @override
    async def disconnect(self, code: int) -> None:
        """Leave the group."""
        await self.channel_layer.group_discard(live.STATUS_GROUP, self.channel_name)

    async def job_updated(self, message: JobUpdated) -> None:
        """A job changed."""
        job, event = message["job"], message["event_id"]
        if not await self._still_may_watch():
            return
        if self.job_id is not None:
            if job["id"] == self.job_id:
                await self._send_story(job, event)
            return
        audience = Audience.of(self.actor, job)
        await self._send(("panel", event, audience), lambda: _panel(job, audience))

    async def models_changed(self, message: ModelsChanged) -> None:
        """Models changed state; with them the memory bar's names."""
        if self.job_id is not None or not await self._still_may_watch():
            return
        audience, ids, event = Audience.of(self.actor, None), message["model_ids"], message["event_id"]
        await self._send(("rows", event, audience), lambda: _rows(ids, audience))
        await self._send(("memory", event), _memory)

    async def memory_changed(self, message: MemoryChanged) -> None:
        """A memory reading or a runtime's health changed."""
        if self.job_id is None and await self._still_may_watch():
            await self._send(("memory", message["event_id"]), _memory)

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
        self.sees_audit = user.has_perm("models_admin.view_auditentry")
        may_see_jobs = self.job_id is not None and user.has_perm("models_admin.view_switchjob")
        return may_see_jobs or user.has_perm("models_admin.view_modeldefinition")


def _staff_member(scope: Any) -> User | None:
    user, session = scope["user"], scope.get("session")
    if not user.is_authenticated or (
        session is not None and session.session_key and not session.exists(session.session_key)
    ):
        return None
    found: User | None = get_user_model().objects.filter(pk=user.pk, is_active=True, is_staff=True).first()
    return found


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
    return rendering.render_memory(overview.overview())
