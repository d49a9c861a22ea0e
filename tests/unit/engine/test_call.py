"""Switch, one call, and everything back as it was."""

from __future__ import annotations

import pytest

from gantry.planning.states import ErrorCode, JobState
from gantry.runtimes.exceptions import RuntimeFault
from gantry.runtimes.null import Failure
from tests.unit.engine.bench import Bench


def test_call_brings_everything_back_and_activates_the_target_never(bench: Bench) -> None:
    outcome = bench.run(bench.call("old"))
    assert (outcome.state, outcome.text) == (JobState.SUCCEEDED, "New has answered")
    assert (outcome.rolled_back, outcome.aftermath) == (True, "Old was put back.")
    assert (bench.held, bench.effects.active) == (["old"], "old")
    assert [call for call in bench.calls if not call.startswith("add")] == [
        "unloading old", "gone old", "loading new", "loaded new", "call new",
        "unloading new", "gone new", "loading old", "loaded old", "activate old",
    ]  # fmt: skip


def test_target_that_was_loaded_before_stays(bench: Bench) -> None:
    bench.hold("new")
    outcome = bench.run(bench.call())
    assert (outcome.text, outcome.rolled_back, outcome.aftermath) == ("New has answered", None, "")
    assert (bench.held, bench.effects.active, bench.calls) == (["new", "old"], "old", ["call new"])


def test_target_that_fitted_beside_the_others_goes_again(bench: Bench) -> None:
    outcome = bench.run(bench.call())
    assert (outcome.state, outcome.rolled_back, outcome.downtime_seconds) == (JobState.SUCCEEDED, None, 0.0)
    assert (bench.held, bench.effects.active) == (["old"], "old")


def test_call_that_fails_brings_everything_back(bench: Bench) -> None:
    bench.effects.call_fault = RuntimeFault("New went silent.", code=ErrorCode.CALL_FAILED)
    outcome = bench.run(bench.call("old"))
    assert (outcome.state, outcome.error_code) == (JobState.FAILED, ErrorCode.CALL_FAILED)
    assert outcome.error_text.endswith("New went silent.")
    assert (outcome.rolled_back, outcome.aftermath) == (True, "Old was put back.")
    assert (bench.held, bench.effects.active) == (["old"], "old")


def test_call_that_fails_leaves_a_target_that_was_loaded_before(bench: Bench) -> None:
    bench.hold("new")
    bench.effects.call_fault = RuntimeFault(code=ErrorCode.CALL_FAILED)
    assert bench.run(bench.call()).state == JobState.FAILED
    assert bench.held == ["new", "old"]


def test_target_that_has_gone_before_the_call_is_told(bench: Bench) -> None:
    bench.hold("new")
    plan = bench.call()
    bench.world.crash(bench.instance("new").instance_id)
    outcome = bench.run(plan)
    assert (outcome.error_code, outcome.aftermath) == (ErrorCode.CALL_FAILED, "")
    assert "New is not loaded any more." in outcome.error_text


@pytest.mark.parametrize("moment", ["Loading New", "Asking New for a first token", "New is answering"])
def test_cancelled_call_brings_everything_back(bench: Bench, moment: str) -> None:
    bench.cancel_at(moment)
    outcome = bench.run(bench.call("old"))
    assert (outcome.state, outcome.rolled_back) == (JobState.CANCELLED, True)
    assert (bench.held, bench.effects.active) == (["old"], "old")


def test_call_that_was_answered_counts_also_when_it_is_cancelled_after_that(bench: Bench) -> None:
    bench.cancel_at("New has answered")
    outcome = bench.run(bench.call("old"))
    assert (outcome.state, outcome.aftermath) == (JobState.SUCCEEDED, "Old was put back.")


def test_answer_is_kept_and_the_loss_told_when_the_former_model_does_not_come_back(bench: Bench) -> None:
    bench.world.failures["old"] = Failure(ErrorCode.OUT_OF_MEMORY)
    bench.fallback = "default"
    outcome = bench.run(bench.call("old"))
    assert (outcome.state, outcome.rolled_back) == (JobState.SUCCEEDED, False)
    assert outcome.aftermath.startswith("Old could not be put back (out of memory). Default, the default model,")
    assert bench.effects.active == "default"


def test_target_that_does_not_go_after_the_call_is_told(bench: Bench) -> None:
    bench.world.stuck_unloads.add("new")
    outcome = bench.run(bench.call())
    assert (outcome.state, outcome.rolled_back) == (JobState.SUCCEEDED, False)
    assert outcome.aftermath == "New could not be unloaded."
