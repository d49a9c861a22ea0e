"""What is there and in which state: the one answer behind the Models tab, the chat's dropdown and `manage.py status`.

The number of queries does not depend on how many models or jobs there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, Subquery
from django.utils import timezone

from gantry.live import JobSnapshot
from gantry.planning.states import InstanceState, JobState, ModelState
from gantry.planning.wording import wording
from models_admin.crashes import is_paused
from models_admin.models import LoadRecord, MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from models_admin.runtime_access import model_limit
from models_admin.snapshots import job_snapshot
from models_admin.usage import people_using

KEEPS_CRASHING = "Keeps crashing, paused until"  # and the clock time, which pages give in the reader's own zone
NOISE_BYTES = 10_000_000  # readings of one moment differ by less

_INSTANCE_STATES = {
    InstanceState.LOADING: ModelState.LOADING,
    InstanceState.UNLOADING: ModelState.UNLOADING,
    InstanceState.CRASHED: ModelState.CRASHED,
}


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model with its state. `words` is empty for an idle model; `percent` is given while it loads."""

    model: ModelDefinition
    state: ModelState
    words: str
    percent: int | None
    instance: ModelInstance | None
    usual_load_seconds: float | None  # how long its last load took
    people: int = 0  # who got an answer from it in the last five minutes
    is_one_of_many: bool = False  # there is another runtime beside the one that loads it
    is_server_full: bool = False  # its server holds as many models as it can, one perhaps

    @property
    def is_loaded(self) -> bool:
        """It holds memory and answers."""
        return self.state in {ModelState.ACTIVE, ModelState.LOADED}

    @property
    def is_crashed(self) -> bool:
        """Its process has died and is still on record."""
        return self.instance is not None and self.state in {ModelState.CRASHED, ModelState.PAUSED}

    @property
    def can_switch(self) -> bool:
        """Choosing it would change something and can work."""
        return self.state in {
            ModelState.IDLE,
            ModelState.FAILED,
            ModelState.LOADED,
            ModelState.CRASHED,
            ModelState.PAUSED,
        }

    @property
    def can_preload(self) -> bool:
        """It could be loaded beside what is there."""
        return self.state in {ModelState.IDLE, ModelState.FAILED} and not self.is_server_full

    @property
    def can_unload(self) -> bool:
        """It is held (or its dead process is still on record)."""
        return self.is_loaded or self.is_crashed

    @property
    def can_restart(self) -> bool:
        """It can be ended and loaded again."""
        return self.can_unload


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a memory bar: bytes, and percent of the whole (0 to 100)."""

    name: str
    kind: str  # model, others, free
    size_bytes: int
    percent: float


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One of several devices of a pool, with the parts of its bar."""

    name: str
    total_bytes: int
    used_bytes: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class PoolView:
    """A memory pool with the parts of its bar; where it has several devices, each with a bar of its own.

    `unmeasured` names what is loaded and of which nobody knows how much it holds: a server may not tell.
    """

    pool: MemoryPool
    segments: tuple[Segment, ...]
    devices: tuple[DeviceView, ...] = ()
    unmeasured: tuple[str, ...] = ()

    @property
    def used_bytes(self) -> int:
        """Everything that is not free."""
        return max(0, self.pool.total_bytes - self.pool.free_bytes)


@dataclass(frozen=True, slots=True)
class MemoryView:
    """The pools with what holds them, and the runtimes with how many models each can load (`model_count`)."""

    pools: tuple[PoolView, ...]
    runtimes: tuple[Runtime, ...]


@dataclass(frozen=True, slots=True)
class Overview(MemoryView):
    """Everything the Models tab shows."""

    rows: tuple[ModelRow, ...]
    job: JobSnapshot | None  # the unfinished job, if any
    last_job: JobSnapshot | None  # else the last one that ended

    @property
    def active(self) -> ModelRow | None:
        """The model that answers now."""
        return next((row for row in self.rows if row.state == ModelState.ACTIVE), None)


def current_job() -> JobSnapshot | None:
    """The unfinished job that people should see: the one at work before one that waits."""
    jobs = SwitchJob.objects.unfinished().select_related("target").order_by("id")
    best = next((job for job in jobs if job.state != JobState.WAITING), None) or next(iter(jobs), None)
    return job_snapshot(best) if best else None


def model_rows(
    job: JobSnapshot | None,
    *,
    model_ids: Sequence[str] | None = None,
    models: Sequence[ModelDefinition] | None = None,
    with_people: bool = False,
) -> tuple[ModelRow, ...]:
    """Models with their states, by name; all of them, or those with these ids. Counting people is one more query."""
    if models is None:
        last_load = LoadRecord.objects.filter(model=OuterRef("pk")).order_by("-id").values("load_seconds")[:1]
        others = Runtime.objects.exclude(pk=OuterRef("runtime"))
        queryset = ModelDefinition.objects.with_runtime().annotate(
            usual_load_seconds=Subquery(last_load), has_other_runtimes=Exists(others)
        )
        models = list(queryset.filter(model_id__in=model_ids) if model_ids is not None else queryset)
    instances = {instance.model_id: instance for instance in ModelInstance.objects.all()}
    is_any_loaded = any(instances[model.pk].state == InstanceState.LOADED for model in models if model.pk in instances)
    people = people_using() if with_people and is_any_loaded else {}
    held = Counter(one.runtime_id for one in instances.values() if one.state != InstanceState.CRASHED)
    return tuple(
        _row(model, instances.get(model.pk), job, people.get(model.pk, 0), _is_full(model.runtime, held))
        for model in models
    )


def overview() -> Overview:
    """Everything, now."""
    job = current_job()
    rows = model_rows(job, with_people=True)
    last = None if job else SwitchJob.objects.select_related("target").first()
    memory = _memory([(row.model, row.instance) for row in rows if row.instance])
    return Overview(
        rows=rows,
        pools=memory.pools,
        runtimes=memory.runtimes,
        job=job,
        last_job=job_snapshot(last) if last else None,
    )


def memory_now() -> MemoryView:
    """The memory part alone. Two queries."""
    instances = ModelInstance.objects.select_related("model__runtime").order_by("model__name", "model_id")
    return _memory([(instance.model, instance) for instance in instances])


def _memory(held: Sequence[tuple[ModelDefinition, ModelInstance]]) -> MemoryView:
    loaded = [(model, one) for model, one in held if one.state == InstanceState.LOADED or one.held_bytes]
    available = Count("definitions", filter=Q(definitions__is_available=True))
    runtimes = tuple(Runtime.objects.select_related("pool").annotate(model_count=available))
    pools = {runtime.pool.pk: runtime.pool for runtime in runtimes}
    return MemoryView(tuple(_pool_view(pool, loaded) for pool in pools.values()), runtimes)


def _is_full(runtime: Runtime, held: Mapping[int, int]) -> bool:
    limit = model_limit(runtime)
    return limit is not None and held.get(runtime.pk, 0) >= limit


def _row(
    model: ModelDefinition, instance: ModelInstance | None, job: JobSnapshot | None, people: int, is_server_full: bool
) -> ModelRow:
    state = _state(model, instance, job)
    percent = job["percent"] if job and state == ModelState.LOADING else None
    return ModelRow(
        model=model,
        state=state,
        words=_words(state, model, instance, percent),
        percent=percent,
        instance=instance,
        usual_load_seconds=getattr(model, "usual_load_seconds", None),
        people=people if instance else 0,
        is_one_of_many=getattr(model, "has_other_runtimes", False),
        is_server_full=is_server_full,
    )


def _state(model: ModelDefinition, instance: ModelInstance | None, job: JobSnapshot | None) -> ModelState:
    if instance is not None:
        if instance.state == InstanceState.LOADED:
            if _is_drained_by(job, model):
                return ModelState.DRAINING
            return ModelState.ACTIVE if instance.is_active else ModelState.LOADED
        if instance.state == InstanceState.CRASHED and is_paused(model):
            return ModelState.PAUSED
        return _INSTANCE_STATES[InstanceState(instance.state)]
    if job and job["target_id"] == model.model_id and job["kind"] != "unload" and not _has_failed(job, model):
        return ModelState.LOADING
    if not model.is_available:
        return ModelState.NOT_DOWNLOADED
    if is_paused(model):
        return ModelState.PAUSED
    return ModelState.FAILED if model.last_error_code else ModelState.IDLE


def _is_drained_by(job: JobSnapshot | None, model: ModelDefinition) -> bool:
    return bool(job) and any(
        step["kind"] == "drain" and step["state"] == "running" and step["model_name"] == model.name
        for step in (job["steps"] if job else [])
    )


def _has_failed(job: JobSnapshot, model: ModelDefinition) -> bool:
    """The job could not get the model to work; what is left of it puts back what was there before."""
    return any(step["state"] == "failed" and step["model_name"] == model.name for step in job["steps"])


def _words(state: ModelState, model: ModelDefinition, instance: ModelInstance | None, percent: int | None) -> str:
    if state == ModelState.LOADING:
        return f"Loading {percent} %" if percent is not None else "Loading"
    if state == ModelState.DRAINING:
        count = instance.busy_count if instance else 0
        return f"Finishing {count} answer{'' if count == 1 else 's'}…" if count else "Finishing answers…"
    if state == ModelState.CRASHED:
        code = instance.error_code if instance else ""
        return f"Crashed: {wording(code).short}" if code else "Crashed"
    if state == ModelState.PAUSED and model.paused_until:
        return f"{KEEPS_CRASHING} {timezone.localtime(model.paused_until):%H:%M}"
    if state == ModelState.FAILED:
        return f"Failed: {wording(model.last_error_code).short}"
    if state in {ModelState.ACTIVE, ModelState.LOADED} and instance and instance.is_asleep:
        return f"{state.capitalize()}, asleep"
    return {
        ModelState.ACTIVE: "Active",
        ModelState.LOADED: "Loaded",
        ModelState.UNLOADING: "Unloading",
        ModelState.NOT_DOWNLOADED: "Not downloaded",
    }.get(state, "")


def _pool_view(pool: MemoryPool, loaded: Sequence[tuple[ModelDefinition, ModelInstance]]) -> PoolView:
    here = [(model.name, instance) for model, instance in loaded if model.runtime.pool_id == pool.pk]
    return PoolView(
        pool=pool,
        segments=_segments(
            [(name, instance.held_bytes) for name, instance in here],
            total=pool.total_bytes,
            free=pool.free_bytes,
            held=pool.held_bytes,
        ),
        devices=tuple(_device_view(device, here) for device in pool.devices),
        unmeasured=tuple(name for name, instance in here if not instance.held_bytes),
    )


def _device_view(device: Mapping[str, Any], here: Sequence[tuple[str, ModelInstance]]) -> DeviceView:
    on_it = [(name, int(instance.held_on.get(device["id"], 0))) for name, instance in here]
    total, free = device["total_bytes"], device["free_bytes"]
    return DeviceView(
        device["name"], total, total - free, _segments(on_it, total=total, free=free, held=device["held_bytes"])
    )


def _segments(models: Sequence[tuple[str, int]], *, total: int, free: int, held: int) -> tuple[Segment, ...]:
    parts = [(name, "model", size) for name, size in models]
    # Held by a process that is loading: it has no figure of its own until it is ready. A little of it is noise of the readings.
    loading = held - sum(size for _, size in models)
    parts += [("Loading", "model", loading if loading > NOISE_BYTES else 0)]
    parts += [("Other programs", "others", max(0, total - free - held)), ("Free", "free", free)]
    return tuple(
        Segment(name, kind, size, round(100 * size / max(1, total), 2)) for name, kind, size in parts if size > 0
    )
