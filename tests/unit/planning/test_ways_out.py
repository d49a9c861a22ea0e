"""What is offered when a model does not fit: each offer, taken, makes it fit."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.exceptions import DoesNotFit
from gantry.planning.planner import PlanPolicy, plan_switch
from gantry.planning.types import LoadedModel, MemoryBudget
from gantry.planning.ways_out import LEAST_CONTEXT, WayOut, WayOutKind, ways_out
from tests.unit.planning.builders import held, loaded_sets, spec

DEFAULT = PlanPolicy()
BY_HAND = PlanPolicy(may_evict=False)


def kinds(ways: list[WayOut]) -> list[WayOutKind]:
    return [way.kind for way in ways]


def test_largest_context_that_fits_is_offered() -> None:
    [way] = ways_out(
        spec(1000 + 8192),
        [],
        MemoryBudget(6000, 6000),
        policy=DEFAULT,
        need_of_context=lambda tokens: 1000 + tokens,
        context_now=8192,
    )
    assert (way.kind, way.context, way.bytes) == (WayOutKind.CONTEXT, 19 * 256, 1000 + 19 * 256)
    assert 1000 + 20 * 256 > 6000


def test_no_context_is_offered_that_is_too_small_to_be_of_use() -> None:
    budget = MemoryBudget(6000, 1000 + LEAST_CONTEXT - 1)
    assert (
        ways_out(spec(9000), [], budget, policy=DEFAULT, need_of_context=lambda tokens: 1000 + tokens, context_now=8192)
        == []
    )


def test_fewest_pinned_models_are_offered_the_smallest_first() -> None:
    loaded = [held("a", 60, is_pinned=True), held("b", 40, is_pinned=True), held("c", 10, is_pinned=True)]
    ways = ways_out(spec(50), loaded, MemoryBudget(120, 10), policy=DEFAULT)
    assert [(way.kind, way.model_ids, way.bytes) for way in ways] == [
        (WayOutKind.UNPIN, ("b",), 40),
        (WayOutKind.UNPIN, ("a",), 60),
    ]
    [way] = ways_out(spec(105), loaded, MemoryBudget(120, 10), policy=DEFAULT)
    assert way.model_ids == ("b", "a")


def test_pinned_models_that_answer_are_offered_last() -> None:
    loaded = [held("a", 40, is_pinned=True, is_busy=True), held("b", 60, is_pinned=True)]
    ways = ways_out(spec(50), loaded, MemoryBudget(120, 20), policy=DEFAULT)
    assert [way.model_ids for way in ways] == [("b",), ("a",)]


def test_no_unpinning_is_offered_that_would_not_do() -> None:
    assert ways_out(spec(100), [held("a", 60, is_pinned=True)], MemoryBudget(90, 30), policy=DEFAULT) == []


def test_what_goes_in_any_case_is_not_offered() -> None:
    loaded = [held("there", 50, is_pinned=True), held("pinned", 30, is_pinned=True), held("idle", 5)]
    budget, must_go = MemoryBudget(100, 15), [loaded[0].instance_id]
    [way] = ways_out(spec(80), loaded, budget, policy=DEFAULT, must_go=must_go)
    assert (way.kind, way.model_ids) == (WayOutKind.UNPIN, ("pinned",))
    [way] = ways_out(spec(70), loaded, budget, policy=BY_HAND, must_go=must_go)
    assert (way.kind, way.model_ids) == (WayOutKind.UNLOAD, ("idle",))


@given(st.integers(0, 60_000), st.integers(0, 50_000), st.integers(1, 100), st.integers(0, 40_000))
def test_offered_context_is_the_largest_that_fits(free: int, weights: int, per_token: int, now: int) -> None:
    def need(tokens: int) -> int:
        return weights + per_token * tokens

    target, budget = spec(need(max(now, 1))), MemoryBudget(100_000, free)
    if target.need_bytes <= free:
        return
    sizes = [tokens for tokens in range(LEAST_CONTEXT, now, 256) if need(tokens) <= free]
    ways = ways_out(target, [], budget, policy=DEFAULT, need_of_context=need, context_now=now)
    assert [way.context for way in ways] == sizes[-1:]


def test_larger_ones_of_the_smaller_models_that_fit_are_offered() -> None:
    others = [spec(size, f"m{size}") for size in (5, 10, 20, 30, 40, 200)]
    ways = ways_out(spec(100), [], MemoryBudget(120, 35), policy=DEFAULT, others=others)
    assert [(way.kind, way.model_ids) for way in ways] == [
        (WayOutKind.SMALLER_MODEL, ("m30",)),
        (WayOutKind.SMALLER_MODEL, ("m20",)),
        (WayOutKind.SMALLER_MODEL, ("m10",)),
    ]


def test_where_no_switch_unloads_by_itself_it_says_what_to_unload() -> None:
    loaded = [held("a", 60), held("b", 40)]
    [way] = ways_out(spec(50), loaded, MemoryBudget(120, 20), policy=BY_HAND)
    assert (way.kind, way.model_ids, way.names) == (WayOutKind.UNLOAD, ("a",), ("A",))


def test_active_model_is_not_to_be_unloaded_where_another_one_will_do() -> None:
    loaded = [held("idle", 60), held("active", 20, is_active=True)]
    [way] = ways_out(spec(50), loaded, MemoryBudget(100, 20), policy=PlanPolicy(may_evict=False, keeps_former=False))
    assert way.model_ids == ("idle",)


@given(loaded_sets(most=5), st.integers(0, 60), st.integers(1, 150), st.lists(st.integers(1, 150), max_size=5))
def test_each_offer_makes_it_fit(loaded: list[LoadedModel], free: int, need: int, smaller: list[int]) -> None:
    budget, target = MemoryBudget(400, free), spec(need)
    try:
        plan_switch(target, loaded, budget)
    except DoesNotFit:
        pass
    else:
        return
    others = {f"other-{number}": spec(size, f"other-{number}") for number, size in enumerate(smaller)}
    for way in ways_out(target, loaded, budget, policy=DEFAULT, others=list(others.values())):
        if way.kind == WayOutKind.UNPIN:
            released = [replace(m, is_pinned=m.is_pinned and m.model_id not in way.model_ids) for m in loaded]
            plan_switch(target, released, budget)
        else:
            plan_switch(others[way.model_ids[0]], loaded, budget)
            assert others[way.model_ids[0]].need_bytes < need
