"""The states of jobs, steps, instances and models, and the one table of allowed job transitions."""

from __future__ import annotations

from enum import StrEnum


class JobKind(StrEnum):
    """What a job was asked to do."""

    SWITCH = "switch"
    UNLOAD = "unload"
    UNLOAD_ALL = "unload_all"
    RESTART = "restart"
    PRELOAD = "preload"  # load beside what is there, make nothing active
    CALL = "call"  # switch, one chat call, and everything back as it was


# What ends with its target as the active model.
SERVING_KINDS = frozenset({JobKind.SWITCH, JobKind.RESTART})


class JobState(StrEnum):
    """Where a job stands.

    waiting -> planning -> draining -> unloading -> loading -> warming -> succeeded
    and from every unfinished state: failed, cancelled, superseded, interrupted.
    """

    WAITING = "waiting"
    PLANNING = "planning"
    DRAINING = "draining"
    UNLOADING = "unloading"
    LOADING = "loading"
    WARMING = "warming"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    INTERRUPTED = "interrupted"


TERMINAL_STATES = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.SUPERSEDED, JobState.INTERRUPTED}
)
# Past `waiting` and not ended: at most one such job per memory pool (I1, a database constraint).
ACTIVE_STATES = frozenset(
    {JobState.PLANNING, JobState.DRAINING, JobState.UNLOADING, JobState.LOADING, JobState.WARMING}
)
UNFINISHED_STATES = ACTIVE_STATES | {JobState.WAITING}

_ORDER = (
    JobState.WAITING,
    JobState.PLANNING,
    JobState.DRAINING,
    JobState.UNLOADING,
    JobState.LOADING,
    JobState.WARMING,
)


def can_move(current: JobState, new: JobState) -> bool:
    """Whether a job may go from `current` to `new`.

    Ends are final. A running job may move between any of the working states (a rollback goes back to
    unloading and loading), may end, and never waits again. Only a job in work can succeed.
    """
    if current in TERMINAL_STATES or current == new:
        return False
    if new == JobState.WAITING:
        return False
    if new == JobState.SUCCEEDED:
        return current in ACTIVE_STATES
    if current == JobState.WAITING:
        return new == JobState.PLANNING or new in TERMINAL_STATES
    return new in TERMINAL_STATES or new in _ORDER


class StepKind(StrEnum):
    """The kinds of steps a plan is made of, in the order in which they come."""

    DRAIN = "drain"
    UNLOAD = "unload"
    FREE = "free"
    LOAD = "load"
    VERIFY = "verify"
    CALL = "call"


class DrainAction(StrEnum):
    """What is done with answers that are still running when `drain_seconds` are over."""

    WAIT = "wait"  # until they have ended, however long that takes
    CUT = "cut"  # they end here; what was answered so far is kept
    ABORT = "abort"  # the job ends instead, and everything stays as it was


class LoadOrder(StrEnum):
    """Whether the memory is freed before the target is loaded, or afterwards because both fit."""

    FREE_FIRST = "free_first"
    LOAD_FIRST = "load_first"


class StepState(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class InstanceState(StrEnum):
    """Where a model held by a runtime stands."""

    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    CRASHED = "crashed"


class ModelState(StrEnum):
    """What people see of a model. An idle one carries no word (checklist R4.1)."""

    ACTIVE = "active"
    LOADED = "loaded"
    LOADING = "loading"
    DRAINING = "draining"
    UNLOADING = "unloading"
    CRASHED = "crashed"
    PAUSED = "paused"  # it crashed so often that it is not restarted by itself for a while
    FAILED = "failed"
    IDLE = "idle"
    NOT_DOWNLOADED = "not_downloaded"


class ErrorCode(StrEnum):
    """Why a job failed. `wording.py` has a sentence and a hint for each."""

    INSUFFICIENT_MEMORY = "insufficient_memory"
    OUT_OF_MEMORY = "out_of_memory"
    NOT_DOWNLOADED = "not_downloaded"
    FILE_DAMAGED = "file_damaged"
    RUNTIME_MISSING = "runtime_missing"
    RUNTIME_UNREACHABLE = "runtime_unreachable"
    UNAUTHORISED = "unauthorised"
    BAD_PARAMETER = "bad_parameter"
    PORT_TAKEN = "port_taken"
    WRONG_CPU = "wrong_cpu"
    KILLED = "killed"
    CRASHED = "crashed"
    LOAD_FAILED = "load_failed"
    LOAD_STALLED = "load_stalled"
    LOAD_TIMEOUT = "load_timeout"
    UNLOAD_FAILED = "unload_failed"
    MEMORY_NOT_FREED = "memory_not_freed"
    MEMORY_UNREADABLE = "memory_unreadable"
    VERIFY_FAILED = "verify_failed"
    STILL_ANSWERING = "still_answering"
    CALL_FAILED = "call_failed"
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"
