"""Live events: group names, the shapes of what is sent, and the functions that send it.

The row is the truth, the socket a hint: whoever connects renders from the rows first. Everything here leaves on commit; when the
broker is away, a hint is lost with one log line and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import structlog
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.03  # how long a hint waits for others that may follow at once

STATUS_GROUP = "status"  # every signed-in page: jobs, models, memory
REQUESTS_GROUP = "requests"  # pages on which people ask for models and are answered


class StepSnapshot(TypedDict):
    """One step of a job as people see it. Seconds and bytes; percent 0 to 100."""

    kind: str  # planning.states.StepKind
    model_id: NotRequired[str]  # not in steps stored by older versions
    model_name: str
    state: str  # planning.states.StepState
    percent: float
    expected_seconds: float
    started_at: str | None  # ISO 8601
    seconds: float | None  # how long it took, or has taken so far
    bytes_done: int | None
    bytes_total: int | None


class JobSnapshot(TypedDict):
    """A job as people see it; made by `models_admin.snapshots.job_snapshot` from the row, the same for page and event."""

    id: int
    seq: int
    kind: str
    state: str
    is_finished: bool
    target_id: str
    target_name: str
    from_name: str
    requested_by: str
    requested_by_id: NotRequired[int | None]  # for Gantry alone; older workers leave it out
    via: str
    created_at: str
    elapsed_seconds: float
    expected_seconds: float
    eta_seconds: float | None  # None when it is not known
    is_over_estimate: bool
    percent: int
    bytes_done: int | None
    bytes_total: int | None
    stage_text: str
    steps: list[StepSnapshot]
    error_code: str
    error_text: str  # one or two sentences, what happened
    error_hint: str  # what to do
    error_data: NotRequired[dict[str, int]]  # insufficient_memory: {required, available, freeable}_bytes
    aftermath: str  # what was done about it: "SmolLM2 was put back."
    is_cancelling: bool
    interrupts: bool  # there is a time in which no model answers; False: the present one serves until the target does
    downtime_seconds: float | None  # how long that was, once it is over
    url: str


class JobUpdated(TypedDict):
    """Channel message: a job changed. Handler `job_updated`."""

    type: str
    job: JobSnapshot
    event_id: str  # unique for each message: key for rendering once per process


class ModelsChanged(TypedDict):
    """Channel message: the state of models changed. Handler `models_changed`; an empty list means all."""

    type: str
    model_ids: list[str]
    event_id: str


class MemoryChanged(TypedDict):
    """Channel message: a memory reading or a runtime's health changed. Handler `memory_changed`."""

    type: str
    event_id: str


class RequestsChanged(TypedDict):
    """Channel message to the pages that show who asks for which model: read the requests again. Handler `requests_changed`."""

    type: str
    user_ids: list[int]  # of those who asked
    event_id: str


class ConversationChanged(TypedDict):
    """Channel message to one conversation's group: a message changed. Handler `message_updated`.

    Without `text` it says: read the row. With it, the answer is being written and this is all of it so far, so that a message that is
    lost or comes late costs nothing.
    """

    type: str
    message_id: int
    state: str  # gantry.chat.models.Message.State
    text: NotRequired[str]


def conversation_group(conversation_id: int) -> str:
    """Group of everybody who looks at a conversation (one person's tabs)."""
    return f"conversation-{conversation_id}"


def publish_job(snapshot: JobSnapshot) -> None:
    """Tell every page that a job changed, after the running transaction commits."""
    message: JobUpdated = {
        "type": "job_updated",
        "job": snapshot,
        "event_id": f"job-{snapshot['id']}-{snapshot['seq']}",
    }
    _send_on_commit(STATUS_GROUP, message)


def publish_models_changed(model_ids: Sequence[str], event_id: str) -> None:
    """Tell every page that models changed state, after the running transaction commits."""
    message: ModelsChanged = {"type": "models_changed", "model_ids": list(model_ids), "event_id": event_id}
    _send_on_commit(STATUS_GROUP, message)


def publish_memory_changed(event_id: str) -> None:
    """Tell every page that memory or a runtime's health changed, after the running transaction commits."""
    message: MemoryChanged = {"type": "memory_changed", "event_id": event_id}
    _send_on_commit(STATUS_GROUP, message)


def publish_requests_changed(user_ids: Sequence[int], event_id: str) -> None:
    """Tell the pages of those who asked for a model, and of those who answer, after the running transaction commits."""
    message: RequestsChanged = {"type": "requests_changed", "user_ids": list(user_ids), "event_id": event_id}
    _send_on_commit(REQUESTS_GROUP, message)


def publish_message(conversation_id: int, message_id: int, state: str) -> None:
    """Tell a conversation's tabs to read a message's row again, after the running transaction commits."""
    message: ConversationChanged = {"type": "message_updated", "message_id": message_id, "state": state}
    _send_on_commit(conversation_group(conversation_id), message)


async def publish_partial_answer(conversation_id: int, message_id: int, text: str) -> None:
    """Show a conversation's tabs an answer that is being written, all of it so far. Now, from the event loop."""
    message: ConversationChanged = {
        "type": "message_updated",
        "message_id": message_id,
        "state": "streaming",
        "text": text,
    }
    await _send_hint(conversation_group(conversation_id), message)


def _send_on_commit(group: str, message: Mapping[str, Any]) -> None:
    transaction.on_commit(lambda: send(group, message), robust=True)


def send(group: str, message: Mapping[str, Any]) -> None:
    """Send now, from synchronous code. A hint that cannot be sent is logged and dropped."""
    if _background is not None:
        _background.put(group, message)
    else:
        async_to_sync(_send_hint)(group, message)


class Background:
    """Sends hints from a thread of its own, over a connection that stays, and of several that say the same the last one.

    `async_to_sync` makes an event loop and a connection for each hint: 2 ms in which a switch stands still, twenty times. And each hint
    that arrives has pages rendered, which takes longer than what it tells of: a switch that waits for nothing goes through five steps in 50 ms.
    """

    def __init__(self, most_waiting: int = 1000) -> None:
        """`most_waiting`: hints that may wait while the broker is slow or away; what comes on top is lost, for the rows tell it too."""
        self._loop = asyncio.new_event_loop()
        self._hints: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue(most_waiting)
        threading.Thread(
            target=self._loop.run_until_complete, args=(self._send_all(),), name="hints", daemon=True
        ).start()

    def put(self, group: str, message: Mapping[str, Any]) -> None:
        """Send soon. From any thread; returns at once."""
        self._loop.call_soon_threadsafe(self._put, group, dict(message))

    def flush(self, seconds: float) -> bool:
        """Wait until all is sent, for so long at most; whether it is."""
        try:
            asyncio.run_coroutine_threadsafe(self._hints.join(), self._loop).result(seconds)
        except TimeoutError:
            return False
        return True

    def _put(self, group: str, message: Mapping[str, Any]) -> None:
        try:
            self._hints.put_nowait((group, message))
        except asyncio.QueueFull:
            log.warning("live_hint_lost", group=group, reason="too many are waiting for the broker")

    async def _send_all(self) -> None:
        while True:
            hints = await self._gather()
            for group, message in without_outdated(hints):
                await _send_hint(group, message)
            for _ in hints:
                self._hints.task_done()

    async def _gather(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What comes within a moment; at once when a job has ended, for people wait for that."""
        hints = [await self._hints.get()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                while not is_end(hints[-1][1]):
                    hints.append(await self._hints.get())
        while not self._hints.empty():
            hints.append(self._hints.get_nowait())
        return hints


def without_outdated(hints: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Mapping[str, Any]]]:
    """The hints without those of which a later one says the same and more: a job's figures, which models changed, the memory."""
    kept: dict[Hashable, tuple[str, Mapping[str, Any]]] = {}
    for number, (group, message) in enumerate(hints):
        key: Hashable = (group, message["type"])
        latest = message
        match message["type"]:
            case "job_updated":
                key = (group, "job", message["job"]["id"])
            case "models_changed":
                latest = {**message, "model_ids": _all_of(kept.get(key), message["model_ids"])}
            case "memory_changed":
                pass
            case _:
                key = number
        kept[key] = (group, latest)
    # Jobs first: somebody waits for those, and whatever follows is read from the rows anyway.
    return sorted(kept.values(), key=lambda hint: hint[1]["type"] != "job_updated")


def _all_of(earlier: tuple[str, Mapping[str, Any]] | None, model_ids: Sequence[str]) -> list[str]:
    """The models of two hints together; an empty list means all there are."""
    before = earlier[1]["model_ids"] if earlier else model_ids
    return sorted({*before, *model_ids}) if before and model_ids else []


def is_end(message: Mapping[str, Any]) -> bool:
    """Whether an event tells that a job has ended: what everybody waits for."""
    return message["type"] == "job_updated" and bool(message["job"]["is_finished"])


_background: Background | None = None


def send_in_background() -> Background:
    """From now on `send` does not wait for the broker. For a process that has more to do than to tell of it: the worker."""
    global _background
    _background = _background or Background()
    return _background


async def _send_hint(group: str, message: Mapping[str, Any]) -> None:
    try:
        await get_channel_layer().group_send(group, dict(message))
    except Exception as exc:  # noqa: BLE001 - whatever the layer fails with, the row is the truth and pages re-read it
        log.warning("live_hint_lost", group=group, reason=repr(exc))
