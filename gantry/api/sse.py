"""Server-sent events: how they are written, and a job's events as they happen.

The rows are the truth: each event carries its number, so whoever connects again with `Last-Event-ID` gets what was missed and nothing
twice. Hints of the channel layer only say when to look; rows are read once in a process for all who listen.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypedDict

from channels.db import database_sync_to_async
from django.http import StreamingHttpResponse

from gantry.api.job_hints import listening
from gantry.live import JobSnapshot
from gantry.once import Once
from models_admin.exceptions import ActionRefused
from models_admin.models import SwitchEvent, SwitchJob
from models_admin.snapshots import job_snapshot

CONTENT_TYPE = "text/event-stream"
KEEP_ALIVE = ": keep-alive\n\n"  # a comment: proxies see traffic, clients nothing
KEEP_ALIVE_SECONDS = 10.0
SHARED_EVENTS = 20  # the latest of a job are read once for all who follow it; who is further behind reads alone
RIGHTS_SECONDS = 10.0  # between two looks at the rights of whoever follows; a stream that is quiet in between is looked at a little later
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class JobEvent(TypedDict):
    """One thing that happened in a job. Percent 0 to 100; sizes in bytes, times in seconds."""

    seq: int  # 1, 2, 3 … within the job
    job_id: int
    state: str  # planning.states.JobState
    step_kind: str  # planning.states.StepKind, or ""
    percent: float
    bytes_done: int | None
    bytes_total: int | None
    eta_seconds: float | None
    text: str
    at: str  # ISO 8601


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """An event, and the job as it was when the event was read: of the last event, or a little later."""

    event: JobEvent
    job: JobSnapshot
    is_followed: bool = False  # another one was read with it, and comes at once

    @property
    def is_last(self) -> bool:
        """Nothing follows: the job has ended with it."""
        return self.job["is_finished"] and self.event["seq"] >= self.job["seq"]


def encode(event: str, data: Mapping[str, Any], event_id: str | int = "") -> str:
    """One event as it goes over the wire. Data is JSON on one line.

    Args:
        event_id: what the client sends back as `Last-Event-ID`; "": it keeps the last one.
    """
    number = f"id: {event_id}\n" if event_id != "" else ""
    return f"{number}event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def stream(pieces: AsyncIterator[str]) -> StreamingHttpResponse:
    """An answer that passes pieces on as they come, kept by no proxy."""
    return StreamingHttpResponse(pieces, content_type=CONTENT_TYPE, headers=_HEADERS)


def last_event_id(headers: Mapping[str, str]) -> int:
    """The number that a client has seen last; 0 when it says none, or none of ours."""
    text = headers.get("Last-Event-ID", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


async def follow_job(
    job_id: int, *, after: int = 0, keep_alive_seconds: float = KEEP_ALIVE_SECONDS
) -> AsyncGenerator[JobUpdate | None]:
    """The events of a job above a number, in order, none twice and none left out; ends after the last one.

    None is a sign to write KEEP_ALIVE: nothing has happened for so many seconds. It also ends when the job's row is gone.
    Close it (`aclosing`) when the client leaves.
    """
    # Joined before the rows are read, so that nothing falls between the two.
    async with listening(job_id) as ear:
        seen, heard = after, 0
        while True:
            updates, job = await _look(job_id, seen, heard)
            for update in updates:
                yield update
                seen = update.event["seq"]
            if job is None or (job["is_finished"] and (not updates or seen >= job["seq"])):
                return
            heard = await ear.next_after(seen, keep_alive_seconds)
            if not heard:  # nothing was heard; the rows are looked at all the same, for a hint may be lost
                yield None


async def follow_as_text(
    updates: AsyncGenerator[JobUpdate | None], keep_alive: str = KEEP_ALIVE
) -> AsyncGenerator[str]:
    """A job's events as the API writes them: `progress` for each, and `end`, which carries the whole job.

    What was read together is one piece: each costs the server as much as a whole message of a WebSocket.
    """
    piece = ""
    async with aclosing(updates):
        async for update in updates:
            piece += _as_text(update) if update else keep_alive
            if update is None or not update.is_followed:
                yield piece
                piece = ""


def _as_text(update: JobUpdate) -> str:
    if update.is_last:
        return encode("end", {**update.event, "job": _told(update.job)}, update.event["seq"])
    return encode("progress", update.event, update.event["seq"])


async def while_allowed(
    pieces: AsyncGenerator[str], look: Callable[[], object], farewell: Callable[[ActionRefused], str] = lambda _: ""
) -> AsyncGenerator[str]:
    """The pieces, until `look` refuses. It is called in a thread, from time to time when there is something to send.

    Args:
        farewell: what is sent last then.
    """
    clock = asyncio.get_running_loop().time
    look_at = clock() + RIGHTS_SECONDS
    async with aclosing(pieces):
        async for piece in pieces:
            if clock() >= look_at:
                try:
                    await database_sync_to_async(look)()
                except ActionRefused as exc:
                    if last := farewell(exc):
                        yield last
                    return
                look_at = clock() + RIGHTS_SECONDS
            yield piece


_Look = tuple[list[JobUpdate], JobSnapshot | None]
_looks: Once[_Look] = Once()


async def _look(job_id: int, seen: int, heard: int) -> _Look:
    """What the rows say past an event. Those who have heard of the same one read them once together, also when some have seen less."""

    async def read(after: int) -> _Look:
        look: _Look = await database_sync_to_async(_read)(job_id, after)
        return look

    after = heard - SHARED_EVENTS
    if not heard or seen < after:
        return await read(seen)
    updates, job = await _looks.get((job_id, heard), lambda: read(after))
    return [update for update in updates if update.event["seq"] > seen], job


def _read(job_id: int, seen: int) -> _Look:
    # Events before the job: then the job is never older than the last of them.
    events = list(SwitchEvent.objects.filter(job_id=job_id, seq__gt=seen).order_by("seq"))
    job = SwitchJob.objects.select_related("target").filter(pk=job_id).first()
    if job is None:
        return [], None
    snapshot = job_snapshot(job)
    last = len(events) - 1
    return [JobUpdate(_event(event), snapshot, index < last) for index, event in enumerate(events)], snapshot


def _told(job: JobSnapshot) -> dict[str, object]:
    return {name: value for name, value in job.items() if name != "requested_by_id"}


def _event(row: SwitchEvent) -> JobEvent:
    return {
        "seq": row.seq,
        "job_id": row.job_id,
        "state": row.state,
        "step_kind": row.step_kind,
        "percent": round(row.percent, 1),
        "bytes_done": row.bytes_done,
        "bytes_total": row.bytes_total,
        "eta_seconds": row.eta_seconds,
        "text": row.text,
        "at": row.at.isoformat(),
    }
