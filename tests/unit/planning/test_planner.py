from __future__ import annotations

from itertools import chain, combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.exceptions import DoesNotFit
from gantry.planning.planner import PlanPolicy, plan_restart, plan_switch, plan_unload
from gantry.planning.states import JobKind, StepKind
from gantry.planning.types import LoadedModel, MemoryBudget, ModelSpec, SwitchPlan, TimeRange

MIB = 1024**2
TIMES = TimeRange(4.0, 3.0, 6.0, 2)


def spec(need_bytes: int, model_id: str = "target", *, is_measured: bool = False) -> ModelSpec:
    return ModelSpec(model_id, model_id.upper(), need_bytes, need_bytes, TIMES, is_measured)


def held(model_id: str, held_bytes: int, **values: object) -> LoadedModel:
    fields = {"last_used": 0.0, **values}
    return LoadedModel(f"instance-{model_id}", model_id, model_id.upper(), held_bytes, **fields)  # type: ignore[arg-type]


def evicted(
    plan_target: ModelSpec, loaded: list[LoadedModel], free: int, active_is_replaced: bool = False
) -> list[str]:
    policy = PlanPolicy(keeps_former=not active_is_replaced)
    plan = plan_switch(plan_target, loaded, MemoryBudget(1000, free), policy=policy)
    return [model.model_id for model in plan.evicted]


def test_target_that_fits_evicts_nothing() -> None:
    plan = plan_switch(spec(10), [held("a", 50)], MemoryBudget(100, 10))
    assert [step.kind for step in plan.steps] == [StepKind.LOAD, StepKind.VERIFY]
    assert (plan.needed_bytes, plan.free_bytes, plan.freed_bytes, plan.total_bytes) == (10, 10, 0, 100)


def test_largest_goes_first() -> None:
    assert evicted(spec(30), [held("small", 20), held("large", 40), held("middle", 30)], free=0) == ["large"]


def test_of_equals_the_one_unused_for_longest_goes() -> None:
    assert evicted(spec(20), [held("new", 20, last_used=9.0), held("old", 20, last_used=1.0)], free=0) == ["old"]


def test_busy_model_goes_last() -> None:
    assert evicted(spec(10), [held("busy", 90, is_busy=True), held("idle", 10)], free=0) == ["idle"]


def test_large_busy_model_spares_the_small_idle_one() -> None:
    assert evicted(spec(50), [held("idle", 2), held("busy", 60, is_busy=True)], free=0) == ["busy"]


def test_pinned_model_stays_and_error_says_what_could_be_freed() -> None:
    loaded = [held("pinned", 90, is_pinned=True), held("a", 5)]
    with pytest.raises(DoesNotFit) as caught:
        plan_switch(spec(20), loaded, MemoryBudget(100, 3))
    assert (caught.value.required_bytes, caught.value.available_bytes, caught.value.freeable_bytes) == (20, 3, 5)


def test_everything_is_drained_before_anything_is_unloaded() -> None:
    plan = plan_switch(spec(70), [held("a", 40), held("b", 30, is_busy=True)], MemoryBudget(100, 0))
    steps = [(step.kind.value, step.model_id, step.expected_seconds) for step in plan.steps]
    assert steps == [
        ("drain", "a", 0.0),
        ("drain", "b", 5.0),
        ("unload", "a", 1.0),
        ("unload", "b", 1.0),
        ("free", "", 0.3),
        ("load", "target", 4.0),
        ("verify", "target", 0.5),
    ]
    assert plan.load_time == TIMES
    assert plan.freed_bytes == 70


def test_loaded_target_needs_no_step() -> None:
    plan = plan_switch(spec(500), [held("target", 50)], MemoryBudget(100, 0))
    assert (plan.steps, plan.evicted, plan.needed_bytes, plan.target_id) == ((), (), 0, "target")


def test_replaced_active_model_goes_even_where_both_fit() -> None:
    loaded = [held("active", 10, is_active=True), held("other", 50)]
    assert evicted(spec(5), loaded, free=90, active_is_replaced=True) == ["active"]
    assert evicted(spec(5), loaded, free=90) == []


def test_replaced_active_model_stays_when_pinned() -> None:
    pinned = held("active", 10, is_active=True, is_pinned=True)
    assert evicted(spec(5), [pinned], free=90, active_is_replaced=True) == []


def test_unload_frees_even_a_pinned_model() -> None:
    plan = plan_unload(held("a", 40, is_pinned=True), MemoryBudget(100, 10))
    assert [step.kind for step in plan.steps] == [StepKind.DRAIN, StepKind.UNLOAD, StepKind.FREE]
    assert (plan.kind, plan.target_id, plan.needed_bytes, plan.freed_bytes) == (JobKind.UNLOAD, "", 0, 40)


def test_restart_unloads_and_loads_the_same_model() -> None:
    plan = plan_restart(spec(40, "a"), held("a", 40), MemoryBudget(100, 10))
    assert [step.kind.value for step in plan.steps] == ["drain", "unload", "free", "load", "verify"]
    assert plan.kind == JobKind.RESTART


def test_restart_of_a_crashed_model_only_loads() -> None:
    plan = plan_restart(spec(40, "a"), None, MemoryBudget(100, 50))
    assert [step.kind for step in plan.steps] == [StepKind.LOAD, StepKind.VERIFY]


def test_restart_with_larger_need_is_refused() -> None:
    with pytest.raises(DoesNotFit):
        plan_restart(spec(60, "a"), held("a", 40), MemoryBudget(50, 10))


def test_restart_of_a_measured_model_is_not_refused_for_its_margin() -> None:
    assert plan_restart(spec(41, "a", is_measured=True), held("a", 40), MemoryBudget(40, 0)).steps


def test_restart_with_other_parameters_needs_all_that_was_measured_with_them() -> None:
    with pytest.raises(DoesNotFit):
        plan_restart(spec(1000 * MIB, "a", is_measured=True), held("a", 500 * MIB), MemoryBudget(1000 * MIB, 100 * MIB))


def test_restart_of_what_nobody_can_measure_is_not_refused() -> None:
    assert plan_restart(spec(41, "a", is_measured=True), held("a", 0), MemoryBudget(40, 0)).steps


models = st.builds(
    held,
    st.text("abcdef", min_size=1, max_size=3),
    st.integers(0, 60),
    last_used=st.floats(0, 100),
    is_busy=st.booleans(),
    is_pinned=st.booleans(),
)
loaded_sets = st.lists(models, max_size=6, unique_by=lambda model: model.model_id)


@given(loaded_sets, st.integers(0, 200), st.integers(0, 80))
def test_refused_exactly_when_no_allowed_set_suffices(loaded: list[LoadedModel], need: int, free: int) -> None:
    allowed = [model for model in loaded if not model.is_pinned]
    sets = chain.from_iterable(combinations(allowed, size) for size in range(len(allowed) + 1))
    if any(free + sum(model.held_bytes for model in chosen) >= need for chosen in sets):
        plan_switch(spec(need), loaded, MemoryBudget(1000, free))
        return
    with pytest.raises(DoesNotFit) as caught:
        plan_switch(spec(need), loaded, MemoryBudget(1000, free))
    assert caught.value.freeable_bytes == sum(model.held_bytes for model in allowed)


@given(loaded_sets, st.integers(0, 200), st.integers(0, 80), st.booleans())
def test_plan_evicts_no_pinned_model_and_none_in_vain(
    loaded: list[LoadedModel], need: int, free: int, active_is_replaced: bool
) -> None:
    try:
        policy = PlanPolicy(keeps_former=not active_is_replaced)
        plan = plan_switch(spec(need), loaded, MemoryBudget(1000, free), policy=policy)
    except DoesNotFit:
        return
    assert not any(model.is_pinned for model in plan.evicted)
    assert free + plan.freed_bytes >= need
    for model in plan.evicted:
        assert free + plan.freed_bytes - model.held_bytes < need, f"{model.model_id} need not go"
    idle = sum(model.held_bytes for model in loaded if not model.is_busy and not model.is_pinned)
    if free + idle >= need:
        assert not any(model.is_busy for model in plan.evicted)


@given(loaded_sets, st.integers(0, 200), st.integers(0, 80), st.randoms())
def test_plan_does_not_depend_on_the_order_of_the_loaded(
    loaded: list[LoadedModel], need: int, free: int, random: Random
) -> None:
    shuffled = list(loaded)
    random.shuffle(shuffled)
    plans: list[SwitchPlan | None] = []
    for order in (loaded, shuffled):
        try:
            plans.append(plan_switch(spec(need), order, MemoryBudget(1000, free)))
        except DoesNotFit:
            plans.append(None)
    assert plans[0] == plans[1]


@given(loaded_sets.filter(lambda loaded: not any(model.is_busy for model in loaded)), st.integers(1, 200))
def test_idle_models_go_in_order_of_size(loaded: list[LoadedModel], need: int) -> None:
    try:
        plan = plan_switch(spec(need), loaded, MemoryBudget(1000, 0))
    except DoesNotFit:
        return
    sizes = sorted((model.held_bytes for model in loaded if not model.is_pinned), reverse=True)
    assert [model.held_bytes for model in plan.evicted] == sizes[: len(plan.evicted)]
