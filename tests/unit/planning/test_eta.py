from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.eta import (
    LIVE_RATE_FROM,
    LoadSign,
    load_fraction,
    load_seconds_left,
    overall_percent,
    remaining_seconds,
)
from gantry.planning.types import Reading, TimeRange

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


# Loads

UNSEEN = TimeRange(10.0, 5.0, 20.0, 0)
ALIKE = TimeRange(10.0, 9.5, 10.5, 10, 1.0, Reading(0.8, 2.0))
UNALIKE = TimeRange(10.0, 3.0, 40.0, 10, 10.0, Reading(0.8, 2.0))

parts = st.none() | st.builds(Reading, st.floats(0.02, 0.98), st.floats(0, 1e6))
usuals = st.builds(TimeRange, seconds, seconds, seconds, st.integers(0, 10), st.none() | seconds, parts)
signs = st.builds(LoadSign, fractions, st.none() | fractions, seconds, seconds)


def reading(read: float, gone: float) -> LoadSign:
    """So much is read after so long; the runtime's own word is a guess that leaves nothing for later."""
    return LoadSign(fraction=read, read=read, read_seconds=gone, seconds=gone)


def test_reading_counts_by_the_share_that_it_usually_has() -> None:
    assert load_fraction(ALIKE, reading(0.5, 1.0)) == pytest.approx(0.4)
    assert load_fraction(ALIKE, reading(1.0, 1.0)) == pytest.approx(0.8)


def test_before_a_share_is_known_the_word_of_the_runtime_counts() -> None:
    assert load_fraction(UNSEEN, reading(0.5, 1.0)) == 0.5
    assert load_fraction(ALIKE, LoadSign(0.7, None, 1.0, 1.0)) == 0.7


def test_pace_of_reading_foretells_a_load_that_may_be_long_or_short() -> None:
    # A quarter is read in 5 s: 15 s more of reading and the usual 2 s after it, nearly without regard to the usual 10 s.
    assert load_seconds_left(UNALIKE, reading(0.25, 5.0)) == pytest.approx(17, rel=0.1)


def test_pace_hardly_counts_where_loads_are_alike() -> None:
    # By its pace it would take 18 s in all, but no load ever did.
    assert load_seconds_left(ALIKE, reading(0.25, 4.0)) == pytest.approx(7, abs=1)


def test_usual_figure_that_is_outlasted_counts_no_more() -> None:
    assert load_seconds_left(ALIKE, reading(0.5, 12.0)) == pytest.approx(12 + 2)


def test_all_read_leaves_the_usual_seconds_after() -> None:
    # Read after 30 s, 0.5 s ago.
    assert load_seconds_left(UNALIKE, LoadSign(0.9, 1.0, 30.0, 30.5)) == pytest.approx(1.5)


def test_whole_loads_count_for_more_than_a_pace_that_knows_nothing_of_the_end() -> None:
    left = load_seconds_left(UNSEEN, reading(0.25, 1.0))
    assert left is not None
    assert 6 < left < 9  # 3 s by its pace, 9 s by what was expected
    surer = load_seconds_left(TimeRange(10.0, 9.5, 10.5, 5, 1.0), reading(0.25, 1.0))
    assert surer == pytest.approx(9, abs=0.2)


def test_before_a_quarter_is_read_there_is_no_pace() -> None:
    assert load_seconds_left(UNALIKE, reading(0.2, 8.0)) == pytest.approx(2)


def test_load_past_all_that_was_foretold_is_foretold_no_more() -> None:
    assert load_seconds_left(ALIKE, LoadSign(0.9, 1.0, 8.0, 10.9)) == 0
    assert load_seconds_left(ALIKE, LoadSign(0.9, 1.0, 8.0, 11.1)) is None
    assert load_seconds_left(UNSEEN, LoadSign(0.0, None, 0.0, 12.0)) is None


@given(usuals, signs)
def test_time_left_of_a_load_is_never_negative(usual: TimeRange, sign: LoadSign) -> None:
    left = load_seconds_left(usual, sign)
    assert left is None or 0 <= left < float("inf")


@given(usuals, st.floats(0, 1), st.lists(fractions, min_size=2, max_size=20))
def test_fraction_of_a_load_never_falls(usual: TimeRange, said: float, reads: list[float]) -> None:
    done = [load_fraction(usual, LoadSign(said, read, 1.0, 1.0)) for read in sorted(reads)]
    assert done == sorted(done)
    assert all(0 <= one <= 1 for one in done)
