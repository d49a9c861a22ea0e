"""The values that plans are made from and made of. All frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gantry.planning.states import JobKind, LoadOrder, StepKind


@dataclass(frozen=True, slots=True)
class Reading:
    """How past loads of one model were divided into reading its file and what comes after: a context, a warm-up."""

    share: float  # of the whole load, above 0 and below 1
    seconds_after: float


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Expected seconds: the usual figure and the range seen before. All 0: nobody knows, for there is neither a load nor a size."""

    usual_seconds: float
    low_seconds: float
    high_seconds: float
    samples: int  # how many past loads stand behind it; 0 means worked out from the size
    spread_seconds: float | None = None  # a load is usually off the usual figure by so much; None: nobody knows
    reading: Reading | None = None  # how the time was divided; None: not seen yet

    @property
    def is_known(self) -> bool:
        """There is something to go by."""
        return self.usual_seconds > 0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that could be loaded."""

    model_id: str
    name: str
    need_bytes: int  # memory it takes once loaded
    file_bytes: int  # what a load reads
    load_time: TimeRange
    is_measured: bool = False  # need_bytes was measured on an earlier load, not estimated
    is_need_known: bool = (
        True  # False: neither measured nor worked out from anything; need_bytes is what any model takes at least
    )
    verify_seconds: float = 0.5  # expected, until its first token
    devices: tuple[str, ...] = ()  # ids of the devices it has to use; empty: the planner chooses


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that a runtime holds now."""

    instance_id: str
    model_id: str
    name: str
    held_bytes: int
    last_used: float  # any monotone clock; only the order counts
    is_busy: bool = False
    is_pinned: bool = False
    is_active: bool = False
    unload_seconds: float = 1.0
    reload_seconds: float = 0.0  # expected, to load it again
    held_on: Mapping[str, int] = field(default_factory=dict)  # device id -> bytes; empty: of the pool as a whole


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of one device of a pool, in bytes."""

    device_id: str  # stable across restarts: the GPU's UUID
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """The memory of one pool. total = held by models + used by others + free.

    `devices` are its parts where it has any that a model can be put on; their sums are the pool's figures.
    """

    total_bytes: int
    free_bytes: int
    devices: tuple[DeviceMemory, ...] = ()
    free_seconds: float = 0.3  # expected, until the memory of a process that is gone shows as free


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One thing to do, with the seconds it is expected to take."""

    kind: StepKind
    model_id: str
    model_name: str
    instance_id: str  # "" for a model that is not loaded yet
    expected_seconds: float


@dataclass(frozen=True, slots=True)
class SwitchPlan:
    """What will be done, in order, and what it takes. `needed`, `free` and `freed` in bytes.

    `free_bytes` and `total_bytes` are those of `devices`, where the target is put on some of several.
    """

    kind: JobKind
    target_id: str  # "" when nothing is to be loaded
    target_name: str
    steps: tuple[PlanStep, ...]
    evicted: tuple[LoadedModel, ...]
    needed_bytes: int
    free_bytes: int
    freed_bytes: int
    total_bytes: int
    load_time: TimeRange
    order: LoadOrder = LoadOrder.FREE_FIRST
    devices: tuple[str, ...] = ()  # where the target is put; empty: anywhere
    is_need_known: bool = True  # False: `needed_bytes` is what any model takes at least

    @property
    def is_time_known(self) -> bool:
        """There is something to go by for the time that its load takes, if it has one."""
        return all(step.kind != StepKind.LOAD for step in self.steps) or self.load_time.is_known

    @property
    def expected_seconds(self) -> float:
        """All steps together; 0.0 when nobody knows."""
        return sum(step.expected_seconds for step in self.steps) if self.is_time_known else 0.0

    @property
    def interrupts(self) -> bool:
        """Whether there is a time in which the active model takes no request and the target does not yet."""
        return self.order == LoadOrder.FREE_FIRST and any(model.is_active for model in self.evicted)

    @property
    def downtime_seconds(self) -> float:
        """Expected seconds in which no model answers: from the active model's unloading until the target is verified."""
        if not self.interrupts:
            return 0.0
        first = next(
            number
            for number, step in enumerate(self.steps)
            if step.kind == StepKind.UNLOAD and any(m.is_active and m.model_id == step.model_id for m in self.evicted)
        )
        return sum(step.expected_seconds for step in self.steps[first:] if step.kind != StepKind.CALL)

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON data, as stored with a job and shown in the dialog."""
        return {
            "kind": self.kind.value,
            "target_id": self.target_id,
            "target_name": self.target_name,
            "steps": [
                {
                    "kind": step.kind.value,
                    "model_id": step.model_id,
                    "model_name": step.model_name,
                    "instance_id": step.instance_id,
                    "expected_seconds": round(step.expected_seconds, 2),
                }
                for step in self.steps
            ],
            "evicted": [
                {
                    "model_id": model.model_id,
                    "name": model.name,
                    "held_bytes": model.held_bytes,
                    "is_busy": model.is_busy,
                    "is_active": model.is_active,
                }
                for model in self.evicted
            ],
            "needed_bytes": self.needed_bytes,
            "free_bytes": self.free_bytes,
            "freed_bytes": self.freed_bytes,
            "total_bytes": self.total_bytes,
            "expected_seconds": round(self.expected_seconds, 2),
            "load_low_seconds": round(self.load_time.low_seconds, 2),
            "load_high_seconds": round(self.load_time.high_seconds, 2),
            "load_samples": self.load_time.samples,
            "order": self.order.value,
            "devices": list(self.devices),
            "is_need_known": self.is_need_known,
            "is_time_known": self.is_time_known,
            "interrupts": self.interrupts,
            "downtime_seconds": round(self.downtime_seconds, 2),
        }
