"""In which order things happen, who has to wait, and the plans that are no switch."""

from __future__ import annotations

import pytest

from gantry.planning.exceptions import DoesNotFit
from gantry.planning.planner import PlanPolicy, plan_preload, plan_switch, plan_unload_all
from gantry.planning.states import JobKind, LoadOrder, StepKind
from gantry.planning.types import MemoryBudget
from tests.unit.planning.builders import held, spec

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


def test_call_comes_after_the_first_token_also_of_a_model_that_is_loaded() -> None:
    plan = plan_switch(spec(10), [], MemoryBudget(100, 40), kind=JobKind.CALL)
    assert [step.kind for step in plan.steps] == [StepKind.LOAD, StepKind.VERIFY, StepKind.CALL]
    plan = plan_switch(spec(10), [held("target", 10)], MemoryBudget(100, 40), kind=JobKind.CALL)
    assert [step.kind for step in plan.steps] == [StepKind.CALL]


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
