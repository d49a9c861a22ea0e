"""Running answers: how long they get, and what becomes of those that run on."""

from __future__ import annotations

import pytest

from gantry.engine.runner import Limits
from gantry.planning.states import DrainAction, ErrorCode, JobState, LoadOrder
from gantry.runtimes.base import LoadRequest
from gantry.runtimes.exceptions import RuntimeAway
from gantry.runtimes.null import Failure
from tests.unit.engine.bench import Bench


def test_answers_that_end_in_time_are_waited_for(bench: Bench) -> None:
    bench.world.busy_next["old"] = [2, 2, 1]
    assert bench.run().state == JobState.SUCCEEDED
    assert [text for text in bench.effects.texts if "answer" in text][:3] == [
        "Finishing 2 answers",
        "Finishing 1 answer",
        "No answer is running",
    ]


@pytest.mark.parametrize(
    ("busy", "text"), [(1, "1 answer was cut off after 5 s"), (2, "2 answers were cut off after 5 s")]
)
def test_cut_ends_what_runs_on(bench: Bench, busy: int, text: str) -> None:
    bench.world.busy["old"] = busy
    bench.limits = Limits(drain_seconds=5.0)
    assert bench.run().state == JobState.SUCCEEDED
    assert text in bench.effects.texts
    assert bench.held == ["new"]


def test_abort_ends_the_job_and_nothing_was_unloaded(bench: Bench) -> None:
    bench.hold("other")
    bench.world.busy = {"other": 1}
    bench.limits = Limits(drain_seconds=5.0, drain_action=DrainAction.ABORT)
    outcome = bench.run(bench.switch("old", "other"))
    assert (outcome.state, outcome.error_code) == (JobState.FAILED, ErrorCode.STILL_ANSWERING)
    assert "1 answer of Other was still running after 5 s." in outcome.error_text
    assert (outcome.rolled_back, outcome.aftermath, outcome.downtime_seconds) == (None, "", 0.0)
    assert (bench.held, bench.calls) == (["old", "other"], [])


def test_wait_goes_on_for_as_long_as_answers_run_and_says_for_how_long(bench: Bench) -> None:
    bench.world.busy["old"] = 1
    bench.limits = Limits(drain_seconds=5.0, drain_action=DrainAction.WAIT)
    bench.effects.at(200, bench.world.busy.clear)
    assert bench.run().text == "New is active"
    waiting = [text for text in bench.effects.texts if text.startswith("Still waiting")]
    assert waiting[:2] == ["Still waiting for 1 answer after 0 s", "Still waiting for 1 answer after 10 s"]
    assert waiting[-1] == "Still waiting for 1 answer after 3 min"


def test_wait_can_be_cancelled(bench: Bench) -> None:
    bench.world.busy["old"] = 1
    bench.limits = Limits(drain_seconds=5.0, drain_action=DrainAction.WAIT)
    bench.cancel_at("Still waiting for 1 answer after 10 s")
    assert bench.run().state == JobState.CANCELLED
    assert (bench.held, bench.calls, bench.effects.active) == (["old"], [], "old")


def test_time_limit_counts_for_all_drains_together(bench: Bench) -> None:
    bench.hold("other")
    bench.world.busy = {"old": 1, "other": 1}
    bench.limits = Limits(drain_seconds=10.0)
    bench.run(bench.switch("old", "other"))
    assert [text for text in bench.effects.texts if "cut off" in text] == ["1 answer was cut off after 10 s"] * 2
    assert bench.effects.monotonic() < 12  # not ten seconds for each


def test_fraction_of_a_drain_stays_sound_when_more_answers_appear(bench: Bench) -> None:
    bench.world.busy_next["old"] = [1, 3, 2]
    bench.run()
    assert all(0 <= report.fraction <= 1 for report in bench.effects.reports)


def test_model_that_does_not_tell_how_busy_it_is_can_be_switched_away_from(bench: Bench) -> None:
    def away(_instance_id: str) -> int:
        raise RuntimeAway

    bench.null.busy_count = away  # type: ignore[method-assign,assignment]
    assert bench.run().state == JobState.SUCCEEDED


def test_former_model_that_answers_on_stays_loaded_when_the_target_serves_already(bench: Bench) -> None:
    bench.world.busy["old"] = 1
    bench.limits = Limits(drain_seconds=5.0, drain_action=DrainAction.ABORT)
    outcome = bench.run(bench.switch(order=LoadOrder.LOAD_FIRST))
    assert (outcome.state, outcome.text) == (JobState.SUCCEEDED, "New is active. Old stays loaded (still answering)")
    assert (bench.held, bench.effects.active) == (["new", "old"], "new")


# Reading ahead


def test_file_is_read_ahead_while_answers_drain_and_no_longer_when_the_load_begins(bench: Bench) -> None:
    bench.world.busy_next["old"] = [1, 1]
    bench.world.prefetch_seconds = 60.0
    ended_before: list[list[str]] = []
    loading = bench.effects.instance_loading

    def instance_loading(request: LoadRequest) -> None:
        ended_before.append(list(bench.world.prefetches_ended))
        loading(request)

    bench.effects.instance_loading = instance_loading  # type: ignore[method-assign]
    assert bench.run().state == JobState.SUCCEEDED
    assert bench.world.prefetched == ["new"]
    assert ended_before == [["cancelled"]]


def test_target_is_loaded_as_it_was_checked(bench: Bench) -> None:
    checked: list[LoadRequest] = []
    loaded: list[LoadRequest] = []
    bench.null.check_load = checked.append  # type: ignore[method-assign,assignment]
    bench.effects.instance_loading = loaded.append  # type: ignore[method-assign,assignment]
    bench.run()
    assert loaded == checked


def test_what_is_put_back_is_asked_for_anew(bench: Bench) -> None:
    bench.world.failures["new"] = Failure()
    bench.run()
    assert bench.held == ["old"]


def test_nothing_is_read_ahead_when_nobody_has_to_be_waited_for(bench: Bench) -> None:
    bench.run()
    assert bench.world.prefetched == []


@pytest.mark.parametrize("order", [LoadOrder.LOAD_FIRST, None])
def test_nothing_is_read_ahead_when_no_load_comes_after_the_drain(bench: Bench, order: LoadOrder | None) -> None:
    bench.world.busy_next["old"] = [1, 1]
    bench.run(bench.switch(order=order) if order else bench.unload("old"))
    assert bench.world.prefetched == []


def test_read_ahead_that_fails_fails_nothing(bench: Bench) -> None:
    def broken(*_args: object) -> int:
        raise OSError("the disk is gone")

    bench.null.prefetch = broken  # type: ignore[method-assign,assignment]
    bench.world.busy_next["old"] = [1]
    assert bench.run().state == JobState.SUCCEEDED


def test_read_ahead_ends_with_a_job_that_is_cancelled(bench: Bench) -> None:
    bench.world.busy["old"] = 1
    bench.world.prefetch_seconds = 60.0
    bench.cancel_at("Finishing 1 answer")
    bench.run()
    assert bench.world.prefetches_ended == ["cancelled"]
