"""Carries out a plan, step by step; puts back what it took away when a step fails. See DESIGN.md."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from gantry.engine.effects import Effects
from gantry.engine.putting_back import Fallback, WayBack
from gantry.engine.steps import Steps
from gantry.engine.terms import Limits, Outcome
from gantry.engine.words import be, fault_text
from gantry.engine.work import Interrupted, Work
from gantry.planning.states import SERVING_KINDS, ErrorCode, JobKind, JobState, LoadOrder, StepKind, StepState
from gantry.planning.types import PlanStep, SwitchPlan
from gantry.planning.wording import wording
from gantry.runtimes.base import Runtime
from gantry.runtimes.exceptions import LoadCancelled, RuntimeFault
from gantry.runtimes.fleet import find_instance

__all__ = ["Limits", "Outcome", "put_back", "run_plan"]

TAKEN_OVER = "Another switch took over"


def run_plan(
    plan: SwitchPlan,
    runtime: Runtime,
    effects: Effects,
    limits: Limits | None = None,
    *,
    owed: Sequence[PlanStep] = (),
    fallback: str = "",
    fallback_name: str = "",
) -> Outcome:
    """Carry out a plan and tell how it ended. Raises only what is a bug.

    Args:
        runtime: the pool's runtime; a `Fleet` where it has several.
        owed: unloads of a job that this one took over from, first one first; if this one fails, they are put back too.
        fallback: id of the model that is to serve when what was there before cannot be put back; "" for none.
        fallback_name: what people call it.
    """
    work = Work(plan, runtime, effects, limits or Limits(), owed)
    return _Run(work, Fallback(fallback, fallback_name)).run()


def put_back(
    owed: Sequence[PlanStep],
    target: SwitchPlan,
    runtime: Runtime,
    effects: Effects,
    limits: Limits | None = None,
    *,
    fallback: str = "",
    fallback_name: str = "",
) -> tuple[bool | None, str]:
    """Load again what an earlier job unloaded, when the one that took over ends before it has a plan to carry out.

    Args:
        target: a plan without steps that names what was asked for.

    Returns:
        Whether all of it is back (None: nothing was owed), and that in words.
    """
    work = Work(target, runtime, effects, limits or Limits(), owed)
    return WayBack(work, Steps(work), Fallback(fallback, fallback_name)).go()


class _Run:
    """One run of one plan: the order of things, and how it ends."""

    def __init__(self, work: Work, fallback: Fallback) -> None:
        self._work = work
        self._plan = work.plan
        self._effects = work.effects
        self._steps = Steps(work)
        self._way_back = WayBack(work, self._steps, fallback)
        self._index = next((i for i, step in enumerate(work.plan.steps) if step.kind == StepKind.LOAD), 0)

    def run(self) -> Outcome:
        try:
            self._carry_out_or_let_be()
        except (Interrupted, LoadCancelled):
            return self._after_cancel()
        except RuntimeFault as fault:
            return self._after_failure(fault)
        return self._after_success()

    def _carry_out_or_let_be(self) -> None:
        """However it ends, what was begun beside it for a load that did not come is over before anything else is done."""
        try:
            self._carry_out()
        finally:
            self._work.read_ahead.end()
            self._work.stand_by.drop()

    def _carry_out(self) -> None:
        if self._has(StepKind.LOAD):
            self._steps.check_target()
        elif self._plan.order == LoadOrder.LOAD_FIRST:
            self._serve()
        for index, step in enumerate(self._plan.steps):
            self._index = index
            self._work.check_over()
            self._steps.do(index, step)
            if step.kind == StepKind.VERIFY:
                self._serve()
            self._settle(index)
        self._serve()

    def _serve(self) -> None:
        """From here on the target is the active one: right after its first token, so that nobody waits for anything else."""
        work = self._work
        if work.is_activated:
            return
        work.check_over()
        if self._plan.kind in SERVING_KINDS and self._plan.target_id:
            work.activate(self._plan.target_id)
            work.is_activated = True

    def _settle(self, index: int) -> None:
        """Note when nothing that could still be undone is left to do."""
        work = self._work
        is_unloaded = self._plan.steps[index].kind == StepKind.UNLOAD and not work.is_to_come(StepKind.LOAD, index)
        if (work.is_activated or is_unloaded) and not work.is_to_come(StepKind.UNLOAD, index):
            work.is_settled = True

    def _has(self, kind: StepKind) -> bool:
        return any(step.kind == kind for step in self._plan.steps)

    # Ends

    def _after_success(self) -> Outcome:
        if self._plan.kind == JobKind.CALL:
            return self._after_call()
        return self._outcome(JobState.SUCCEEDED, self._success_text())

    def _after_call(self) -> Outcome:
        """The call was made; everything goes back to what it was, the target too if it was loaded for the call."""
        left_over = self._way_back.drop_fresh()
        is_back, words = self._way_back.go()
        if self._way_back.is_taken_over:
            return self._outcome(JobState.SUPERSEDED, TAKEN_OVER, aftermath=words)
        return self._outcome(
            JobState.SUCCEEDED,
            self._success_text(),
            rolled_back=False if left_over else is_back,
            aftermath=self._with_left_over(left_over, words),
        )

    def _after_cancel(self) -> Outcome:
        work = self._work
        work.board.close(self._index, StepState.SKIPPED, "Cancelled")
        if self._effects.is_superseded():
            return self._after_supersede()
        former = self._back_to_former() if work.is_activated else ""
        if work.is_activated:
            text = f"{self._plan.target_name} stays active: what was active before does not answer any more."
            return self._outcome(JobState.CANCELLED, "Cancelled", rolled_back=False, aftermath=text)
        left_over = self._way_back.drop_fresh()
        if left_over is not None:
            return self._after_failure(left_over)
        is_back, words = self._way_back.go()
        if self._way_back.is_taken_over:
            return self._outcome(JobState.SUPERSEDED, TAKEN_OVER, aftermath=words)
        if former:
            is_back, words = True, f"{former} is active again."
        return self._outcome(JobState.CANCELLED, "Cancelled", rolled_back=is_back, aftermath=words)

    def _back_to_former(self) -> str:
        """Let the former model, which was not unloaded yet, serve again before the target goes; gives its name."""
        unloads = self._unloads()
        former = next((step for step in unloads if self._effects.was_active(step.model_id)), unloads[0])
        with suppress(RuntimeFault):
            instance = find_instance(self._work.runtime, former.instance_id)
            if instance is not None and instance.is_alive:
                self._work.activate(former.model_id)
                self._work.is_activated = False
        return former.model_name

    def _after_supersede(self) -> Outcome:
        """What serves goes on serving until the other job decides; a model that serves nobody goes at once."""
        left_over = None if self._work.is_activated else self._way_back.leave_to_successor()
        if left_over is not None:
            return self._after_failure(left_over)
        return self._outcome(JobState.SUPERSEDED, TAKEN_OVER)

    def _after_failure(self, fault: RuntimeFault) -> Outcome:
        self._work.board.close(self._index, StepState.FAILED, wording(fault.code).sentence)
        if self._work.is_activated:  # only the former model's leaving has failed
            return self._outcome(JobState.SUCCEEDED, self._success_text(fault))
        left_over = self._way_back.drop_fresh()
        # Another switch that took over pays the debt: loading the old model now would only be in its way.
        is_superseded = self._effects.is_superseded()
        is_back, words = (None, "") if is_superseded else self._way_back.go(target_failed=True)
        return self._outcome(
            JobState.FAILED,
            wording(fault.code).sentence,
            fault,
            rolled_back=False if left_over else is_back,
            aftermath=self._with_left_over(left_over, words),
        )

    def _outcome(
        self,
        state: JobState,
        text: str,
        fault: RuntimeFault | None = None,
        *,
        rolled_back: bool | None = None,
        aftermath: str = "",
    ) -> Outcome:
        return Outcome(
            state,
            text,
            error_code=fault.code if fault else None,
            error_text=fault_text(fault) if fault else "",
            log_tail=fault.log_tail if fault else (),
            rolled_back=rolled_back,
            aftermath=aftermath,
            downtime_seconds=self._work.downtime.seconds if self._plan.target_id else None,
        )

    # Words

    def _success_text(self, fault: RuntimeFault | None = None) -> str:
        parts = [self._what_was_done()]
        left = [step.model_name for step in self._unloads() if step not in self._work.unloaded]
        if fault is not None and left:
            parts.append(f"{be(left, 'stays', 'stay')} loaded ({wording(fault.code).short})")
        return ". ".join([*parts, *([self._steps.missing_text] if self._steps.missing_text else [])])

    def _what_was_done(self) -> str:
        if self._plan.kind == JobKind.CALL:
            return f"{self._plan.target_name} has answered"
        if self._plan.target_id:
            is_active = self._plan.kind in SERVING_KINDS
            return f"{self._plan.target_name} is {'active' if is_active else 'loaded'}"
        names = [step.model_name for step in self._work.unloaded]
        return f"{be(names, 'is', 'are')} unloaded" if names else "Nothing was loaded any more"

    def _with_left_over(self, fault: RuntimeFault | None, words: str) -> str:
        """The aftermath, when the target that was to be dropped would not go."""
        if fault is None:
            return words
        cause = "" if fault.code == ErrorCode.UNLOAD_FAILED else f" ({wording(fault.code).short})"
        return f"{self._plan.target_name} could not be unloaded{cause}. {words}".strip()

    def _unloads(self) -> list[PlanStep]:
        return [step for step in self._plan.steps if step.kind == StepKind.UNLOAD]
