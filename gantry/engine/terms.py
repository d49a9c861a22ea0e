"""What a run is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

from gantry.planning.states import DrainAction, ErrorCode, JobState


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the engine waits, in seconds."""

    drain_seconds: float = 30.0  # for running answers, of all models that go together
    drain_action: DrainAction = DrainAction.CUT  # what becomes of those that run on after that
    free_seconds: float = 20.0  # for the memory of an unloaded model to come back
    stall_seconds: float = 120.0  # a load without any sign of progress
    load_seconds: float = 3600.0  # a load at all


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `error_text` begins with the code's own sentence; `aftermath` says what was done about it."""

    state: JobState
    text: str
    error_code: ErrorCode | None = None
    error_text: str = ""
    log_tail: tuple[str, ...] = ()
    rolled_back: bool | None = (
        None  # whether all that was taken away is back; None: nothing was, or another job owes it
    )
    aftermath: str = ""
    # From the active model's unloading until a verified one was active again, or until the job's end when none came.
    # None: none was active before, or none was to be active afterwards.
    downtime_seconds: float | None = None
