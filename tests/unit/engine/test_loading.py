"""A load: watched, measured, tried out; and a try-out that nobody has to wait for."""

from __future__ import annotations

import threading
import time

from gantry.engine.runner import Limits
from gantry.planning.states import ErrorCode, JobState
from gantry.runtimes.null import Failure
from tests.unit.engine.bench import Bench


def test_model_that_gives_no_token_is_never_activated(bench: Bench) -> None:
    bench.world.silent.add("new")
    outcome = bench.run()
    assert outcome.error_code == ErrorCode.VERIFY_FAILED
    assert "activate new" not in bench.calls
    assert bench.held == ["old"]


def test_cancel_leaves_a_first_token_that_does_not_come(bench: Bench) -> None:
    bench.world.hanging.add("new")
    bench.cancel_at("Asking New for a first token")
    began_at = time.monotonic()
    outcome = bench.run()
    assert (outcome.state, outcome.aftermath, bench.held) == (JobState.CANCELLED, "Old was put back.", ["old"])
    assert time.monotonic() - began_at < 3
    for thread in threading.enumerate():
        if thread.name == "verify":
            thread.join(timeout=5)  # it ends with the model that it asked
            assert not thread.is_alive()


def test_first_token_that_comes_at_once_is_told_when_it_is_there(bench: Bench) -> None:
    bench.run()
    assert "Asking New for a first token" not in bench.effects.texts
    assert "New answers" in bench.effects.texts
    assert bench.effects.states[-1] == JobState.WARMING


def test_first_token_that_takes_a_while_is_announced_while_it_is_waited_for(bench: Bench) -> None:
    original = bench.null.verify

    def verify(instance_id: str) -> object:
        deadline = time.monotonic() + 10
        while "Asking New for a first token" not in bench.effects.texts:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return original(instance_id)

    bench.null.verify = verify  # type: ignore[method-assign,assignment]
    assert bench.run().state == JobState.SUCCEEDED


def test_steps_that_are_not_announced_are_timed_all_the_same(bench: Bench) -> None:
    original = bench.null.verify

    def verify(instance_id: str) -> object:
        bench.effects.sleep(3.0)
        return original(instance_id)

    bench.null.verify = verify  # type: ignore[method-assign,assignment]
    bench.run()
    (told,) = [report for report in bench.effects.reports if report.text == "New answers"]
    assert 3.0 <= told.seconds < 4.0


def test_stalled_load_ends_with_its_own_code(bench: Bench) -> None:
    bench.world.stalls["new"] = 0.3
    bench.limits = Limits(stall_seconds=0.05)
    assert bench.run().error_code == ErrorCode.LOAD_STALLED
    assert bench.held == ["old"]


def test_load_that_goes_on_and_on_ends_at_the_ceiling(bench: Bench) -> None:
    bench.world.load_seconds = 60
    bench.limits = Limits(load_seconds=0.05)
    bench.world.failures["old"] = Failure()
    assert bench.run().error_code == ErrorCode.LOAD_TIMEOUT


def test_model_that_dies_right_after_loading_is_a_failed_load(bench: Bench) -> None:
    original = bench.null.running

    def running() -> object:
        for instance in original():
            if instance.model_id == "new" and instance.is_alive:
                bench.world.crash(instance.instance_id)
        return original()

    bench.null.running = running  # type: ignore[method-assign,assignment]
    outcome = bench.run()
    assert outcome.error_code == ErrorCode.LOAD_FAILED
    assert bench.held == ["old"]


def test_load_and_first_token_are_measured_apart(bench: Bench) -> None:
    bench.world.load_seconds = 0.2
    bench.effects.slow = {"loading new"}
    bench.run()
    (measure,) = bench.effects.measures
    assert 0 < measure.seconds < 1  # what is written down before the load is no part of it
    assert 0 < measure.verify_seconds < 1


def test_what_was_foretold_at_a_quarter_is_kept(bench: Bench) -> None:
    bench.world.load_seconds = 0.2
    bench.run()
    (measure,) = bench.effects.measures
    assert measure.at_quarter_seconds is not None
    assert 0 < measure.at_quarter_seconds <= 1  # a second was expected; the clock of these effects hardly moves


def test_reading_is_measured_apart_from_what_comes_after(bench: Bench) -> None:
    bench.world.load_seconds = 0.2
    bench.run()
    (measure,) = bench.effects.measures
    assert measure.reading_seconds is not None
    assert 0 < measure.reading_seconds <= measure.seconds


def test_models_put_back_are_measured_too(bench: Bench) -> None:
    bench.world.failures["new"] = Failure()
    bench.run()
    assert len(bench.effects.measures) == 1
