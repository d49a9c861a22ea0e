"""The engine, on the null runtime, with effects that only write down."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from gantry.engine.runner import Limits, Outcome, run_plan
from gantry.planning.planner import plan_restart, plan_switch, plan_unload
from gantry.planning.states import ErrorCode, JobState, StepState
from gantry.planning.types import LoadedModel, MemoryBudget, ModelSpec, SwitchPlan, TimeRange
from gantry.runtimes.base import LoadRequest
from gantry.runtimes.exceptions import RuntimeAway
from gantry.runtimes.null import Failure, NullRuntime, NullWorld, null_world
from gantry.runtimes.registry import RuntimeConfig
from tests.fakes.effects import RecordingEffects

GB = 10**9


class Bench:
    """A null runtime that holds `old`, and a plan that puts `new` in its place."""

    def __init__(self, folder: Path) -> None:
        self.world: NullWorld = null_world(folder)
        self.runtime = NullRuntime(RuntimeConfig("null", "null", state_dir=folder))
        self.effects = RecordingEffects(active="old")
        self.old_id = self.hold("old")

    def hold(self, model_id: str) -> str:
        request = LoadRequest(str(uuid.uuid4()), model_id, Path(f"{model_id}.gguf"), 6 * GB)
        list(self.runtime.load(request, lambda: False))
        return request.instance_id

    @property
    def held(self) -> list[str]:
        return sorted(instance.model_id for instance in self.runtime.running() if instance.is_alive)

    def loaded_old(self) -> LoadedModel:
        return LoadedModel(self.old_id, "old", "Old", 6 * GB, 0.0, is_active=True)

    def switch_plan(self) -> SwitchPlan:
        return plan_switch(spec("new"), [self.loaded_old()], MemoryBudget(10 * GB, 4 * GB))

    def run(self, plan: SwitchPlan | None = None, limits: Limits | None = None) -> Outcome:
        return run_plan(plan or self.switch_plan(), self.runtime, self.effects, limits)


def spec(model_id: str) -> ModelSpec:
    return ModelSpec(model_id, model_id.capitalize(), 6 * GB, 5 * GB, TimeRange(2.0, 1.0, 3.0, 2))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_switch_unloads_loads_verifies_then_activates(bench: Bench) -> None:
    outcome = bench.run()
    assert outcome == Outcome(JobState.SUCCEEDED, "New is active")
    assert bench.held == ["new"]
    assert bench.effects.calls == [f"unloading {bench.old_id}", "gone", "loading new", "loaded new", "activate new"]
    assert bench.effects.states == [JobState.DRAINING, JobState.UNLOADING, JobState.LOADING, JobState.WARMING]


def test_percent_never_falls_and_stays_below_hundred(bench: Bench) -> None:
    bench.world.load_seconds = 0.2
    bench.run()
    percents = [report.percent for report in bench.effects.reports]
    assert percents == sorted(percents)
    assert percents[-1] < 100
    assert any(0 < report.fraction < 1 for report in bench.effects.reports)


def test_failed_load_puts_the_old_model_back_and_makes_it_active(bench: Bench) -> None:
    bench.world.failures["new"] = Failure(ErrorCode.OUT_OF_MEMORY, 0.0)
    outcome = bench.run()
    assert (outcome.state, outcome.error_code) == (JobState.FAILED, ErrorCode.OUT_OF_MEMORY)
    assert (outcome.rolled_back, outcome.aftermath) == (True, "Old was put back.")
    assert bench.held == ["old"]
    assert bench.effects.active == "old"


def test_model_that_gives_no_token_is_never_activated(bench: Bench) -> None:
    bench.world.silent.add("new")
    outcome = bench.run()
    assert outcome.error_code == ErrorCode.VERIFY_FAILED
    assert "activate new" not in bench.effects.calls
    assert bench.held == ["old"]


def test_target_that_the_runtime_refuses_costs_nothing(bench: Bench) -> None:
    bench.world.refused["new"] = ErrorCode.BAD_PARAMETER
    outcome = bench.run()
    assert (outcome.state, outcome.error_code, outcome.aftermath) == (JobState.FAILED, ErrorCode.BAD_PARAMETER, "")
    assert bench.held == ["old"]
    assert bench.effects.calls == []
    assert [(report.index, report.state) for report in bench.effects.reports] == [(3, StepState.FAILED)]  # the load


def test_rollback_that_fails_too_says_so(bench: Bench) -> None:
    bench.world.failures = {"new": Failure(), "old": Failure()}
    outcome = bench.run()
    assert (outcome.rolled_back, outcome.aftermath) == (False, "Old could not be put back.")
    assert bench.held == []
    assert bench.effects.reports[-1].state == StepState.FAILED


def test_cancel_while_draining_changes_nothing(bench: Bench) -> None:
    bench.world.busy["old"] = 1
    bench.effects.cancel_when = lambda: len(bench.effects.reports) > 2
    outcome = bench.run()
    assert outcome.state == JobState.CANCELLED
    assert bench.held == ["old"]
    assert bench.effects.calls == []


def test_cancel_in_mid_load_puts_the_old_model_back(bench: Bench) -> None:
    bench.world.stalls["new"] = 0.5
    bench.world.load_seconds = 0.05
    bench.effects.cancel_when = lambda: any(0 < report.fraction < 1 for report in bench.effects.reports)
    outcome = bench.run()
    assert (outcome.state, outcome.aftermath) == (JobState.CANCELLED, "Old was put back.")
    assert bench.held == ["old"]


def test_drain_waits_for_answers_and_then_goes_on(bench: Bench) -> None:
    bench.world.busy["old"] = 2
    original = bench.effects.sleep

    def sleep(seconds: float) -> None:
        original(seconds)
        if bench.effects.monotonic() > 1:
            bench.world.busy["old"] = 0

    bench.effects.sleep = sleep  # type: ignore[method-assign]
    assert bench.run().state == JobState.SUCCEEDED
    assert any(report.text == "Finishing 2 answers" for report in bench.effects.reports)


def test_drain_cuts_off_after_its_limit(bench: Bench) -> None:
    bench.world.busy["old"] = 1
    assert bench.run(limits=Limits(drain_seconds=0.5)).state == JobState.SUCCEEDED
    assert any("cut off" in report.text for report in bench.effects.reports)


def test_stalled_load_ends_with_its_own_code(bench: Bench) -> None:
    bench.world.stalls["new"] = 0.3
    outcome = bench.run(limits=Limits(stall_seconds=0.05))
    assert outcome.error_code == ErrorCode.LOAD_STALLED
    assert bench.held == ["old"]


def test_memory_that_does_not_come_back_fails_the_job(bench: Bench) -> None:
    bench.effects = RecordingEffects(free=lambda: 4 * GB, active="old")
    outcome = bench.run(limits=Limits(free_seconds=1.0))
    assert outcome.error_code == ErrorCode.MEMORY_NOT_FREED
    assert "2.0 GB are still missing after 1 s." in outcome.error_text


def test_unload_leaves_nothing_and_activates_nothing(bench: Bench) -> None:
    outcome = bench.run(plan_unload(bench.loaded_old(), MemoryBudget(10 * GB, 4 * GB)))
    assert outcome == Outcome(JobState.SUCCEEDED, "Old is unloaded")
    assert bench.held == []
    assert bench.effects.active == "old"  # the record went with the instance; nothing else was made active


def test_restart_loads_the_same_model_again(bench: Bench) -> None:
    outcome = bench.run(plan_restart(spec("old"), bench.loaded_old(), MemoryBudget(10 * GB, 4 * GB)))
    assert outcome.state == JobState.SUCCEEDED
    assert bench.held == ["old"]
    assert bench.runtime.running()[0].instance_id != bench.old_id


def test_restart_that_fails_says_that_the_model_stays_unloaded(bench: Bench) -> None:
    bench.world.failures["old"] = Failure()
    outcome = bench.run(plan_restart(spec("old"), bench.loaded_old(), MemoryBudget(10 * GB, 4 * GB)))
    assert (outcome.state, outcome.aftermath) == (JobState.FAILED, "Old stays unloaded.")


def test_model_that_dies_right_after_loading_is_a_failed_load(bench: Bench) -> None:
    original = bench.runtime.running

    def running() -> object:
        for instance in original():
            if instance.model_id == "new" and instance.is_alive:
                bench.world.crash(instance.instance_id)
        return original()

    bench.runtime.running = running  # type: ignore[method-assign,assignment]
    outcome = bench.run()
    assert outcome.error_code == ErrorCode.LOAD_FAILED
    assert bench.held == ["old"]


def test_failure_of_a_superseded_job_puts_nothing_back(bench: Bench) -> None:
    bench.effects.superseded = True
    bench.world.failures["new"] = Failure(ErrorCode.OUT_OF_MEMORY)
    outcome = bench.run()
    assert (outcome.state, outcome.rolled_back) == (JobState.FAILED, None)
    assert bench.held == []


def test_model_that_does_not_tell_how_busy_it_is_can_be_switched_away_from(bench: Bench) -> None:
    def away(_instance_id: str) -> int:
        raise RuntimeAway

    bench.runtime.busy_count = away  # type: ignore[method-assign,assignment]
    assert bench.run().state == JobState.SUCCEEDED
