"""The steps of a running plan with their times: turns a step's fraction into percent and time left of the whole."""

from __future__ import annotations

from collections.abc import Sequence

from gantry.engine.effects import Effects, StepReport
from gantry.engine.pace import LoadPace
from gantry.planning.eta import overall_percent, remaining_seconds, seconds_after_step
from gantry.planning.states import StepKind, StepState
from gantry.planning.types import PlanStep
from gantry.runtimes.base import LoadProgress

UNKNOWN_LOAD_SECONDS = (
    20.0  # what a load counts for in the percent of the whole, of which nobody knows how long it takes
)


class Board:
    """Where the plan stands. Percent never falls, also when a rollback makes the plan longer."""

    def __init__(self, steps: Sequence[PlanStep], effects: Effects) -> None:
        self._steps = list(steps)
        self._effects = effects
        self._began_at: dict[int, float] = {}
        self._percent = 0.0
        self._done: set[int] = set()

    def extend(self, steps: Sequence[PlanStep]) -> int:
        """Add steps; gives the index of the first of them."""
        first = len(self._steps)
        self._steps.extend(steps)
        self._effects.add_steps(steps)
        return first

    def begin(self, index: int) -> None:
        """A step begins that may be over at once: its clock runs, and nobody is told before there is more to tell."""
        self._began_at[index] = self._effects.monotonic()

    def start(self, index: int, text: str) -> None:
        """A step begins."""
        self.begin(index)
        self._say(index, StepState.RUNNING, 0.0, text)

    def move(
        self, index: int, fraction: float, text: str, bytes_done: int | None = None, bytes_total: int | None = None
    ) -> None:
        """A running step is `fraction` (0 to 1) done."""
        self._say(index, StepState.RUNNING, fraction, text, bytes_done, bytes_total)

    def move_load(self, index: int, pace: LoadPace, text: str, sign: LoadProgress) -> None:
        """A running load is as far as its pace says."""
        self._say(index, StepState.RUNNING, pace.fraction, text, sign.bytes_done, sign.bytes_total, pace)

    def end(self, index: int, state: StepState, text: str) -> None:
        """A step ended."""
        if state == StepState.DONE:
            self._done.add(index)
        self._say(index, state, 1.0 if state == StepState.DONE else 0.0, text)

    def close(self, index: int, state: StepState, text: str) -> None:
        """The run ended at this step; one that was done stays done."""
        if index < len(self._steps) and index not in self._done:  # a plan without steps has none to close
            self.end(index, state, text)

    def _say(
        self,
        index: int,
        state: StepState,
        fraction: float,
        text: str,
        bytes_done: int | None = None,
        bytes_total: int | None = None,
        pace: LoadPace | None = None,
    ) -> None:
        seconds = self._seconds_of(index)
        expected = [UNKNOWN_LOAD_SECONDS if _is_unknown(step) else step.expected_seconds for step in self._steps]
        if state in {StepState.RUNNING, StepState.DONE}:
            self._percent = max(self._percent, overall_percent(expected, index, fraction))
        self._effects.report(
            StepReport(
                index=index,
                state=state,
                fraction=fraction,
                percent=self._percent,
                eta_seconds=self._seconds_left(expected, index, fraction, pace),
                text=text,
                seconds=seconds,
                bytes_done=bytes_done,
                bytes_total=bytes_total,
            )
        )

    def _seconds_of(self, index: int) -> float:
        """How long a step has taken so far; one that never began took no time."""
        now = self._effects.monotonic()
        return now - self._began_at.get(index, now)

    def _seconds_left(
        self, expected: Sequence[float], index: int, fraction: float, pace: LoadPace | None
    ) -> float | None:
        if pace is None:
            if any(_is_unknown(step) for number, step in enumerate(self._steps) if number not in self._done):
                return None
            return remaining_seconds(expected, index, fraction, self._seconds_of(index))
        if pace.seconds_left is None:
            return None
        return pace.seconds_left + seconds_after_step(expected, index)


def _is_unknown(step: PlanStep) -> bool:
    return step.kind == StepKind.LOAD and not step.expected_seconds
