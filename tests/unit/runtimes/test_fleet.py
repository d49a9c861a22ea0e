"""Several runtimes behave as one, and one that is away takes nothing from the others."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gantry.engine.runner import run_plan
from gantry.planning.states import ErrorCode, JobKind, JobState, StepKind
from gantry.planning.types import LoadedModel, PlanStep, SwitchPlan, TimeRange
from gantry.runtimes.base import AvailableModel, LoadRequest, ProgressKind, RunningInstance
from gantry.runtimes.exceptions import RuntimeAway, VerifyFailed
from gantry.runtimes.fleet import Fleet, find_instance
from gantry.runtimes.null import NullRuntime, reset_null_worlds
from gantry.runtimes.registry import RuntimeConfig
from tests.fakes.effects import RecordingEffects

MODELS = {"left-model": "left", "right-model": "right"}


class Pair:
    """Two null runtimes with a model each, and a fleet of them that knows only whose model is whose."""

    def __init__(self, folder: Path) -> None:
        self.left = NullRuntime(RuntimeConfig("left", "null", state_dir=folder / "left"))
        self.right = NullRuntime(RuntimeConfig("right", "null", state_dir=folder / "right"))
        self.fleet = self.make()

    def make(self, **owners: str) -> Fleet:
        return Fleet({"left": self.left, "right": self.right}, MODELS.get, owner_of=owners)

    def load(self, model_id: str) -> str:
        request = request_for(model_id)
        list(self.fleet.load(request, lambda: False))
        return request.instance_id


def request_for(model_id: str) -> LoadRequest:
    return LoadRequest(str(uuid.uuid4()), model_id, Path(f"{model_id}.gguf"), 1000)


def ids(instances: object) -> set[str]:
    assert isinstance(instances, list | tuple)
    return {instance.model_id for instance in instances}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    yield Pair(tmp_path)
    reset_null_worlds()


def test_model_is_checked_read_ahead_and_loaded_by_its_own_runtime(pair: Pair) -> None:
    request = request_for("right-model")
    pair.fleet.check_load(request)
    assert pair.fleet.prefetch(request, lambda: False) == 1000
    assert [sign.fraction for sign in pair.fleet.load(request, lambda: False)][-1] == 1.0
    assert (ids(pair.left.running()), ids(pair.right.running())) == (set(), {"right-model"})
    assert pair.right.world.prefetched == ["right-model"]


def test_model_is_prepared_by_its_own_runtime_and_dropped_by_whoever_prepared_it(pair: Pair) -> None:
    pair.fleet.prepare(request_for("right-model"))
    assert (list(pair.left.world.prepared), list(pair.right.world.prepared.values())) == ([], ["right-model"])
    pair.fleet.prepare(request_for("stranger"))  # may not fail anybody
    pair.fleet.drop_prepared()
    assert (pair.right.world.prepared, pair.right.world.drops) == ({}, ["right-model"])


def test_it_holds_what_all_of_them_hold(pair: Pair) -> None:
    pair.load("left-model")
    pair.load("right-model")
    assert ids(pair.fleet.running()) == {"left-model", "right-model"}


def test_instance_is_asked_of_the_one_that_has_it(pair: Pair) -> None:
    instance_id = pair.load("right-model")
    pair.right.world.busy["right-model"] = 3
    fleet = pair.make()  # one that has not seen the load
    assert fleet.busy_count(instance_id) == 3
    assert fleet.verify(instance_id).text
    assert fleet.log_tail(instance_id) == ("null: right-model",)
    fleet.unload(instance_id)
    assert fleet.running() == []


def test_owner_is_looked_for_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    instance_id = pair.load("right-model")
    looks: list[str] = []
    original = pair.left.running

    def running() -> Sequence[RunningInstance]:
        looks.append("left")
        return original()

    monkeypatch.setattr(pair.left, "running", running)
    fleet = pair.make()
    for _ in range(3):
        fleet.busy_count(instance_id)
    assert looks == ["left"]


def test_known_owner_is_not_looked_for(pair: Pair) -> None:
    instance_id = pair.load("right-model")
    pair.left.world.is_away = True
    pair.right.world.busy["right-model"] = 1
    assert pair.make(**{instance_id: "right"}).busy_count(instance_id) == 1


def test_owner_that_is_no_part_of_the_fleet_is_looked_for(pair: Pair) -> None:
    instance_id = pair.load("left-model")
    pair.make(**{instance_id: "sold"}).unload(instance_id)
    assert pair.left.running() == ()


def test_dead_instance_is_forgotten_by_the_one_that_had_it(pair: Pair) -> None:
    instance_id = pair.load("left-model")
    pair.left.world.crash(instance_id)
    pair.fleet.forget(instance_id)
    assert pair.fleet.running() == []


def test_instance_that_nobody_has_is_unloaded_idle_and_silent(pair: Pair) -> None:
    pair.fleet.unload("nobody")
    pair.fleet.forget("nobody")
    assert (pair.fleet.busy_count("nobody"), pair.fleet.log_tail("nobody"), pair.fleet.find("nobody")) == (0, (), None)
    with pytest.raises(VerifyFailed):
        pair.fleet.verify("nobody")


def test_one_that_is_away_does_not_hide_the_others(pair: Pair) -> None:
    pair.load("left-model")
    pair.load("right-model")
    pair.left.world.is_away = True
    assert ids(pair.fleet.running()) == {"right-model"}


def test_all_away_is_away(pair: Pair) -> None:
    pair.left.world.is_away = pair.right.world.is_away = True
    with pytest.raises(RuntimeAway):
        pair.fleet.running()


def test_model_of_one_that_is_away_is_not_called_dead(pair: Pair) -> None:
    left, right = pair.load("left-model"), pair.load("right-model")
    pair.left.world.is_away = True
    with pytest.raises(RuntimeAway):
        find_instance(pair.fleet, left)
    with pytest.raises(RuntimeAway):
        pair.make().unload(left)  # nobody that answers has it; the other one may
    assert find_instance(pair.fleet, right) is not None


def test_found_instance_is_the_same_with_and_without_a_fleet(pair: Pair) -> None:
    instance_id = pair.load("left-model")
    assert find_instance(pair.fleet, instance_id) == find_instance(pair.left, instance_id) != None  # noqa: E711
    assert find_instance(pair.left, "nobody") is None


def test_model_that_none_of_them_serves_is_refused_and_not_read_ahead(pair: Pair) -> None:
    stranger = request_for("stranger")
    for ask in (lambda: pair.fleet.check_load(stranger), lambda: list(pair.fleet.load(stranger, lambda: False))):
        with pytest.raises(RuntimeAway, match="No runtime of this pool serves stranger"):
            ask()
    assert pair.fleet.prefetch(stranger, lambda: False) == 0


def test_caller_is_asked_once_for_a_model(pair: Pair) -> None:
    asked: list[str] = []

    def runtime_of(model_id: str) -> str | None:
        asked.append(model_id)
        return MODELS.get(model_id)

    fleet = Fleet({"left": pair.left, "right": pair.right}, runtime_of)
    for _ in range(2):
        fleet.check_load(request_for("left-model"))
    assert asked == ["left-model"]


def test_models_are_those_of_all(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair.left, "models", lambda: [AvailableModel("offered")])
    assert pair.fleet.models() == [AvailableModel("offered")]


def test_capabilities_are_the_targets_or_what_all_can_do(pair: Pair) -> None:
    pair.right.capabilities = replace(pair.right.capabilities, can_cancel_load=False, progress=ProgressKind.STEPS)
    runtimes = {"left": pair.left, "right": pair.right}
    assert Fleet(runtimes, MODELS, target_id="left-model").capabilities == pair.left.capabilities
    together = pair.make().capabilities
    assert (together.can_cancel_load, together.holds_many, together.progress) == (False, True, ProgressKind.NONE)


def test_fleet_is_usable_while_one_of_them_is(pair: Pair) -> None:
    assert (pair.fleet.check().is_ok, pair.fleet.check().detail) == (True, "")
    pair.left.world.is_away = True
    health = pair.fleet.check()
    assert (health.is_ok, health.detail) == (True, "left: The null runtime was told to be away.")
    pair.right.world.is_away = True
    assert (pair.fleet.check().is_ok, pair.fleet.check().code) == (False, ErrorCode.RUNTIME_UNREACHABLE)


def test_switch_from_a_model_of_one_to_a_model_of_the_other(pair: Pair) -> None:
    instance_id = pair.load("left-model")
    effects = RecordingEffects(active="left-model")
    effects.models[instance_id] = "left-model"
    outcome = run_plan(switch_plan(instance_id), pair.make(**{instance_id: "left"}), effects)
    assert outcome.state == JobState.SUCCEEDED
    assert (ids(pair.left.running()), ids(pair.right.running())) == (set(), {"right-model"})


def test_switch_whose_target_is_away_costs_the_other_nothing(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    instance_id = pair.load("left-model")
    effects = RecordingEffects(active="left-model")
    effects.models[instance_id] = "left-model"
    monkeypatch.setattr(pair.right, "check_load", away)
    outcome = run_plan(switch_plan(instance_id), pair.fleet, effects)
    assert (outcome.error_code, outcome.aftermath) == (ErrorCode.RUNTIME_UNREACHABLE, "")
    assert ids(pair.left.running()) == {"left-model"}


def away(_request: LoadRequest) -> None:
    raise RuntimeAway


def switch_plan(instance_id: str) -> SwitchPlan:
    old = LoadedModel(instance_id, "left-model", "Left", 1000, 0.0, is_active=True)
    steps = [
        PlanStep(StepKind.DRAIN, "left-model", "Left", instance_id, 0.0),
        PlanStep(StepKind.UNLOAD, "left-model", "Left", instance_id, 1.0),
        PlanStep(StepKind.FREE, "", "", "", 0.3),
        PlanStep(StepKind.LOAD, "right-model", "Right", "", 1.0),
        PlanStep(StepKind.VERIFY, "right-model", "Right", "", 0.5),
    ]
    times = TimeRange(1.0, 1.0, 1.0, 1)
    return SwitchPlan(JobKind.SWITCH, "right-model", "Right", tuple(steps), (old,), 1000, 0, 1000, 2000, times)


def test_instance_seen_in_the_whole_is_remembered(pair: Pair) -> None:
    instance_id = pair.load("right-model")
    fleet = pair.make()
    (seen,) = fleet.running()
    assert isinstance(seen, RunningInstance)
    pair.left.world.is_away = True  # asking around would meet it
    assert fleet.busy_count(instance_id) == 0
    fleet.unload(instance_id)
    assert pair.right.running() == ()
