from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.eta import LIVE_RATE_FROM, overall_percent, remaining_seconds

seconds = st.floats(0, 1e6)
plans = st.lists(seconds, min_size=1, max_size=8)
fractions = st.floats(0, 1)


def test_steps_count_by_their_seconds() -> None:
    assert overall_percent([1.0, 3.0], 0, 1.0) == pytest.approx(25)
    assert overall_percent([1.0, 3.0], 1, 0.5) == pytest.approx(62.5)


def test_steps_without_seconds_count_alike() -> None:
    assert overall_percent([0.0, 0.0], 1, 0.0) == pytest.approx(50)


def test_100_percent_is_said_of_what_is_done() -> None:
    assert overall_percent([1.0, 2.0], 1, 1.0) < 100
    assert overall_percent([1.0, 2.0], 2, 0.0) == 100
    assert overall_percent([], 0, 0.0) == 100


@given(plans, st.lists(st.tuples(st.integers(0, 8), fractions), max_size=20))
def test_percent_never_falls(expected: list[float], moments: list[tuple[int, float]]) -> None:
    percents = [overall_percent(expected, index, fraction) for index, fraction in sorted(moments)]
    assert percents == sorted(percents)
    assert all(0 <= percent <= 100 for percent in percents)


def test_before_there_is_a_pace_the_estimate_counts() -> None:
    assert remaining_seconds([10.0, 5.0], 0, 0.2, 2.0) == pytest.approx(13)


def test_pace_of_the_step_corrects_the_estimate() -> None:
    # Half done after 20 s where 10 s were expected for all of it: 20 s more.
    assert remaining_seconds([10.0, 5.0], 0, 0.5, 20.0) == pytest.approx(25)
    # Four tenths done after 2 s: the pace says 3 s, the estimate 8 s; the pace has four tenths of the say.
    assert remaining_seconds([10.0], 0, 0.4, 2.0) == pytest.approx(0.4 * 3 + 0.6 * 8)


def test_past_the_estimate_without_a_pace_nobody_knows() -> None:
    assert remaining_seconds([10.0, 5.0], 0, 0.0, 11.5) is None
    assert remaining_seconds([10.0, 5.0], 0, 0.0, 10.5) == pytest.approx(5)


def test_finished_step_leaves_the_rest() -> None:
    assert remaining_seconds([10.0, 5.0], 0, 1.0, 99.0) == pytest.approx(5)
    assert remaining_seconds([10.0], 1, 0.0, 0.0) == 0


@given(plans, st.integers(0, 9), fractions, seconds)
def test_remaining_is_never_negative(expected: list[float], index: int, fraction: float, elapsed: float) -> None:
    left = remaining_seconds(expected, index, fraction, elapsed)
    assert left is None or left >= 0
    if fraction > LIVE_RATE_FROM and elapsed > 0:
        assert left is not None
