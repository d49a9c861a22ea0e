"""The way back after a failure or a cancel, and the default model when there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gantry.engine.runner import put_back
from gantry.planning.states import ErrorCode, JobKind, JobState, StepKind, StepState
from gantry.runtimes.base import LoadProgress, LoadRequest
from gantry.runtimes.exceptions import RuntimeAway, UnloadFailed
from gantry.runtimes.null import Failure
from tests.unit.engine.bench import Bench, step


def test_failed_load_puts_the_old_model_back_and_makes_it_active(bench: Bench) -> None:
    bench.world.failures["new"] = Failure(ErrorCode.OUT_OF_MEMORY, 0.0)
    outcome = bench.run()
    assert (outcome.state, outcome.error_code) == (JobState.FAILED, ErrorCode.OUT_OF_MEMORY)
    assert (outcome.rolled_back, outcome.aftermath) == (True, "Old was put back.")
    assert (bench.held, bench.effects.active) == (["old"], "old")


def test_last_unloaded_comes_back_first(bench: Bench) -> None:
    bench.hold("other")
    bench.world.failures["new"] = Failure()
    assert bench.run(bench.switch("old", "other")).aftermath == "Other and Old were put back."
    assert [call for call in bench.calls if call.startswith("loaded")] == ["loaded other", "loaded old"]
    assert bench.calls[-1] == "activate old"


def test_target_that_the_runtime_refuses_costs_nothing(bench: Bench) -> None:
    bench.world.refused["new"] = ErrorCode.BAD_PARAMETER
    outcome = bench.run()
    assert (outcome.state, outcome.error_code, outcome.aftermath) == (JobState.FAILED, ErrorCode.BAD_PARAMETER, "")
    assert (bench.held, bench.calls) == (["old"], [])
    assert [(report.index, report.state) for report in bench.effects.reports] == [(3, StepState.FAILED)]  # the load


def test_what_cannot_be_put_back_is_told_with_its_cause(bench: Bench) -> None:
    bench.hold("other")
    bench.world.failures = {"new": Failure(), "old": Failure(ErrorCode.OUT_OF_MEMORY)}
    outcome = bench.run(bench.switch("old", "other"))
    assert outcome.rolled_back is False
    assert outcome.aftermath == "Other was put back. Old could not be put back (out of memory)."
    assert (bench.held, bench.effects.active) == (["other"], "")


def test_model_put_back_that_gives_no_token_is_not_left_behind(bench: Bench) -> None:
    bench.world.failures["new"] = Failure()
    bench.world.silent.add("old")
    assert bench.run().aftermath == "Old could not be put back (no answer)."
    assert bench.held == []
    assert bench.calls.count("unloading old") == 1  # what never served is not taken out of service


def test_debt_of_earlier_jobs_is_paid_too(bench: Bench) -> None:
    bench.owed = [step(StepKind.UNLOAD, "earlier"), step(StepKind.UNLOAD, "new")]
    bench.world.failures["new"] = Failure()
    assert bench.run().aftermath == "Old and Earlier were put back."  # not the target, which has just failed
    assert bench.held == ["earlier", "old"]


def test_debt_is_paid_without_a_plan_to_carry_out(bench: Bench) -> None:
    owed = [step(StepKind.UNLOAD, "earlier")]
    assert put_back(owed, bench.activate("new"), bench.runtime, bench.effects) == (True, "Earlier was put back.")
    assert bench.held == ["earlier", "old"]


def test_failed_restart_says_that_the_model_stays_unloaded(bench: Bench) -> None:
    bench.world.failures["old"] = Failure()
    outcome = bench.run(bench.switch(target="old", kind=JobKind.RESTART))
    assert (outcome.state, outcome.rolled_back, outcome.aftermath) == (JobState.FAILED, None, "Old stays unloaded.")


def test_failed_preload_touches_nothing_else(bench: Bench) -> None:
    bench.world.silent.add("new")
    outcome = bench.run(bench.preload())
    assert (outcome.state, outcome.rolled_back, outcome.aftermath) == (JobState.FAILED, None, "")
    assert (bench.held, bench.effects.active) == (["old"], "old")


# Unloads that fail


def test_model_that_does_not_unload_serves_on(bench: Bench) -> None:
    bench.world.stuck_unloads.add("old")
    outcome = bench.run()
    assert (outcome.error_code, outcome.rolled_back) == (ErrorCode.UNLOAD_FAILED, True)
    assert outcome.aftermath == "Old stays loaded."
    assert bench.calls == ["unloading old", "kept old", "activate old"]
    assert bench.effects.active == "old"


def test_model_whose_runtime_went_away_at_the_unload_counts_as_there(bench: Bench) -> None:
    original = bench.null.unload

    def unload(instance_id: str) -> None:
        bench.world.is_away = True
        original(instance_id)

    bench.when_unloading(unload)
    outcome = bench.run()
    assert (outcome.error_code, outcome.aftermath) == (ErrorCode.RUNTIME_UNREACHABLE, "Old stays loaded.")
    assert bench.effects.active == "old"


def test_model_that_died_of_a_failed_unload_is_put_back(bench: Bench) -> None:
    def unload(instance_id: str) -> None:
        bench.world.crash(instance_id)
        raise UnloadFailed("It broke.")

    bench.when_unloading(unload)
    outcome = bench.run()
    assert (outcome.error_code, outcome.aftermath) == (ErrorCode.UNLOAD_FAILED, "Old was put back.")
    assert bench.effects.active == "old"


def test_model_that_neither_goes_nor_answers_is_told_and_the_default_model_serves(bench: Bench) -> None:
    def unload(instance_id: str) -> None:
        bench.world.put(replace(bench.world.instances[instance_id], is_ready=False))
        raise UnloadFailed("It outlived SIGKILL.")

    bench.when_unloading(unload)
    bench.fallback = "default"
    outcome = bench.run()
    assert outcome.rolled_back is False
    assert outcome.aftermath == "Old neither goes nor answers. Default, the default model, was loaded instead."
    assert bench.effects.active == "default"


def test_unload_all_that_fails_halfway_says_what_is_gone_and_what_is_not(bench: Bench) -> None:
    bench.hold("other")
    bench.world.stuck_unloads.add("other")
    outcome = bench.run(bench.unload("old", "other"))
    assert (outcome.state, outcome.error_code) == (JobState.FAILED, ErrorCode.UNLOAD_FAILED)
    assert outcome.aftermath == "Other stays loaded. Old stays unloaded."


# The default model


def lose_everything(bench: Bench) -> None:
    bench.world.failures = {"new": Failure(), "old": Failure(ErrorCode.OUT_OF_MEMORY)}


def test_default_model_serves_when_nothing_can_be_put_back(bench: Bench) -> None:
    lose_everything(bench)
    bench.fallback = "default"
    outcome = bench.run()
    assert outcome.aftermath == (
        "Old could not be put back (out of memory). Default, the default model, was loaded instead."
    )
    assert outcome.rolled_back is False
    assert bench.calls[-3:] == ["loading default", "loaded default", "activate default"]


def test_default_model_that_is_loaded_already_is_only_made_active(bench: Bench) -> None:
    bench.hold("default")
    lose_everything(bench)
    bench.fallback = "default"
    assert bench.run().aftermath.endswith("Default, the default model, is active instead.")
    assert bench.calls[-1] == "activate default"
    assert "loading default" not in bench.calls


def test_default_model_that_fails_too_is_told(bench: Bench) -> None:
    lose_everything(bench)
    bench.world.failures["default"] = Failure(ErrorCode.FILE_DAMAGED)
    bench.fallback = "default"
    assert bench.run().aftermath.endswith("Default, the default model, could not be loaded either (files damaged).")
    assert (bench.held, bench.effects.active) == ([], "")


@pytest.mark.parametrize("fallback", ["", "new", "old"])
def test_what_has_just_failed_is_no_default(bench: Bench, fallback: str) -> None:
    lose_everything(bench)
    bench.fallback = fallback
    assert bench.run().aftermath == "Old could not be put back (out of memory)."


def test_default_model_is_left_alone_while_another_one_serves(bench: Bench) -> None:
    bench.hold("other")
    bench.world.failures = {"new": Failure(), "other": Failure()}
    bench.fallback = "default"
    outcome = bench.run(bench.switch("other"))
    assert outcome.aftermath == "Other could not be put back (did not load)."
    assert bench.effects.active == "old"


def test_default_model_serves_after_a_restart_that_failed(bench: Bench) -> None:
    bench.world.failures["old"] = Failure()
    bench.fallback = "default"
    outcome = bench.run(bench.switch(target="old", kind=JobKind.RESTART))
    assert outcome.aftermath == "Old stays unloaded. Default, the default model, was loaded instead."


def test_default_model_stays_away_after_a_restart_that_was_cancelled(bench: Bench) -> None:
    bench.fallback = "default"
    bench.cancel_at("Asking Old for a first token")
    outcome = bench.run(bench.switch(target="old", kind=JobKind.RESTART))
    assert (outcome.state, outcome.aftermath) == (JobState.CANCELLED, "Old stays unloaded.")
    assert bench.held == []


# A job that takes over on the way


def test_way_back_ends_when_another_job_takes_over(bench: Bench) -> None:
    bench.hold("other")
    bench.world.failures["new"] = Failure()
    bench.world.stalls["old"] = 0.5
    bench.world.load_seconds = 0.05
    is_coming_back = lambda: any(r.fraction == 0.5 and r.text == "Loading Old" for r in bench.effects.reports)  # noqa: E731
    bench.effects.cancel_when = bench.effects.superseded_when = is_coming_back
    bench.fallback = "default"
    outcome = bench.run(bench.switch("old", "other"))
    assert (outcome.state, outcome.rolled_back) == (JobState.FAILED, None)
    assert outcome.aftermath == "Other was put back. Another switch took over before Old could be put back."
    assert bench.held == ["other"]


def test_cancelled_job_that_is_taken_over_on_its_way_back_ends_as_superseded(bench: Bench) -> None:
    bench.cancel_at("Asking New for a first token")
    bench.effects.superseded_when = lambda: "loading old" in bench.calls
    bench.effects.slow.add("loading old")  # looked for now and then only
    outcome = bench.run()
    assert (outcome.state, outcome.rolled_back) == (JobState.SUPERSEDED, None)
    assert outcome.aftermath == "Another switch took over before Old could be put back."
    assert bench.held == []


def test_failure_of_a_superseded_job_puts_nothing_back(bench: Bench) -> None:
    bench.effects.superseded_when = lambda: True
    bench.world.failures["new"] = Failure(ErrorCode.OUT_OF_MEMORY)
    outcome = bench.run()
    assert (outcome.state, outcome.rolled_back, outcome.aftermath) == (JobState.FAILED, None, "")
    assert bench.held == []


def test_runtime_that_goes_away_in_mid_load_is_told_with_what_is_lost(bench: Bench) -> None:
    original = bench.null.load

    def load(request: LoadRequest, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        yield next(original(request, is_cancelled))
        bench.world.is_away = True
        raise RuntimeAway("It hung up.")

    bench.null.load = load  # type: ignore[method-assign]
    outcome = bench.run()
    assert outcome.error_code == ErrorCode.RUNTIME_UNREACHABLE
    assert outcome.aftermath == "Old could not be put back (runtime away)."
