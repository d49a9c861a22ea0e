"""Carries out a plan, step by step; puts back what it took away when a step fails. See DESIGN.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gantry.engine.board import Board
from gantry.engine.effects import Effects
from gantry.planning.states import ErrorCode, JobState, StepKind, StepState
from gantry.planning.types import PlanStep, SwitchPlan
from gantry.planning.wording import wording
from gantry.runtimes.base import LoadProgress, LoadStage, RunningInstance, Runtime
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeFault

POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the engine waits, in seconds."""

    drain_seconds: float = 30.0  # running answers get this long, then they are cut off
    free_seconds: float = 20.0  # for the memory of an unloaded model to come back
    stall_seconds: float = 120.0  # a load without any sign of progress
    load_seconds: float = 3600.0  # a load at all


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended. `error_text` is beside the code's own sentence; `aftermath` says what was done about it."""

    state: JobState
    text: str
    error_code: ErrorCode | None = None
    error_text: str = ""
    log_tail: tuple[str, ...] = ()
    rolled_back: bool | None = None
    aftermath: str = ""


def put_back(
    owed: Sequence[PlanStep], target: SwitchPlan, runtime: Runtime, effects: Effects
) -> tuple[bool | None, str]:
    """Load again what an earlier job unloaded, when the one that took over ends before it has a plan to carry out.

    Args:
        target: a plan without steps that names what was asked for.

    Returns:
        Whether all of it is back (None: nothing was owed), and that in words.
    """
    return _Run(target, runtime, effects, Limits(), owed).put_back()


class _Cancelled(Exception):
    """Somebody asked for the job to be cancelled."""


def run_plan(
    plan: SwitchPlan,
    runtime: Runtime,
    effects: Effects,
    limits: Limits | None = None,
    *,
    owed: Sequence[PlanStep] = (),
) -> Outcome:
    """Carry out a plan and tell how it ended. Raises only what is a bug.

    Args:
        owed: unloads of a job that this one took over from, first one first; if this one fails, they are put back too.
    """
    return _Run(plan, runtime, effects, limits or Limits(), owed).run()


class _Run:
    """One run of one plan."""

    def __init__(
        self, plan: SwitchPlan, runtime: Runtime, effects: Effects, limits: Limits, owed: Sequence[PlanStep]
    ) -> None:
        self._plan = plan
        self._runtime = runtime
        self._effects = effects
        self._limits = limits
        self._board = Board(plan.steps, effects)
        self._unloaded: list[PlanStep] = []
        self._owed = list(owed)
        self._loaded: RunningInstance | None = None
        self._load_started_at = 0.0
        self._is_putting_back = False
        self._doing: Mapping[StepKind, Callable[[int, PlanStep], None]] = {
            StepKind.DRAIN: self._drain,
            StepKind.UNLOAD: self._unload,
            StepKind.FREE: self._wait_for_memory,
            StepKind.LOAD: self._load,
            StepKind.VERIFY: self._verify,
        }

    def run(self) -> Outcome:
        loads = [index for index, step in enumerate(self._plan.steps) if step.kind == StepKind.LOAD]
        index = loads[0] if loads else 0
        try:
            if loads:
                self._check_target()
            for index, step in enumerate(self._plan.steps):
                self._check_cancelled()
                self._doing[step.kind](index, step)
            self._check_cancelled()
        except (_Cancelled, LoadCancelled):
            return self._after_cancel(index)
        except RuntimeFault as fault:
            return self._after_failure(index, fault)
        if self._plan.target_id:
            self._effects.activate(self._plan.target_id)
        return Outcome(JobState.SUCCEEDED, self._final_text())

    def _check_target(self) -> None:
        """What cannot be loaded is refused while everything still stands as it was."""
        self._runtime.check_load(self._effects.load_request(self._plan.target_id))

    # Steps

    def _drain(self, index: int, step: PlanStep) -> None:
        """Let running answers finish. New ones are kept out by whoever sends them, for the job is at work."""
        self._effects.enter(JobState.DRAINING, f"Letting {step.model_name} finish")
        self._board.start(index, f"Letting {step.model_name} finish its answers")
        deadline = self._effects.monotonic() + self._limits.drain_seconds
        first = busy = self._busy(step)
        while busy and self._effects.monotonic() < deadline:
            self._check_cancelled()
            fraction = max(0.0, 1 - busy / max(first, busy))
            self._board.move(index, fraction, f"Finishing {busy} answer{'' if busy == 1 else 's'}")
            self._effects.sleep(POLL_SECONDS * 2)
            busy = self._busy(step)
        text = (
            f"{busy} answers were cut off after {self._limits.drain_seconds:.0f} s" if busy else "No answer is running"
        )
        self._board.end(index, StepState.DONE, text)

    def _unload(self, index: int, step: PlanStep) -> None:
        self._effects.enter(JobState.UNLOADING, f"Unloading {step.model_name}")
        self._board.start(index, f"Unloading {step.model_name}")
        self._effects.instance_unloading(step.instance_id)
        self._runtime.unload(step.instance_id)
        self._effects.instance_gone(step.instance_id)
        self._unloaded.append(step)
        self._board.end(index, StepState.DONE, f"{step.model_name} is unloaded")

    def _wait_for_memory(self, index: int, _step: PlanStep) -> None:
        """Wait until what the plan counts on is really free: a process that is gone may still hold memory."""
        self._board.start(index, "Waiting for the memory")
        wanted = min(self._plan.needed_bytes, self._plan.free_bytes + self._plan.freed_bytes)
        deadline = self._effects.monotonic() + self._limits.free_seconds
        before = free = self._effects.free_bytes()
        while free < wanted:
            if self._effects.monotonic() > deadline:
                short = f"{(wanted - free) / 1e9:.1f} GB are still missing after {self._limits.free_seconds:.0f} s."
                raise RuntimeFault(short, code=ErrorCode.MEMORY_NOT_FREED)
            self._check_cancelled()
            fraction = (free - before) / (wanted - before)
            self._board.move(index, min(0.99, max(0.0, fraction)), "Waiting for the memory")
            self._effects.sleep(POLL_SECONDS)
            free = self._effects.free_bytes()
        self._board.end(index, StepState.DONE, f"{free / 1e9:.1f} GB are free")

    def _load(self, index: int, step: PlanStep) -> None:
        self._effects.enter(JobState.LOADING, f"Loading {step.model_name}")
        self._board.start(index, f"Loading {step.model_name}")
        request = self._effects.load_request(step.model_id)
        self._effects.instance_loading(request)
        self._load_started_at = self._effects.monotonic()
        watch = _StallWatch(self._effects, self._limits)
        cancelled = (
            (lambda: watch.is_over)
            if self._is_putting_back
            else (lambda: watch.is_over or self._effects.is_cancelled())
        )
        try:
            for progress in self._runtime.load(request, cancelled):
                watch.see(progress)
                self._board.move(
                    index,
                    progress.fraction or 0.0,
                    _load_text(step, progress),
                    progress.bytes_done,
                    progress.bytes_total,
                )
        except LoadCancelled as exc:
            self._effects.instance_gone(request.instance_id)
            if watch.over_code:
                raise LoadFailed(code=watch.over_code, log_tail=exc.log_tail) from exc
            raise
        except RuntimeFault:
            self._runtime.forget(request.instance_id)
            self._effects.instance_gone(request.instance_id)
            raise
        self._loaded = self._find(request.instance_id)
        self._board.end(index, StepState.DONE, f"{step.model_name} is loaded")

    def _verify(self, index: int, step: PlanStep) -> None:
        """One real token before anybody is sent to it."""
        instance = self._loaded
        if instance is None:
            raise LoadFailed(f"{step.model_name} vanished before it could be tried.")
        self._effects.enter(JobState.WARMING, f"Trying {step.model_name}")
        self._board.start(index, f"Asking {step.model_name} for a first token")
        seconds = self._effects.monotonic() - self._load_started_at
        try:
            self._runtime.verify(instance.instance_id)
        except RuntimeFault:
            self._drop(instance.instance_id)
            raise
        # Looked up again: what it holds is known only now that it has worked.
        self._effects.instance_loaded(self._find(instance.instance_id), seconds)
        self._board.end(index, StepState.DONE, f"{step.model_name} answers")

    # Ends

    def _after_cancel(self, index: int) -> Outcome:
        self._board.end(index, StepState.SKIPPED, "Cancelled")
        if self._loaded is not None:
            try:
                self._drop(self._loaded.instance_id)
            except RuntimeFault as fault:
                return self._after_failure(index, fault)
        if self._effects.is_superseded():
            return Outcome(JobState.SUPERSEDED, "Another switch took over")
        rolled_back, aftermath = self.put_back()
        return Outcome(JobState.CANCELLED, "Cancelled", rolled_back=rolled_back, aftermath=aftermath)

    def _after_failure(self, index: int, fault: RuntimeFault) -> Outcome:
        self._board.end(index, StepState.FAILED, wording(fault.code).sentence)
        # Another switch that took over pays the debt: loading the old model now would only be in its way.
        rolled_back, aftermath = (None, "") if self._effects.is_superseded() else self.put_back()
        return Outcome(
            JobState.FAILED,
            wording(fault.code).sentence,
            error_code=fault.code,
            error_text=" ".join(part for part in (wording(fault.code).sentence, _sentence(fault)) if part),
            log_tail=fault.log_tail,
            rolled_back=rolled_back,
            aftermath=aftermath,
        )

    def put_back(self) -> tuple[bool | None, str]:
        """Load again what was unloaded for the target, last one first. What cannot be put back is told."""
        self._loaded = None
        steps = [step for step in reversed([*self._owed, *self._unloaded]) if self._plan.target_id != step.model_id]
        if not steps or not self._plan.target_id:
            return (
                None,
                f"{_and([step.model_name for step in self._unloaded])} stays unloaded." if self._unloaded else "",
            )
        self._is_putting_back = True
        back: list[str] = []
        lost: list[str] = []
        for step in steps:
            (back if self._put_one_back(step) else lost).append(step.model_name)
        words = [f"{_and(back)} {'was' if len(back) == 1 else 'were'} put back."] if back else []
        words += [f"{_and(lost)} could not be put back."] if lost else []
        return not lost, " ".join(words)

    def _put_one_back(self, step: PlanStep) -> bool:
        again = [
            PlanStep(kind, step.model_id, step.model_name, "", expected)
            for kind, expected in ((StepKind.LOAD, self._plan.load_time.usual_seconds), (StepKind.VERIFY, 0.5))
        ]
        was_active = self._effects.was_active(step.model_id)  # asked before: once it is back, nothing is owed any more
        first = index = self._board.extend(again)
        try:
            for index, part in enumerate(again, start=first):
                self._doing[part.kind](index, part)
        except RuntimeFault as fault:
            self._board.end(index, StepState.FAILED, wording(fault.code).sentence)
            return False
        if was_active:
            self._effects.activate(step.model_id)
        return True

    # Bits

    def _busy(self, step: PlanStep) -> int:
        """Answers that the model is giving; one that does not even say so gives none."""
        try:
            return self._runtime.busy_count(step.instance_id)
        except RuntimeFault:
            return 0

    def _check_cancelled(self) -> None:
        if not self._is_putting_back and self._effects.is_cancelled():
            raise _Cancelled

    def _find(self, instance_id: str) -> RunningInstance:
        for instance in self._runtime.running():
            if instance.instance_id == instance_id and instance.is_alive:
                return instance
        self._drop(instance_id)
        raise LoadFailed("It ended right after it was loaded.", log_tail=self._runtime.log_tail(instance_id))

    def _drop(self, instance_id: str) -> None:
        self._runtime.unload(instance_id)
        self._runtime.forget(instance_id)
        self._effects.instance_gone(instance_id)

    def _final_text(self) -> str:
        if self._plan.target_id:
            return f"{self._plan.target_name} is active"
        names = [step.model_name for step in self._unloaded]
        return (
            f"{_and(names)} {'is' if len(names) == 1 else 'are'} unloaded" if names else "Nothing was loaded any more"
        )


class _StallWatch:
    """Ends a load that shows no sign of progress, or that takes longer than any load may."""

    def __init__(self, effects: Effects, limits: Limits) -> None:
        self._effects = effects
        self._limits = limits
        self._began_at = self._moved_at = effects.monotonic()
        self._last: tuple[object, ...] = ()
        self.over_code: ErrorCode | None = None

    def see(self, progress: LoadProgress) -> None:
        """Note what the load says; only a change counts as a sign."""
        now = self._effects.monotonic()
        sign = (progress.stage, progress.fraction, progress.bytes_done, progress.detail)
        if sign != self._last:
            self._last, self._moved_at = sign, now
        if now - self._moved_at > self._limits.stall_seconds:
            self.over_code = ErrorCode.LOAD_STALLED
        elif now - self._began_at > self._limits.load_seconds:
            self.over_code = ErrorCode.LOAD_TIMEOUT

    @property
    def is_over(self) -> bool:
        """The load is to be ended."""
        return self.over_code is not None


def _load_text(step: PlanStep, progress: LoadProgress) -> str:
    if progress.detail:
        return progress.detail
    if progress.stage == LoadStage.INITIALISING:
        return f"Preparing {step.model_name}"
    return f"Loading {step.model_name}"


def _sentence(fault: RuntimeFault) -> str:
    return " ".join(part if part.endswith(".") else f"{part}." for part in (fault.detail, fault.exit_text) if part)


def _and(names: list[str]) -> str:
    return " and ".join(names)
