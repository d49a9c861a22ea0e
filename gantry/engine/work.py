"""One run of one plan: what it acts on, how far it is, and when it is to end early."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from gantry.engine.board import Board
from gantry.engine.downtime import Downtime
from gantry.engine.effects import Effects
from gantry.engine.terms import Limits
from gantry.engine.waiting import ReadAhead, StandBy
from gantry.planning.states import StepKind
from gantry.planning.types import LoadedModel, PlanStep, SwitchPlan
from gantry.runtimes.base import RunningInstance, Runtime
from gantry.runtimes.exceptions import LoadFailed, RuntimeFault
from gantry.runtimes.fleet import find_instance

LOOK_SECONDS = 0.5  # how often the way back looks for a job that takes over


class Interrupted(Exception):
    """The run is to end now: somebody cancelled it or, on its way back, another job takes over."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """A model that this run has loaded, until it is dropped again."""

    step: PlanStep
    instance_id: str
    seconds: float  # the load took
    at_quarter_seconds: float | None
    reading_seconds: float | None
    is_verified: bool = False  # it could serve, so it has to be taken out of service before it goes


@dataclass
class Work:
    """What the parts of the engine share. `owed`: unloads of jobs that this one took over from, first one first."""

    plan: SwitchPlan
    runtime: Runtime
    effects: Effects
    limits: Limits
    owed: Sequence[PlanStep] = ()
    unloaded: list[PlanStep] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # names: their unload failed, and they serve on
    stuck: list[str] = field(default_factory=list)  # names: their unload failed, and they do not answer either
    fresh: Fresh | None = None
    free_before_load: int | None = None  # bytes, on the plan's devices
    is_activated: bool = False  # the target serves
    is_settled: bool = False  # what was asked for is done and cannot be undone: a cancel comes too late
    is_way_back: bool = False

    def __post_init__(self) -> None:
        """Begin the clocks."""
        self.board = Board(self.plan.steps, self.effects)
        self.downtime = Downtime(self.effects, [step.model_id for step in self.owed])
        self.read_ahead = ReadAhead(self.runtime)
        self.stand_by = StandBy(self.runtime, self.effects)
        self._looked_at = float("-inf")
        self._is_superseded = False

    # Ending early

    def is_over(self) -> bool:
        """Whether to end now. The way back is what a cancel asks for: only another job that takes over ends it."""
        if self.is_way_back:
            return self.effects.is_cancelled() and self._is_taken_over()
        return not self.is_settled and self.effects.is_cancelled()

    def check_over(self) -> None:
        """Raise Interrupted when it is time to end."""
        if self.is_over():
            raise Interrupted

    def _is_taken_over(self) -> bool:
        now = self.effects.monotonic()
        if not self._is_superseded and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._is_superseded = self.effects.is_superseded()
        return self._is_superseded

    # What there is

    def is_to_come(self, kind: StepKind, index: int) -> bool:
        """Whether the plan has a step of this kind behind `index`."""
        return any(step.kind == kind for step in self.plan.steps[index + 1 :])

    def evicted(self, model_id: str) -> LoadedModel | None:
        """What the plan knows of a model that it unloads."""
        return next((model for model in self.plan.evicted if model.model_id == model_id), None)

    def find(self, instance_id: str) -> RunningInstance:
        """A living instance.

        Raises:
            LoadFailed: it is dead or gone.
        """
        instance = find_instance(self.runtime, instance_id)
        if instance is None or not instance.is_alive:
            is_ours = self.runtime.capabilities.owns_processes
            how = (
                "ended right after it was loaded"
                if is_ours
                else "is gone already: somebody else unloaded or replaced it"
            )
            raise LoadFailed(f"It {how}.", log_tail=self.runtime.log_tail(instance_id))
        return instance

    def find_ready(self, model_id: str) -> RunningInstance | None:
        """A living, ready instance of a model, if there is one."""
        return next(
            (one for one in self.runtime.running() if one.model_id == model_id and one.is_alive and one.is_ready), None
        )

    def free_bytes(self, devices: Sequence[str] = ()) -> int | None:
        """Free memory, None when it cannot be read: for whoever would rather go on than fail."""
        with suppress(RuntimeFault):
            return self.effects.free_bytes(devices)
        return None

    def activate(self, model_id: str) -> None:
        """From now on this model serves, and the downtime is over."""
        self.effects.activate(model_id)
        self.downtime.end()
