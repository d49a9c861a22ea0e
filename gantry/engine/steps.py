"""The steps of a plan, one method each: what is done, in which order, and what is told meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from gantry.engine.effects import LoadMeasure
from gantry.engine.pace import LoadPace
from gantry.engine.waiting import POLL_SECONDS, Aside, StallWatch, wait_for_free
from gantry.engine.words import answers, duration, gigabytes
from gantry.engine.work import Fresh, Work
from gantry.planning.states import DrainAction, ErrorCode, JobState, StepKind, StepState
from gantry.planning.types import PlanStep, TimeRange
from gantry.runtimes.base import LoadProgress, LoadRequest, LoadStage, RunningInstance, Verification
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeFault
from gantry.runtimes.fleet import find_instance

# Two measurements of the same memory differ by what other programs do meanwhile: so much less than expected is as expected.
SLACK_SHARE = 0.1
SLACK_BYTES = 128 * 2**20

UNTOLD_SECONDS = 0.15  # a first token that comes sooner is not announced


class Steps:
    """Does one step after the other. Everything it learns stands in the `Work`."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._drain_began_at: float | None = None
        self._free_before_unload: int | None = None
        self._checked: LoadRequest | None = None  # the target's load, until it is made
        self.missing_text = ""  # what of the freed memory did not come back, where that fails nothing
        self._doing: Mapping[StepKind, Callable[[int, PlanStep], None]] = {
            StepKind.DRAIN: self._drain,
            StepKind.UNLOAD: self._unload,
            StepKind.FREE: self._free,
            StepKind.LOAD: self._load,
            StepKind.VERIFY: self._verify,
            StepKind.CALL: self._call,
        }

    def check_target(self) -> None:
        """What cannot be loaded is refused while everything still stands as it was."""
        request = self._work.effects.load_request(self._work.plan.target_id)
        self._work.runtime.check_load(request)
        self._checked = request

    def do(self, index: int, step: PlanStep) -> None:
        """Do one step.

        Raises:
            Interrupted, LoadCancelled: the run was to end.
            RuntimeFault: the step failed.
        """
        self._doing[step.kind](index, step)

    # Letting go

    def _drain(self, index: int, step: PlanStep) -> None:
        """Let running answers finish. New ones are kept out by whoever sends them, for the job is at work.

        One time limit for all drains of a plan: a model that is drained later has had the time of the earlier ones too.
        """
        work = self._work
        work.effects.enter(JobState.DRAINING)
        work.board.begin(index)
        if self._drain_began_at is None:
            self._drain_began_at = work.effects.monotonic()
        most = busy = self._busy(step)
        if busy and self._checked and work.is_to_come(StepKind.LOAD, index):
            work.read_ahead.begin(self._checked)
        while busy and not self._is_cut(step, busy):
            work.check_over()
            most = max(most, busy)
            work.board.move(index, 1 - busy / most, self._drain_text(busy))
            work.effects.sleep(POLL_SECONDS * 2)
            busy = self._busy(step)
        cut = f"{answers(busy)} {'was' if busy == 1 else 'were'} cut off after {work.limits.drain_seconds:.0f} s"
        work.board.end(index, StepState.DONE, cut if busy else "No answer is running")

    def _is_cut(self, step: PlanStep, busy: int) -> bool:
        """Whether the time is up and the running answers end here.

        Raises:
            RuntimeFault: the time is up, and the job ends for their sake.
        """
        limits = self._work.limits
        if self._drained_for() < limits.drain_seconds or limits.drain_action == DrainAction.WAIT:
            return False
        if limits.drain_action == DrainAction.CUT:
            return True
        still = f"{answers(busy)} of {step.model_name} {'was' if busy == 1 else 'were'} still running"
        raise RuntimeFault(f"{still} after {limits.drain_seconds:.0f} s.", code=ErrorCode.STILL_ANSWERING)

    def _drain_text(self, busy: int) -> str:
        if self._drained_for() < self._work.limits.drain_seconds:
            return f"Finishing {answers(busy)}"
        return f"Still waiting for {answers(busy)} after {duration(self._drained_for())}"

    def _drained_for(self) -> float:
        return self._work.effects.monotonic() - (self._drain_began_at or 0.0)

    def _busy(self, step: PlanStep) -> int:
        """Answers that the model is giving; one that does not even say so gives none."""
        try:
            return self._work.runtime.busy_count(step.instance_id)
        except RuntimeFault:
            return 0

    def _unload(self, index: int, step: PlanStep) -> None:
        work = self._work
        work.effects.enter(JobState.UNLOADING)
        work.board.start(index, f"Unloading {step.model_name}")
        if work.is_activated:
            work.is_settled = True  # the target serves already; from here on there is nothing left to go back to
        if self._free_before_unload is None and not work.is_to_come(StepKind.LOAD, index):
            self._free_before_unload = work.free_bytes()
        work.downtime.begin(step.model_id)
        work.effects.instance_unloading(step.instance_id)
        if self._checked and work.is_to_come(StepKind.LOAD, index):
            work.stand_by.begin(self._checked)
        try:
            work.runtime.unload(step.instance_id)
        except RuntimeFault:
            self._look_what_became_of(step)
            raise
        self._note_gone(step)
        work.board.end(index, StepState.DONE, f"{step.model_name} is unloaded")

    def _look_what_became_of(self, step: PlanStep) -> None:
        """An unload that failed may have left the model as it was, gone, or of no use."""
        work = self._work
        try:
            instance = find_instance(work.runtime, step.instance_id)
        except RuntimeFault:
            self._keep(step)  # nobody can tell; what was reachable before counts until recovery learns better
            return
        if instance is None or not instance.is_alive:
            self._note_gone(step)
        elif instance.is_ready:
            self._keep(step)
        else:
            work.stuck.append(step.model_name)

    def _keep(self, step: PlanStep) -> None:
        work = self._work
        work.effects.instance_kept(step.instance_id)
        work.kept.append(step.model_name)
        if work.effects.was_active(step.model_id) and work.effects.active_model() in {"", step.model_id}:
            work.activate(step.model_id)

    def _note_gone(self, step: PlanStep) -> None:
        self._work.effects.instance_gone(step.instance_id)
        self._work.unloaded.append(step)

    # Memory

    def _free(self, index: int, _step: PlanStep) -> None:
        """A process that is gone may still hold memory."""
        self._work.board.begin(index)
        if self._work.is_to_come(StepKind.LOAD, index):
            self._wait_for_room(index)
        else:
            self._wait_for_return(index)

    def _wait_for_room(self, index: int) -> None:
        """Until what the plan counts on for its target is really free."""
        work = self._work
        wanted = min(work.plan.needed_bytes, work.plan.free_bytes + work.plan.freed_bytes)
        free = wait_for_free(
            work.effects,
            wanted,
            work.plan.devices,
            work.limits.free_seconds,
            is_over=work.is_over,
            tell=lambda fraction: self._tell_no_room(index, fraction),
        )
        if free < wanted:
            work.check_over()
            short = f"{gigabytes(wanted - free)} are still missing after {work.limits.free_seconds:.0f} s."
            raise RuntimeFault(short, code=ErrorCode.MEMORY_NOT_FREED)
        work.board.end(index, StepState.DONE, f"{gigabytes(free)} are free")

    def _tell_no_room(self, index: int, fraction: float) -> None:
        self._work.board.move(index, fraction, "Waiting for the memory")
        self._work.stand_by.no_room()

    def _wait_for_return(self, index: int) -> None:
        """Until about what was unloaded has come back. Nothing needs it now, so nothing fails: what is missing is told."""
        work, before = self._work, self._free_before_unload
        freed = sum(model.held_bytes for step in work.unloaded if (model := work.evicted(step.model_id)))
        wanted = min((before or 0) + freed, work.plan.total_bytes)
        try:
            free = wait_for_free(
                work.effects,
                wanted - slack(freed),
                (),
                work.limits.free_seconds if before is not None else 0.0,
                is_over=work.effects.is_cancelled,  # ends the waiting only: the unloading is done
                tell=lambda fraction: work.board.move(index, fraction, "Waiting for the memory"),
            )
        except RuntimeFault as fault:
            work.board.end(index, StepState.DONE, fault.detail or "The memory could not be looked at")
            return
        if before is not None and free < wanted - slack(freed) and not work.effects.is_cancelled():
            seconds = f"{work.limits.free_seconds:.0f} s"
            self.missing_text = f"{gigabytes(wanted - free)} of the memory have not come back after {seconds}"
        work.board.end(index, StepState.DONE, self.missing_text or f"{gigabytes(free)} are free")

    # Loading

    def _load(self, index: int, step: PlanStep) -> None:
        work = self._work
        work.read_ahead.end()
        work.effects.enter(JobState.LOADING)
        work.board.start(index, f"Loading {step.model_name}")
        if not work.is_way_back:
            work.free_before_load = work.free_bytes(work.plan.devices)
        request = self._request(step)
        work.effects.instance_loading(request)
        pace = LoadPace(self._usual(step), work.effects.monotonic())
        work.stand_by.ready()
        self._follow(index, step, request, pace)
        seconds = work.effects.monotonic() - pace.began_at
        work.fresh = Fresh(step, request.instance_id, seconds, pace.at_quarter_seconds, pace.reading_seconds)
        work.find(request.instance_id)
        work.board.end(index, StepState.DONE, f"{step.model_name} is loaded")

    def _request(self, step: PlanStep) -> LoadRequest:
        """The target is loaded as it was checked, whatever was changed since; for any other model it is asked now."""
        checked, self._checked = self._checked, None
        if checked is not None and checked.model_id == step.model_id:
            return checked
        return self._work.effects.load_request(step.model_id)

    def _usual(self, step: PlanStep) -> TimeRange:
        """What loads of its model have taken: the plan knows that of its target; of what is put back, the seconds alone."""
        plan, seconds = self._work.plan, step.expected_seconds
        if step.model_id == plan.target_id:
            return replace(plan.load_time, usual_seconds=seconds)
        return TimeRange(seconds, seconds, seconds, 0)

    def _follow(self, index: int, step: PlanStep, request: LoadRequest, pace: LoadPace) -> None:
        """From the request until the runtime says that it is ready; what does not become ready leaves nothing behind."""
        work = self._work
        watch = StallWatch(work.effects, work.limits)
        try:
            for sign in work.runtime.load(request, lambda: watch.is_over or work.is_over()):
                watch.see(sign)
                pace.see(sign, work.effects.monotonic())
                work.board.move_load(index, pace, _load_text(step, sign), sign)
        except LoadCancelled as exc:
            work.effects.instance_gone(request.instance_id)
            if watch.over_code:
                raise LoadFailed(code=watch.over_code, log_tail=exc.log_tail) from exc
            raise
        except RuntimeFault:
            with suppress(
                RuntimeFault
            ):  # one that is away has nothing to forget, and the first fault is the one to tell
                work.runtime.forget(request.instance_id)
            work.effects.instance_gone(request.instance_id)
            raise

    def _verify(self, index: int, step: PlanStep) -> None:
        """One real token before anybody is sent to it."""
        work, fresh = self._work, self._work.fresh
        if fresh is None:
            raise LoadFailed(f"{step.model_name} vanished before it could be tried.")
        began_at = work.effects.monotonic()
        work.board.begin(index)
        work.effects.enter(JobState.WARMING)
        trial: Aside[Verification] = Aside(lambda: work.runtime.verify(fresh.instance_id), "verify")
        # Most give a token before anybody could read that they are asked for one, and showing it would be in their way.
        if not trial.is_done(UNTOLD_SECONDS):
            work.board.move(index, 0.0, f"Asking {step.model_name} for a first token")
        self._wait_for(trial)
        verify_seconds = work.effects.monotonic() - began_at
        measure = LoadMeasure(fresh.seconds, verify_seconds, fresh.at_quarter_seconds, fresh.reading_seconds)
        # Looked up again: what it holds is known only now that it has worked.
        work.effects.instance_loaded(work.find(fresh.instance_id), measure)
        work.fresh = replace(fresh, is_verified=True)
        work.board.end(index, StepState.DONE, f"{step.model_name} answers")

    def _wait_for(self, trial: Aside[Verification]) -> None:
        """A first token may take a minute, a cancel must not: whoever cancels leaves, and the model is dropped under the call."""
        while not trial.is_done(POLL_SECONDS):
            self._work.check_over()
        trial.result()

    # Calling

    def _call(self, index: int, step: PlanStep) -> None:
        """The one call of a call job. Afterwards a cancel has nothing to stop any more: everything is put back anyway."""
        work = self._work
        work.effects.enter(JobState.WARMING)
        work.board.start(index, f"{step.model_name} is answering")
        work.effects.call(self._whom_to_call(step), work.is_over)
        work.is_settled = True
        work.board.end(index, StepState.DONE, f"{step.model_name} has answered")

    def _whom_to_call(self, step: PlanStep) -> RunningInstance:
        work = self._work
        if work.fresh is not None:
            return work.find(work.fresh.instance_id)
        instance = work.find_ready(step.model_id)
        if instance is None:
            raise RuntimeFault(f"{step.model_name} is not loaded any more.", code=ErrorCode.CALL_FAILED)
        return instance


def slack(size_bytes: int) -> int:
    """How much less than `size_bytes` may come back and still count as all of it."""
    return max(int(size_bytes * SLACK_SHARE), SLACK_BYTES)


def _load_text(step: PlanStep, progress: LoadProgress) -> str:
    if progress.detail:
        return progress.detail
    if progress.stage == LoadStage.INITIALISING:
        return f"Preparing {step.model_name}"
    return f"Loading {step.model_name}"
