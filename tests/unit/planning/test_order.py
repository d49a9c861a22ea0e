"""In which order things happen, who has to wait, and the plans that are no switch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.exceptions import DoesNotFit
from gantry.planning.planner import PlanPolicy, plan_preload, plan_switch, plan_unload_all
from gantry.planning.states import JobKind, LoadOrder, StepKind
from gantry.planning.types import LoadedModel, MemoryBudget
from tests.unit.planning.builders import held, loaded_sets, spec

FREE_FIRST = [StepKind.DRAIN, StepKind.UNLOAD, StepKind.FREE, StepKind.LOAD, StepKind.VERIFY]
LOAD_FIRST = [StepKind.LOAD, StepKind.VERIFY, StepKind.DRAIN, StepKind.UNLOAD, StepKind.FREE]
REPLACES = PlanPolicy(keeps_former=False)


def test_former_model_stays_where_both_fit() -> None:
    plan = plan_switch(spec(10), [held("former", 50, is_active=True)], MemoryBudget(100, 40))
    assert ([step.kind for step in plan.steps], plan.evicted) == ([StepKind.LOAD, StepKind.VERIFY], ())
    assert (plan.interrupts, plan.downtime_seconds) == (False, 0.0)


def test_former_model_goes_last_where_both_fit_and_policy_lets_it_go() -> None:
    plan = plan_switch(spec(10), [held("former", 50, is_active=True)], MemoryBudget(100, 40), policy=REPLACES)
    assert ([step.kind for step in plan.steps], plan.order) == (LOAD_FIRST, LoadOrder.LOAD_FIRST)
    assert (plan.interrupts, plan.downtime_seconds) == (False, 0.0)


def test_former_model_goes_first_where_both_do_not_fit() -> None:
    plan = plan_switch(spec(60), [held("former", 50, is_active=True)], MemoryBudget(100, 40), policy=REPLACES)
    assert ([step.kind for step in plan.steps], plan.order) == (FREE_FIRST, LoadOrder.FREE_FIRST)
    assert plan.interrupts


def test_pinned_former_model_stays_whatever_policy_says() -> None:
    former = held("former", 50, is_active=True, is_pinned=True)
    assert plan_switch(spec(10), [former], MemoryBudget(100, 40), policy=REPLACES).evicted == ()


def test_downtime_is_from_the_unloading_of_the_active_model_to_the_first_token() -> None:
    loaded = [
        held("idle", 30, unload_seconds=3.0),
        held("active", 50, is_active=True, is_busy=True, unload_seconds=2.0),
    ]
    budget = MemoryBudget(100, 0, free_seconds=0.5)
    plan = plan_switch(spec(70, verify_seconds=0.25), loaded, budget)
    assert [step.model_id for step in plan.steps if step.kind == StepKind.UNLOAD] == ["idle", "active"]
    assert plan.downtime_seconds == pytest.approx(2.0 + 0.5 + 4.0 + 0.25)
    assert plan.expected_seconds == pytest.approx(5.0 + 3.0 + plan.downtime_seconds)


def test_unloading_what_is_not_active_interrupts_nobody() -> None:
    loaded = [held("idle", 50), held("active", 50, is_active=True)]
    plan = plan_switch(spec(50), loaded, MemoryBudget(100, 0))
    assert [model.model_id for model in plan.evicted] == ["idle"]
    assert (plan.interrupts, plan.downtime_seconds) == (False, 0.0)


def test_server_that_holds_one_model_at_a_time_gives_up_the_one_it_has() -> None:
    there = held("there", 10, is_pinned=True)
    plan = plan_switch(spec(10), [there], MemoryBudget(100, 90), must_go=[there.instance_id])
    assert ([model.model_id for model in plan.evicted], plan.order) == (["there"], LoadOrder.FREE_FIRST)


def test_what_the_server_gives_up_counts_as_free_also_when_it_is_pinned() -> None:
    there = held("there", 10, is_pinned=True)
    assert plan_switch(spec(100), [there], MemoryBudget(100, 90), must_go=[there.instance_id]).freed_bytes == 10
    with pytest.raises(DoesNotFit) as caught:
        plan_switch(spec(101), [there], MemoryBudget(100, 90), must_go=[there.instance_id])
    assert caught.value.freeable_bytes == 10


@given(loaded_sets(), st.integers(0, 100), st.integers(0, 60), st.integers(-1, 8), st.booleans())
def test_nobody_waits_exactly_when_the_active_model_stays_or_goes_last(
    loaded: list[LoadedModel], need: int, free: int, active: int, keeps_former: bool
) -> None:
    loaded = [replace(model, is_active=number == active) for number, model in enumerate(loaded)]
    try:
        plan = plan_switch(spec(need), loaded, MemoryBudget(400, free), policy=PlanPolicy(keeps_former=keeps_former))
    except DoesNotFit:
        return
    kinds = [step.kind for step in plan.steps]
    goes = any(model.is_active for model in plan.evicted)
    assert plan.interrupts == (goes and kinds.index(StepKind.UNLOAD) < kinds.index(StepKind.VERIFY))
    assert 0 <= plan.downtime_seconds <= plan.expected_seconds
    assert (plan.downtime_seconds > 0) == plan.interrupts
    if plan.order == LoadOrder.LOAD_FIRST:
        assert (kinds, keeps_former, need <= free) == (LOAD_FIRST, False, True)
    unpinned_former = [model for model in loaded if model.is_active and not model.is_pinned]
    if unpinned_former and not keeps_former:
        assert goes
    elif need <= free:
        assert not plan.evicted


def test_call_comes_after_the_first_token_also_of_a_model_that_is_loaded() -> None:
    plan = plan_switch(spec(10), [], MemoryBudget(100, 40), kind=JobKind.CALL)
    assert [step.kind for step in plan.steps] == [StepKind.LOAD, StepKind.VERIFY, StepKind.CALL]
    plan = plan_switch(spec(10), [held("target", 10)], MemoryBudget(100, 40), kind=JobKind.CALL)
    assert [step.kind for step in plan.steps] == [StepKind.CALL]


def test_call_leaves_the_former_model_alone_where_both_fit() -> None:
    former = held("former", 50, is_active=True)
    plan = plan_switch(spec(10), [former], MemoryBudget(100, 40), policy=REPLACES, kind=JobKind.CALL)
    assert ([step.kind for step in plan.steps], plan.evicted) == (
        [StepKind.LOAD, StepKind.VERIFY, StepKind.CALL],
        (),
    )


def test_preload_evicts_nothing() -> None:
    loaded = [held("idle", 50)]
    assert plan_preload(spec(40), loaded, MemoryBudget(100, 40)).kind == JobKind.PRELOAD
    with pytest.raises(DoesNotFit) as caught:
        plan_preload(spec(41), loaded, MemoryBudget(100, 40))
    assert caught.value.freeable_bytes == 0


def test_unload_all_takes_pinned_ones_too_and_the_active_one_last() -> None:
    loaded = [held("active", 10, is_active=True), held("pinned", 20, is_pinned=True)]
    plan = plan_unload_all(loaded, MemoryBudget(100, 70))
    assert [model.model_id for model in plan.evicted] == ["pinned", "active"]
    assert (plan.kind, plan.target_id, plan.target_name) == (JobKind.UNLOAD_ALL, "", "all models")
    assert (plan.freed_bytes, plan.interrupts) == (30, True)
