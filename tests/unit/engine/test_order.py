"""What is done, in which order, when nothing goes wrong."""

from __future__ import annotations

from gantry.engine.runner import Outcome
from gantry.planning.states import JobKind, JobState, LoadOrder
from tests.unit.engine.bench import Bench


def test_switch_unloads_loads_verifies_then_activates(bench: Bench) -> None:
    outcome = bench.run()
    assert (outcome.state, outcome.text, outcome.rolled_back, outcome.aftermath) == (
        "succeeded",
        "New is active",
        None,
        "",
    )
    assert bench.held == ["new"]
    assert bench.calls == ["unloading old", "gone old", "loading new", "loaded new", "activate new"]
    assert bench.effects.states == [JobState.DRAINING, JobState.UNLOADING, JobState.LOADING, JobState.WARMING]


def test_load_first_makes_the_target_active_before_the_former_one_is_touched(bench: Bench) -> None:
    outcome = bench.run(bench.switch(order=LoadOrder.LOAD_FIRST))
    assert (outcome.state, outcome.text, outcome.downtime_seconds) == (JobState.SUCCEEDED, "New is active", 0.0)
    assert bench.held == ["new"]
    assert bench.calls == ["loading new", "loaded new", "activate new", "unloading old", "gone old"]


def test_target_that_is_loaded_is_only_made_active(bench: Bench) -> None:
    bench.hold("new")
    assert bench.run(bench.activate("new")).text == "New is active"
    assert bench.calls == ["activate new"]
    assert bench.held == ["new", "old"]


def test_preload_makes_nothing_active(bench: Bench) -> None:
    outcome = bench.run(bench.preload())
    assert (outcome.state, outcome.text, outcome.downtime_seconds) == (JobState.SUCCEEDED, "New is loaded", 0.0)
    assert bench.calls == ["loading new", "loaded new"]
    assert (bench.held, bench.effects.active) == (["new", "old"], "old")


def test_unload_leaves_nothing_and_activates_nothing(bench: Bench) -> None:
    assert bench.run(bench.unload("old")) == Outcome(JobState.SUCCEEDED, "Old is unloaded")
    assert (bench.held, bench.effects.active) == ([], "")


def test_unload_all_drains_all_before_it_unloads_any(bench: Bench) -> None:
    bench.hold("other")
    bench.world.busy_next = {"other": [1, 1]}
    outcome = bench.run(bench.unload("old", "other"))
    assert outcome == Outcome(JobState.SUCCEEDED, "Old and Other are unloaded")
    assert bench.calls == ["unloading old", "gone old", "unloading other", "gone other"]
    drained = bench.effects.texts.index("Finishing 1 answer")
    assert drained < bench.effects.texts.index("Unloading Old")


def test_plan_without_steps_and_target_says_that_nothing_was_there(bench: Bench) -> None:
    assert bench.run(bench.unload()).text == "Nothing was loaded any more"


def test_restart_loads_the_same_model_again(bench: Bench) -> None:
    before = bench.instance("old").instance_id
    assert bench.run(bench.switch(target="old", kind=JobKind.RESTART)).text == "Old is active"
    assert bench.held == ["old"]
    assert bench.instance("old").instance_id != before


def test_percent_never_falls_and_stays_below_hundred(bench: Bench) -> None:
    bench.world.load_seconds = 0.2
    bench.run()
    percents = [report.percent for report in bench.effects.reports]
    assert percents == sorted(percents)
    assert percents[-1] < 100
    assert any(0 < report.fraction < 1 for report in bench.effects.reports)
