"""The pace of one load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.engine.pace import LoadPace
from gantry.planning.eta import LIVE_RATE_FROM
from gantry.planning.states import StepKind
from gantry.planning.types import Reading, TimeRange
from gantry.runtimes.base import LoadProgress, LoadStage
from tests.unit.engine.bench import Bench

USUAL = TimeRange(10.0, 9.0, 12.0, 5, 2.0, Reading(0.5, 5.0))

STAGES = (LoadStage.STARTING, LoadStage.READING, LoadStage.INITIALISING)
usuals = st.builds(
    TimeRange,
    st.floats(0, 1e5),
    st.just(0.0),
    st.just(0.0),
    st.integers(0, 9),
    st.none() | st.floats(0, 1e5),
    st.none() | st.builds(Reading, st.floats(0.02, 0.98), st.floats(0, 1e5)),
)
signs = st.builds(
    LoadProgress,
    st.sampled_from(STAGES),
    st.none() | st.floats(0, 0.99),
    st.none() | st.integers(0, 1000),
    st.none() | st.just(1000),
)


def read(done: int) -> LoadProgress:
    """So many of 100 bytes."""
    return LoadProgress(LoadStage.READING if done < 100 else LoadStage.INITIALISING, 0.9 * done / 100, done, 100)


def test_reading_is_timed_until_its_end_not_until_the_next_look() -> None:
    pace = LoadPace(USUAL, 100.0)
    for done, now in ((0, 100.1), (50, 103.0), (100, 106.0), (100, 109.0)):
        pace.see(read(done), now)
    assert pace.reading_seconds == 6
    assert pace.fraction == 0.5
    assert pace.seconds_left == pytest.approx(2, abs=0.5)


def test_percent_goes_with_time_where_half_of_the_load_comes_after_the_reading() -> None:
    pace = LoadPace(USUAL, 0.0)
    seen = []
    for second in range(1, 6):
        pace.see(read(20 * second), float(second))
        seen.append(pace.fraction)
    assert seen == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_ready_is_the_end() -> None:
    pace = LoadPace(USUAL, 0.0)
    pace.see(LoadProgress(LoadStage.READY, 1.0), 4.0)
    assert (pace.fraction, pace.seconds_left, pace.at_quarter_seconds) == (1.0, 0.0, 4.0)
    assert pace.reading_seconds is None  # no bytes were told


def test_what_is_foretold_at_a_quarter_of_the_load_is_kept() -> None:
    pace = LoadPace(USUAL, 0.0)
    for done in (10, 50, 60):  # a quarter of the load is half of the reading
        pace.see(read(done), done / 20)
    assert pace.at_quarter_seconds == pytest.approx(10)


@given(usuals, st.lists(st.tuples(signs, st.floats(0, 1e4)), max_size=20))
def test_fraction_never_falls_nor_says_done_and_time_left_is_never_negative(
    usual: TimeRange, seen: list[tuple[LoadProgress, float]]
) -> None:
    pace, now, before = LoadPace(usual, 0.0), 0.0, 0.0
    for sign, seconds in seen:
        now += seconds
        pace.see(sign, now)
        assert before <= pace.fraction < 1
        assert pace.seconds_left is None or pace.seconds_left >= 0
        before = pace.fraction


def test_of_a_load_that_nobody_can_foretell_no_time_is_told_until_it_has_a_pace(bench: Bench) -> None:
    plan = bench.switch()
    steps = [replace(step, expected_seconds=0.0) if step.kind == StepKind.LOAD else step for step in plan.steps]
    bench.run(replace(plan, steps=tuple(steps), load_time=TimeRange(0.0, 0.0, 0.0, 0)))
    load = next(index for index, step in enumerate(steps) if step.kind == StepKind.LOAD)
    reports = bench.effects.reports
    before = [one for one in reports if one.index < load or (one.index == load and one.fraction < LIVE_RATE_FROM)]
    after = [one for one in reports if one.index > load]
    assert before
    assert after
    assert all(one.eta_seconds is None for one in before)
    assert all(one.eta_seconds is not None for one in after)
    percents = [one.percent for one in reports]
    assert percents == sorted(percents)
    assert percents[-1] < 100
