"""What all sockets for programs are told from: one view of the rows in each process, and what changes in it.

One channel of the layer, one reading of the database and one text for each message, however many are connected. The hints of
`gantry.live` say when to look; because a hint can be lost, the board also looks by itself from time to time.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import structlog
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer

from gantry import live
from gantry.api.ws_messages import ModelInfo, PoolInfo
from gantry.api.ws_outbox import Outbox
from gantry.live import JobSnapshot
from models_admin.models import SwitchJob
from models_admin.overview import ModelRow, PoolView, overview
from models_admin.snapshots import job_snapshot

log = structlog.get_logger(__name__)

LOOK_SECONDS = 10.0  # how long a change whose hint was lost can stay unknown
_JOBS_KEPT = 32  # of those that have ended, so that a hint that comes late is known to be old


@dataclass(frozen=True, slots=True)
class View:
    """How everything was at the last look."""

    models: Mapping[str, ModelInfo]  # by id, in the order of their names
    memory: tuple[PoolInfo, ...]
    job: JobSnapshot | None  # under way

    @property
    def active(self) -> ModelInfo | None:
        """The model that answers."""
        return next((model for model in self.models.values() if model.is_active), None)


@dataclass(frozen=True, slots=True)
class JobMoved:
    """Something happened in a job. The view has it already."""

    job: JobSnapshot
    is_new: bool  # nothing was known of this job before


@dataclass(frozen=True, slots=True)
class ModelsMoved:
    """Models are new, have changed, or are gone."""

    changed: tuple[ModelInfo, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryMoved:
    """The figures of some pool have changed."""


class Frame(NamedTuple):
    """A message, ready to be sent. Of those with the same key only the latest matters."""

    key: Hashable
    text: str


Change = JobMoved | ModelsMoved | MemoryMoved
Translate = Callable[[Change, View], Iterable[Frame]]

_boards: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Board] = weakref.WeakKeyDictionary()


async def join(translate: Translate, outbox: Outbox) -> Board:
    """Have every change put into an outbox from now on, in the words of `translate`. The board has a view when this returns."""
    board = _boards.setdefault(asyncio.get_running_loop(), Board())
    await board.add(translate, outbox)
    return board


class Board:
    """The view and those who are told of its changes; it works as long as there is one of them."""

    def __init__(self) -> None:
        self.view = View({}, (), None)
        self._listeners: dict[Translate, set[Outbox]] = {}
        self._members = 0  # listeners, and those who wait for the first view
        self._jobs: OrderedDict[int, JobSnapshot] = OrderedDict()
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._begun: asyncio.Task[None] | None = None

    async def add(self, translate: Translate, outbox: Outbox) -> None:
        """Tell this outbox too. Each call is answered by one of `remove`, unless it raises."""
        self._members += 1
        self._begun = self._begun or asyncio.ensure_future(self._begin())
        try:
            # Shielded: the first to come may go away while others wait.
            await asyncio.shield(self._begun)
        except BaseException:
            self._leave()
            raise
        self._listeners.setdefault(translate, set()).add(outbox)

    def remove(self, translate: Translate, outbox: Outbox) -> None:
        """Tell it no more."""
        self._listeners[translate].discard(outbox)
        self._leave()

    def _leave(self) -> None:
        self._members -= 1
        if self._members:
            return
        loop = asyncio.get_running_loop()
        if _boards.get(loop) is self:
            del _boards[loop]
        for task in [*self._tasks, *([self._begun] if self._begun else [])]:
            task.cancel()

    async def _begin(self) -> None:
        layer = get_channel_layer()
        channel = await layer.new_channel()
        # Joined before the rows are read, so that nothing falls between the two.
        await layer.group_add(live.STATUS_GROUP, channel)
        self._tasks.append(asyncio.ensure_future(self._listen(layer, channel)))
        self.view, jobs = await _read(())
        for job in jobs:
            self._keep(job)
        self._tasks.append(asyncio.ensure_future(self._watch()))

    async def _listen(self, layer: Any, channel: str) -> None:
        # A task of its own: a layer takes a `receive` that is cancelled for the end of its channel.
        try:
            while True:
                self._inbox.put_nowait(await layer.receive(channel))
        finally:
            with suppress(Exception):  # the broker is away: then there is nothing to leave
                await layer.group_discard(live.STATUS_GROUP, channel)

    async def _watch(self) -> None:
        while True:
            hints = await self._next_hints()
            try:
                await self._take(hints)
            except Exception as exc:  # noqa: BLE001 - the database is away, say: the next look finds what was missed
                log.warning("board_not_read", reason=repr(exc))

    async def _next_hints(self) -> list[dict[str, Any]]:
        """All that have come; none when it is time to look without one."""
        hints = []
        with suppress(TimeoutError):
            hints.append(await asyncio.wait_for(self._inbox.get(), LOOK_SECONDS))
        while not self._inbox.empty():
            hints.append(self._inbox.get_nowait())
        return hints

    async def _take(self, hints: Collection[dict[str, Any]]) -> None:
        moved: list[JobMoved] = []
        needs_look = not hints
        for hint in hints:
            if hint["type"] == "job_updated":
                needs_look |= self._note(hint["job"], moved)
            else:
                needs_look = True
        # A job's end is told with what it has changed, not with the models as they were before.
        before = self.view
        if needs_look:
            unfinished = [pk for pk, job in self._jobs.items() if not job["is_finished"]]
            view, jobs = await _read(unfinished)
            self.view = replace(view, job=self._latest(view.job))
            for job in jobs:
                self._note(job, moved)
        self._tell([*moved, *_differences(before, self.view)])

    def _note(self, job: JobSnapshot, moved: list[JobMoved]) -> bool:
        """Take over a job's present state, unless it is old. Whether models may look different because of it."""
        known = self._jobs.get(job["id"])
        if known and _version(job) <= _version(known):
            return False
        self._keep(job)
        moved.append(JobMoved(job, is_new=known is None))
        is_shown = self.view.job is None or self.view.job["id"] == job["id"]
        if is_shown:
            self.view = replace(self.view, job=None if job["is_finished"] else job)
        return known is None or not is_shown or _shape(job) != _shape(known)

    def _latest(self, job: JobSnapshot | None) -> JobSnapshot | None:
        """The job under way as the last hint told of it, if that is newer than the row that was read."""
        known = self._jobs.get(job["id"]) if job else None
        if job and known and _version(known) > _version(job):
            job = known
        return None if job and job["is_finished"] else job

    def _keep(self, job: JobSnapshot) -> None:
        self._jobs[job["id"]] = job
        self._jobs.move_to_end(job["id"])
        while len(self._jobs) > _JOBS_KEPT:
            self._jobs.popitem(last=False)

    def _tell(self, changes: Iterable[Change]) -> None:
        for change in changes:
            for translate, outboxes in self._listeners.items():
                frames = list(translate(change, self.view)) if outboxes else []
                for frame in frames:
                    for outbox in outboxes:
                        outbox.put(frame.text, frame.key)


def _version(job: JobSnapshot) -> tuple[int, bool, bool]:
    """Grows with what happens to a job. That a cancel was asked for changes it without a new number."""
    return job["seq"], job["is_cancelling"] or job["is_finished"], job["is_finished"]


def _shape(job: JobSnapshot) -> tuple[object, ...]:
    """What a job's models look different by."""
    return job["state"], *(step["state"] for step in job["steps"])


def _differences(before: View, now: View) -> Iterable[Change]:
    changed = tuple(model for model in now.models.values() if before.models.get(model.id) != model)
    removed = tuple(model_id for model_id in before.models if model_id not in now.models)
    if changed or removed:
        yield ModelsMoved(changed, removed)
    if before.memory != now.memory:
        yield MemoryMoved()


@database_sync_to_async  # type: ignore[untyped-decorator]
def _read(watched: Collection[int]) -> tuple[View, list[JobSnapshot]]:
    """The view, and every job that has not ended or is watched, oldest first. The number of queries does not grow."""
    seen = overview()
    models = {row.model.model_id: model_info(row) for row in seen.rows}
    view = View(models, tuple(_pool_info(item) for item in seen.pools), seen.job)
    jobs = SwitchJob.objects.unfinished() | SwitchJob.objects.filter(pk__in=watched)
    return view, [job_snapshot(job) for job in jobs.select_related("target").order_by("id")]


def model_info(row: ModelRow) -> ModelInfo:
    """A model as programs see it."""
    """A model as programs are told of it."""
    model = row.model
    return ModelInfo(
        id=model.model_id,
        name=model.name,
        state=row.state,
        is_active=bool(row.is_loaded and row.instance and row.instance.is_active),
        is_available=model.is_available,
        is_pinned=model.is_pinned,
        size_bytes=model.size_bytes,
        held_bytes=row.instance.held_bytes if row.instance else 0,
        quantization=model.quantization,
        parameters=model.parameter_label,
        context_length=model.context_length,
        description=model.description,
        tags=[str(tag) for tag in model.tags],
        error_code=model.last_error_code,
    )


def _pool_info(item: PoolView) -> PoolInfo:
    return PoolInfo(**{name: getattr(item.pool, name) for name in PoolInfo.model_fields})
