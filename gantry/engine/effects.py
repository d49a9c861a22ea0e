"""Everything the engine may cause beside the runtime itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gantry.planning.states import JobState, StepState
from gantry.planning.types import PlanStep
from gantry.runtimes.base import LoadRequest, RunningInstance


@dataclass(frozen=True, slots=True)
class StepReport:
    """How a step stands now. `percent` and `eta_seconds` are of the whole job, `fraction` (0 to 1) and `seconds` (since it began) of the step."""

    index: int
    state: StepState
    fraction: float
    percent: float
    eta_seconds: float | None
    text: str
    seconds: float = 0.0
    bytes_done: int | None = None
    bytes_total: int | None = None


@dataclass(frozen=True, slots=True)
class LoadMeasure:
    """What one load took, for those who foretell the next one. In seconds."""

    seconds: float  # from asking for it until the runtime said that it is ready
    verify_seconds: float  # after that, until its first token
    # What the whole load was foretold to take (gone by and left together) when its fraction first reached a quarter.
    at_quarter_seconds: float | None = None
    reading_seconds: float | None = None  # of `seconds`, until all was read; None where the runtime tells no bytes


class Effects(Protocol):
    """The outside, as the engine sees it."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def is_cancelled(self) -> bool:
        """Whether somebody asked for the job to be cancelled. Cheap enough for every turn of a loop."""
        ...

    def is_superseded(self) -> bool:
        """Whether the cancel came because another job takes over: then nothing is put back, the other one decides."""
        ...

    def enter(self, state: JobState) -> None:
        """The job goes into a state; it may be kept and told with the next report."""
        ...

    def report(self, report: StepReport) -> None:
        """A step moved."""
        ...

    def add_steps(self, steps: Sequence[PlanStep]) -> None:
        """The plan grew (a rollback): these come behind the steps there are."""
        ...

    def load_request(self, model_id: str) -> LoadRequest:
        """What to ask the runtime for; a new instance id each time. Changes nothing."""
        ...

    def instance_loading(self, request: LoadRequest) -> None:
        """About to load: the record is written before the process exists, so that it is never unknown (I7)."""
        ...

    def instance_loaded(self, instance: RunningInstance, measure: LoadMeasure) -> None:
        """It is verified and may serve."""
        ...

    def instance_unloading(self, instance_id: str) -> None:
        """From now on nothing new may be sent to it."""
        ...

    def instance_kept(self, instance_id: str) -> None:
        """Its unloading failed and it still answers: it may serve again, and nobody owes it any more."""
        ...

    def instance_gone(self, instance_id: str) -> None:
        """It is not there any more."""
        ...

    def activate(self, model_id: str) -> None:
        """From now on this model is the one that serves."""
        ...

    def was_active(self, model_id: str) -> bool:
        """Whether this model was the one that served when the job began."""
        ...

    def active_model(self) -> str:
        """The id of the model that serves now, "" when none does."""
        ...

    def free_bytes(self, devices: Sequence[str] = ()) -> int:
        """Free memory of these devices together, measured now; of the whole pool when none are named.

        Raises:
            RuntimeFault: it cannot be read (MEMORY_UNREADABLE).
        """
        ...

    def call(self, instance: RunningInstance, is_cancelled: Callable[[], bool]) -> None:
        """Make the one chat call of a call job and keep its answer with the job.

        Blocks until the answer is whole.

        Raises:
            LoadCancelled: `is_cancelled` turned true; the server has been told to stop.
            RuntimeFault: there is no answer (CALL_FAILED).
        """
        ...
