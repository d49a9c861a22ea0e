"""/ws/events: everything that changes, as typed JSON, for programs. `ws_messages` describes each message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from django.db.models import Q
from django.utils import timezone
from typing_extensions import override

from gantry.api.ws_base import BadMessage, ProgramConsumer
from gantry.api.ws_board import Change, Frame, JobMoved, MemoryMoved, ModelsMoved, View
from gantry.api.ws_messages import (
    EVENTS_REQUESTS,
    EventsRequest,
    GetSnapshot,
    JobEvent,
    MemoryEvent,
    ModelEvent,
    ModelRemoved,
    Ping,
    Pong,
    Snapshot,
    job_event,
)
from gantry.planning.states import TERMINAL_STATES, JobState
from models_admin.actor import Actor
from models_admin.models import SwitchEvent
from models_admin.snapshots import job_snapshot

# Who may not see the list of switches gets what a lost connection kept from them, and no history by another way.
RECONNECT_SECONDS = 15 * 60
MOST_REPLAYED = 500  # events; a long load has a few hundred
_SINCE = re.compile(r"(\d{1,18})-(\d{1,9})", re.ASCII)

Position = tuple[int, int]  # job and seq of an event


def translate(change: Change, view: View) -> Iterator[Frame]:
    """What everybody is told."""
    now = timezone.now()
    match change:
        case JobMoved(job):
            yield Frame(("job", job["id"]), job_event(job, now).model_dump_json())
        case ModelsMoved(changed, removed):
            for model in changed:
                yield Frame(("model", model.id), ModelEvent(at=now, model=model).model_dump_json())
            for model_id in removed:
                yield Frame(("model", model_id), ModelRemoved(at=now, id=model_id).model_dump_json())
        case MemoryMoved():
            yield Frame("memory", MemoryEvent(at=now, memory=list(view.memory)).model_dump_json())


def snapshot(view: View, *, missed_all: bool = True) -> str:
    """Everything as it is now."""
    now = timezone.now()
    message = Snapshot(
        at=now,
        active=view.active.id if view.active else None,
        models=list(view.models.values()),
        memory=list(view.memory),
        job=job_event(view.job, now) if view.job else None,
        missed_all=missed_all,
    )
    return message.model_dump_json()


class EventsConsumer(ProgramConsumer):
    """One connection to /ws/events. With `?since=17-42`, the events of jobs after that one come first.

    For those without the right to see switches only of the last quarter of an hour: longer ago is history, which is not theirs to read.
    """

    requests = EVENTS_REQUESTS
    translate = staticmethod(translate)

    @override
    async def greeting(self, view: View) -> list[str]:
        """What was missed, if that was asked for, then everything as it is now."""
        try:
            since = _since(self.scope["query_string"])
        except BadMessage as exc:
            return [exc.error.model_dump_json(), snapshot(view)]
        if since is None:
            return [snapshot(view)]
        assert self.actor is not None  # noqa: S101 - set before anybody is greeted
        # What comes after the view is told by the board.
        until = (view.job["id"], view.job["seq"]) if view.job else None
        events, missed_all = await database_sync_to_async(_replayed)(since, until, self.actor)
        return [*(event.model_dump_json() for event in events), snapshot(view, missed_all=missed_all)]

    @override
    async def answer(self, request: EventsRequest, actor: Actor, view: View) -> None:
        """Say that the connection lives, or how everything is."""
        match request:
            case Ping():
                self.outbox.put(Pong(at=timezone.now()).model_dump_json(), key="pong")
            case GetSnapshot():
                self.outbox.put(snapshot(view), key="snapshot")


def _since(query: bytes) -> Position | None:
    """The last event that the program knows.

    Raises:
        BadMessage: that is no event's id.
    """
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("since")
    if given is None:
        return None
    found = _SINCE.fullmatch(given[0])
    if found is None:
        raise BadMessage(
            "invalid_since", "“since” is not the id of an event.", "Send the id of the last event, such as 17-42."
        )
    return int(found[1]), int(found[2])


def _replayed(since: Position, until: Position | None, actor: Actor) -> tuple[list[JobEvent], bool]:
    """Events after one and, where the view has a job, up to its last; oldest first. And whether that is all of them.

    Whoever may not see the list of switches gets those only that they would have been told live a moment ago.
    """
    wanted = Q(job=since[0], seq__gt=since[1]) | Q(job__gt=since[0])
    if until is not None:
        wanted &= Q(job__lt=until[0]) | Q(job=until[0], seq__lte=until[1])
    horizon = _horizon(actor)
    rows = (
        SwitchEvent.objects.filter(wanted, Q(at__gte=horizon) if horizon else Q())
        .select_related("job__target")
        .order_by("-job_id", "-seq")[: MOST_REPLAYED + 1]
    )
    events = [_past_event(row) for row in rows]
    is_cut = len(events) > MOST_REPLAYED or (
        horizon is not None and SwitchEvent.objects.filter(wanted, at__lt=horizon).exists()
    )
    return events[:MOST_REPLAYED][::-1], not is_cut


def _horizon(actor: Actor) -> datetime | None:
    """Since when somebody may be told what happened; None: all of it."""
    if actor.user is None or actor.may("view_switchjob"):
        return None
    return max(timezone.now() - timedelta(seconds=RECONNECT_SECONDS), actor.user.date_joined)


def _past_event(row: SwitchEvent) -> JobEvent:
    """The event as it was told then, but for what only the last one of a job knows."""
    is_finished = row.state in TERMINAL_STATES
    event = job_event(job_snapshot(row.job, row.at), row.at)
    return event.model_copy(
        update={
            "id": f"{row.job_id}-{row.seq}",
            "seq": row.seq,
            "is_replay": True,
            "state": row.state,
            "is_finished": is_finished,
            "percent": 100 if row.state == JobState.SUCCEEDED else min(99, int(row.percent)),
            "text": row.text,
            "bytes_done": row.bytes_done,
            "bytes_total": row.bytes_total,
            "eta_seconds": row.eta_seconds,
            "elapsed_seconds": round((row.at - row.job.created_at).total_seconds(), 1),
            "is_cancelling": False,
            "error": event.error if is_finished else None,
            "aftermath": event.aftermath if is_finished else "",
        }
    )
