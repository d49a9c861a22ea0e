"""How long no model could answer, apart from how long the job took."""

from __future__ import annotations

import pytest

from gantry.engine.runner import Limits
from gantry.planning.states import JobState, LoadOrder, StepKind
from gantry.runtimes.null import Failure
from tests.unit.engine.bench import Bench, step


def seconds(value: float | None) -> float:
    assert value is not None
    return value


def test_it_begins_with_the_unloading_and_ends_with_the_activation(bench: Bench) -> None:
    bench.world.busy["old"] = 1
    bench.limits = Limits(drain_seconds=100.0)  # answers that drain are answered: no downtime
    bench.effects.slow = {"gone old", "loading new"}
    assert seconds(bench.run().downtime_seconds) == pytest.approx(20, abs=1)


def test_it_lasts_until_the_former_model_is_back(bench: Bench) -> None:
    bench.effects.slow = {"gone old", "gone new", "loaded old"}
    bench.world.failures["new"] = Failure()
    outcome = bench.run()
    assert (outcome.state, bench.effects.active) == (JobState.FAILED, "old")
    assert seconds(outcome.downtime_seconds) == pytest.approx(30, abs=1)


def test_it_lasts_until_the_end_when_nothing_comes_back(bench: Bench) -> None:
    bench.effects.slow = {"gone old", "gone new"}
    bench.world.failures = {"new": Failure(), "old": Failure()}
    assert seconds(bench.run().downtime_seconds) >= 20


def test_there_is_none_where_the_target_serves_before_the_former_goes(bench: Bench) -> None:
    bench.effects.slow = {"loading new", "gone old"}
    assert bench.run(bench.switch(order=LoadOrder.LOAD_FIRST)).downtime_seconds == 0.0


def test_unloading_a_model_that_is_not_active_is_none(bench: Bench) -> None:
    bench.hold("other")
    bench.effects.slow = {"gone other", "loading new"}
    assert bench.run(bench.switch("other")).downtime_seconds == 0.0


def test_nothing_is_told_where_nobody_was_served_before(bench: Bench) -> None:
    bench.effects.active = ""
    assert bench.run().downtime_seconds is None


def test_it_runs_from_the_start_where_an_earlier_job_took_the_active_model_away(bench: Bench) -> None:
    bench.effects.active = ""
    bench.hold("other")
    bench.owed = [step(StepKind.UNLOAD, "old")]
    bench.effects.slow = {"loading new"}
    assert seconds(bench.run(bench.switch("other")).downtime_seconds) == pytest.approx(10, abs=1)


def test_it_ends_when_the_model_that_would_not_go_serves_on(bench: Bench) -> None:
    bench.world.stuck_unloads.add("old")
    bench.effects.slow = {"unloading old"}
    assert seconds(bench.run().downtime_seconds) == pytest.approx(10, abs=1)
