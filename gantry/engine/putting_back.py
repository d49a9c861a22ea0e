"""The way back: what a run took away is loaded again, and when that fails the default model is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from gantry.engine.steps import Steps, slack
from gantry.engine.waiting import wait_for_free
from gantry.engine.words import be, gigabytes, name_list
from gantry.engine.work import Interrupted, Work
from gantry.planning.states import ErrorCode, JobState, StepKind, StepState
from gantry.planning.types import PlanStep
from gantry.planning.wording import wording
from gantry.runtimes.exceptions import LoadCancelled, RuntimeFault

VERIFY_SECONDS = 0.5  # expected; one token
SUCCESSOR_SECONDS = 1.0  # for memory to come back before a job that takes over looks at it


@dataclass(frozen=True, slots=True)
class Fallback:
    """The model that is to serve when nothing else can be put back; an empty id for none."""

    model_id: str = ""
    name: str = ""


@dataclass
class _Tally:
    """What became of the models, by name; ids of those that failed, so that they are not tried again."""

    back: list[str] = field(default_factory=list)
    lost: list[tuple[str, ErrorCode]] = field(default_factory=list)
    failed_ids: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)  # another job took over before their turn


class WayBack:
    """Puts back what was unloaded for the target, last one first, and tells what could not be."""

    def __init__(self, work: Work, steps: Steps, fallback: Fallback) -> None:
        self._work = work
        self._steps = steps
        self._fallback = fallback
        self._tally = _Tally()

    @property
    def is_taken_over(self) -> bool:
        """Whether another job took over on the way: it owes the rest."""
        return bool(self._tally.left)

    def go(self, *, target_failed: bool = False) -> tuple[bool | None, str]:
        """Put everything back, as far as that goes.

        Args:
            target_failed: the target itself could not be loaded: a restart of the active model leaves nothing that serves.

        Returns:
            Whether everything is back (None: nothing was owed, or another job owes it now), and that in words.
        """
        work = self._work
        if not work.plan.target_id:
            return self._without_target()
        work.is_way_back = True
        words = [self._kept_words()]
        owed = [step for step in reversed([*work.owed, *work.unloaded]) if step.model_id != work.plan.target_id]
        for number, step in enumerate(owed):
            if not self._put_back(step):
                self._tally.left = [step.model_name for step in owed[number:]]
                break
        words += [self._put_back_words(), self._own_words()]
        if not self.is_taken_over and self._is_unserved(target_failed):
            words.append(self._fall_back())
        return self._verdict(owed), " ".join(part for part in words if part)

    def _without_target(self) -> tuple[bool | None, str]:
        """Nothing was to take the place of what was unloaded, so it stays away."""
        names = [step.model_name for step in self._work.unloaded]
        words = [self._kept_words(), f"{be(names, 'stays', 'stay')} unloaded." if names else ""]
        return None, " ".join(part for part in words if part)

    def _verdict(self, owed: list[PlanStep]) -> bool | None:
        work = self._work
        if self.is_taken_over:
            return None
        if not owed and not work.kept and not work.stuck:
            return None
        return not self._tally.lost and not work.stuck

    # One model

    def _put_back(self, step: PlanStep) -> bool:
        """Try one; False when another job took over meanwhile."""
        try:
            self._bring(step.model_id, step.model_name, is_active=self._work.effects.was_active(step.model_id))
            self._tally.back.append(step.model_name)
        except (Interrupted, LoadCancelled):
            return False
        except RuntimeFault as fault:
            self._tally.lost.append((step.model_name, fault.code))
            self._tally.failed_ids.add(step.model_id)
        return True

    def _bring(self, model_id: str, name: str, *, is_active: bool) -> None:
        """Load, verify and, where it served before, activate one model.

        `is_active` is asked before: once it is back, nothing is owed any more.

        Raises:
            RuntimeFault: it did not work; nothing of it is left.
            Interrupted, LoadCancelled: another job took over.
        """
        work = self._work
        work.check_over()
        self._wait_for_room(model_id)
        known = work.evicted(model_id)
        seconds = (known.reload_seconds if known else 0.0) or work.plan.load_time.usual_seconds
        parts = [
            PlanStep(StepKind.LOAD, model_id, name, "", seconds),
            PlanStep(StepKind.VERIFY, model_id, name, "", VERIFY_SECONDS),
        ]
        first = index = work.board.extend(parts)
        try:
            for index, part in enumerate(parts, start=first):
                self._steps.do(index, part)
        except (RuntimeFault, Interrupted) as fault:
            self._close(index, fault)
            self.drop_fresh()
            raise
        work.fresh = None  # it stays
        if is_active:
            work.activate(model_id)

    def _close(self, index: int, fault: RuntimeFault | Interrupted) -> None:
        if isinstance(fault, Interrupted | LoadCancelled):
            self._work.board.end(index, StepState.SKIPPED, "Another switch took over")
        else:
            self._work.board.end(index, StepState.FAILED, wording(fault.code).sentence)

    def _wait_for_room(self, model_id: str) -> None:
        """Until the memory that a model held is free again; it is tried also when that takes too long or cannot be seen."""
        work = self._work
        known = work.evicted(model_id)
        size = known.held_bytes if known else work.free_before_load or 0
        devices = tuple(known.held_on) if known else work.plan.devices
        free = work.free_bytes(devices)
        if free is None or free >= size - slack(size):
            return
        index = work.board.extend([PlanStep(StepKind.FREE, "", "", "", 0.0)])
        work.board.start(index, "Waiting for the memory")
        try:
            free = wait_for_free(
                work.effects,
                size - slack(size),
                devices,
                work.limits.free_seconds,
                is_over=work.is_over,
                tell=lambda fraction: work.board.move(index, fraction, "Waiting for the memory"),
            )
        except RuntimeFault as fault:
            work.board.end(index, StepState.DONE, fault.detail)
            return
        work.board.end(index, StepState.DONE, f"{gigabytes(free)} are free")
        work.check_over()

    # The target

    def drop_fresh(self) -> RuntimeFault | None:
        """Unload what this run has loaded last and has no use for; gives the fault when it would not go."""
        work, fresh = self._work, self._work.fresh
        if fresh is None:
            return None
        work.fresh = None
        index = work.board.extend([PlanStep(StepKind.UNLOAD, fresh.step.model_id, fresh.step.model_name, "", 0.0)])
        work.effects.enter(JobState.UNLOADING)
        work.board.start(index, f"Unloading {fresh.step.model_name}")
        if fresh.is_verified:
            work.effects.instance_unloading(fresh.instance_id)
        try:
            work.runtime.unload(fresh.instance_id)
            work.runtime.forget(fresh.instance_id)
        except RuntimeFault as fault:
            work.board.end(index, StepState.FAILED, wording(fault.code).sentence)
            return fault
        work.effects.instance_gone(fresh.instance_id)
        work.board.end(index, StepState.DONE, f"{fresh.step.model_name} is unloaded")
        return None

    def leave_to_successor(self) -> RuntimeFault | None:
        """Another job takes over: only what nobody wants goes, and its memory, which the other one is about to look at."""
        work, before = self._work, self._work.free_before_load
        fault = self.drop_fresh()
        if fault is None and before is not None:
            wanted = before - slack(work.plan.needed_bytes)
            with suppress(RuntimeFault):
                wait_for_free(work.effects, wanted, work.plan.devices, SUCCESSOR_SECONDS, is_over=lambda: False)
        return fault

    # The default model

    def _is_unserved(self, target_failed: bool) -> bool:
        """Whether the way back has ended without a model that serves, where there was to be one."""
        work = self._work
        own = any(step.model_id == work.plan.target_id for step in [*work.owed, *work.unloaded])
        is_own_gone = target_failed and own and work.effects.was_active(work.plan.target_id)
        return bool(self._tally.lost or work.stuck or is_own_gone) and not work.effects.active_model()

    def _fall_back(self) -> str:
        """Let the default model serve, unless it is what failed; gives what came of it in words."""
        work, model_id = self._work, self._fallback.model_id
        if not model_id or model_id == work.plan.target_id or model_id in self._tally.failed_ids:
            return ""
        name = f"{self._fallback.name or model_id}, the default model,"
        try:
            if work.find_ready(model_id):
                work.activate(model_id)
                return f"{name} is active instead."
            self._bring(model_id, self._fallback.name or model_id, is_active=True)
        except (Interrupted, LoadCancelled):
            self._tally.left = [self._fallback.name or model_id]
            return ""
        except RuntimeFault as fault:
            return f"{name} could not be loaded either ({wording(fault.code).short})."
        return f"{name} was loaded instead."

    # Words

    def _kept_words(self) -> str:
        kept, stuck = self._work.kept, self._work.stuck
        words = [f"{be(kept, 'stays', 'stay')} loaded."] if kept else []
        words += [f"{be(stuck, 'neither goes nor answers', 'neither go nor answer')}."] if stuck else []
        return " ".join(words)

    def _put_back_words(self) -> str:
        tally = self._tally
        words = [f"{be(tally.back, 'was', 'were')} put back."] if tally.back else []
        words += [f"{name} could not be put back ({wording(code).short})." for name, code in tally.lost]
        words += [f"Another switch took over before {name_list(tally.left)} could be put back."] if tally.left else []
        return " ".join(words)

    def _own_words(self) -> str:
        """A target that was unloaded itself, to be loaded anew, is not loaded again when that failed."""
        own = [step.model_name for step in self._work.unloaded if step.model_id == self._work.plan.target_id]
        return f"{be(own, 'stays', 'stay')} unloaded." if own else ""
