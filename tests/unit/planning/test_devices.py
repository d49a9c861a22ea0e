"""Pools of several devices: where a model is put."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.eviction import EvictionStrategy
from gantry.planning.exceptions import DeviceUnknown, DoesNotFit
from gantry.planning.planner import PlanPolicy, can_fit, plan_restart, plan_switch
from gantry.planning.rooms import SPLIT_BYTES, rooms
from gantry.planning.states import LoadOrder
from gantry.planning.types import MemoryBudget
from tests.unit.planning.builders import held, on_devices, spec

GIB = 1024**3


def test_model_goes_where_it_fits_most_tightly() -> None:
    budget = on_devices(a=(20 * GIB, 24 * GIB), b=(9 * GIB, 24 * GIB), c=(7 * GIB, 24 * GIB))
    plan = plan_switch(spec(8 * GIB), [], budget)
    assert (plan.devices, plan.free_bytes, plan.total_bytes) == (("b",), 9 * GIB, 24 * GIB)


def test_nobody_goes_where_another_device_has_room() -> None:
    budget = on_devices(a=(GIB, 24 * GIB), b=(10 * GIB, 24 * GIB))
    plan = plan_switch(spec(8 * GIB), [held("x", 23 * GIB, held_on={"a": 23 * GIB})], budget)
    assert (plan.devices, plan.evicted) == (("b",), ())


def test_model_is_split_rather_than_another_one_unloaded() -> None:
    budget = on_devices(a=(10 * GIB, 24 * GIB), b=(10 * GIB, 24 * GIB))
    plan = plan_switch(spec(16 * GIB), [held("x", 14 * GIB, held_on={"a": 14 * GIB})], budget)
    assert (plan.devices, plan.evicted) == (("a", "b"), ())
    assert plan.needed_bytes > 16 * GIB + SPLIT_BYTES  # a split costs something


def test_only_what_is_on_the_device_comes_free_there() -> None:
    budget = on_devices(a=(2 * GIB, 24 * GIB), b=(2 * GIB, 24 * GIB))
    loaded = [
        held("on-a", 22 * GIB, held_on={"a": 22 * GIB}),
        held("on-b", 22 * GIB, held_on={"b": 22 * GIB}, is_pinned=True),
    ]
    plan = plan_switch(spec(20 * GIB), loaded, budget)
    assert (plan.devices, [model.model_id for model in plan.evicted]) == (("a",), ["on-a"])


def test_model_that_names_its_devices_goes_nowhere_else() -> None:
    budget = on_devices(a=(4 * GIB, 24 * GIB), b=(20 * GIB, 24 * GIB))
    with pytest.raises(DoesNotFit) as caught:
        plan_switch(spec(8 * GIB, devices=("a",)), [], budget)
    assert (caught.value.required_bytes, caught.value.available_bytes) == (8 * GIB, 4 * GIB)
    assert plan_switch(spec(8 * GIB, devices=("b",)), [], budget).devices == ("b",)


def test_device_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(DeviceUnknown, match=r"no device 'z'; there are a, b"):
        plan_switch(spec(1, devices=("z",)), [], on_devices(a=(1, 1), b=(1, 1)))
    with pytest.raises(DeviceUnknown, match="one memory only"):
        plan_switch(spec(1, devices=("a",)), [], MemoryBudget(10, 10))


def test_what_nobody_knows_the_place_of_counts_for_the_pool_as_a_whole() -> None:
    budget = on_devices(a=(GIB, 24 * GIB), b=(GIB, 24 * GIB))
    plan = plan_switch(spec(20 * GIB), [held("somewhere", 46 * GIB)], budget)
    assert (plan.devices, [model.model_id for model in plan.evicted]) == (("a", "b"), ["somewhere"])


def test_restart_goes_back_to_where_it_was() -> None:
    budget = on_devices(a=(GIB, 24 * GIB), b=(2 * GIB, 24 * GIB))
    own = held("target", 20 * GIB, held_on={"a": 20 * GIB})
    assert plan_restart(spec(20 * GIB), own, budget).devices == ("a",)


def test_one_device_is_not_named_but_may_be() -> None:
    budget = on_devices(a=(20 * GIB, 24 * GIB))
    own = held("x", 4 * GIB, held_on={"a": 4 * GIB})
    for target in (spec(22 * GIB), spec(22 * GIB, devices=("a",))):
        plan = plan_switch(target, [own], budget)
        assert (plan.devices, plan.needed_bytes, plan.evicted) == ((), 22 * GIB, (own,))
    with pytest.raises(DeviceUnknown, match=r"no device 'b'; there are a"):
        plan_switch(spec(1, devices=("b",)), [], budget)


def test_nothing_is_split_over_slices_of_a_divided_gpu() -> None:
    budget = on_devices(**{"MIG-1": (20 * GIB, 20 * GIB), "MIG-2": (20 * GIB, 20 * GIB), "GPU-1": (16 * GIB, 16 * GIB)})
    with pytest.raises(DoesNotFit) as caught:
        plan_switch(spec(30 * GIB), [], budget)
    assert (caught.value.required_bytes, caught.value.available_bytes) == (30 * GIB, 20 * GIB)
    assert plan_switch(spec(18 * GIB, devices=("MIG-1", "MIG-2")), [], budget).devices == ("MIG-1",)


def test_of_many_devices_the_emptiest_are_put_together() -> None:
    budget = on_devices(**{f"gpu-{n}": ((20 if n in {3, 7, 9} else 1) * GIB, 24 * GIB) for n in range(12)})
    assert plan_switch(spec(45 * GIB), [], budget).devices == ("gpu-3", "gpu-7", "gpu-9")


def test_memory_that_is_held_nobody_knows_where_may_be_anywhere() -> None:
    """Less is free in the pool than its devices say."""
    budget = replace(on_devices(a=(10 * GIB, 24 * GIB), b=(20 * GIB, 24 * GIB)), free_bytes=25 * GIB)
    plan = plan_switch(spec(12 * GIB), [], budget)
    assert (plan.devices, plan.free_bytes) == (("b",), 15 * GIB)
    with pytest.raises(DoesNotFit):
        plan_switch(spec(6 * GIB, devices=("a",)), [], budget)


SAME = {"a": (0, 24 * GIB), "b": (0, 24 * GIB)}
ON_A = held("on-a", 24 * GIB, held_on={"a": 24 * GIB}, last_used=1, reload_seconds=9, is_active=True)
ON_B = [held(f"on-b-{n}", 12 * GIB, held_on={"b": 12 * GIB}, last_used=2, reload_seconds=2) for n in range(2)]


@pytest.mark.parametrize(
    ("strategy", "device"),
    [
        (EvictionStrategy.LARGEST_FIRST, "a"),  # one model instead of two
        (EvictionStrategy.OLDEST_FIRST, "a"),  # unused for longer
        (EvictionStrategy.CHEAPEST_RELOAD, "b"),  # four seconds instead of nine
    ],
)
def test_strategy_decides_between_devices_too(strategy: EvictionStrategy, device: str) -> None:
    plan = plan_switch(spec(20 * GIB), [ON_A, *ON_B], on_devices(**SAME), policy=PlanPolicy(strategy))
    assert plan.devices == (device,)


@pytest.mark.parametrize("strategy", EvictionStrategy)
def test_device_where_nobody_is_answering_is_taken_whatever_the_strategy(strategy: EvictionStrategy) -> None:
    loaded = [replace(ON_A, is_busy=True), *(replace(model, reload_seconds=99.0, last_used=9.0) for model in ON_B)]
    plan = plan_switch(spec(20 * GIB), loaded, on_devices(**SAME), policy=PlanPolicy(strategy))
    assert plan.devices == ("b",)


def test_place_where_nobody_has_to_wait_goes_before_the_one_that_fits_most_tightly() -> None:
    former = held("former", 9 * GIB, held_on={"b": 9 * GIB}, is_active=True)
    budget = on_devices(a=(20 * GIB, 24 * GIB), b=(0, 9 * GIB))
    plan = plan_switch(spec(9 * GIB), [former], budget, policy=PlanPolicy(keeps_former=False))
    assert (plan.devices, plan.order, plan.evicted) == (("a",), LoadOrder.LOAD_FIRST, (former,))


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 30), min_size=1),
    st.integers(1, 90),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 20), st.booleans()), max_size=5),
)
def test_plan_fits_on_the_devices_that_it_names(
    free: dict[str, int], need: int, models: list[tuple[str, int, bool]]
) -> None:
    there = [(name, size, pinned) for name, size, pinned in models if name in free]
    loaded = [held(str(n), size, held_on={name: size}, is_pinned=pin) for n, (name, size, pin) in enumerate(there)]
    budget = on_devices(**{name: (size * GIB, 100 * GIB) for name, size in free.items()})
    try:
        plan = plan_switch(spec(need * GIB), loaded, budget)
    except DoesNotFit:
        return
    assert sum(free[name] * GIB for name in plan.devices or free) == plan.free_bytes
    assert plan.free_bytes + plan.freed_bytes >= plan.needed_bytes >= need * GIB
    assert not any(model.is_pinned for model in plan.evicted)


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 20), min_size=2),
    st.integers(1, 80),
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abc"), st.integers(1, 20), max_size=2), st.booleans()), max_size=4
    ),
    st.sampled_from(EvictionStrategy),
)
def test_refused_exactly_when_no_set_of_devices_has_the_room(
    free: dict[str, int], need: int, models: list[tuple[dict[str, int], bool]], strategy: EvictionStrategy
) -> None:
    loaded = [
        held(
            str(n),
            sum(places.values()) * GIB,
            held_on={name: size * GIB for name, size in places.items()},
            is_pinned=pin,
        )
        for n, (places, pin) in enumerate(models)
        if places.keys() <= free.keys()
    ]
    budget, target = on_devices(**{name: (size * GIB, 100 * GIB) for name, size in free.items()}), spec(need * GIB)
    idle = [model for model in loaded if not model.is_pinned]
    fits = any(room.free_without(idle) >= room.need(target.need_bytes) for room in rooms(budget, ()))
    assert can_fit(target, loaded, budget) is fits
    if not fits:
        with pytest.raises(DoesNotFit) as caught:
            plan_switch(target, loaded, budget, policy=PlanPolicy(strategy))
        assert caught.value.available_bytes + caught.value.freeable_bytes < caught.value.required_bytes
        return
    plan = plan_switch(target, loaded, budget, policy=PlanPolicy(strategy))
    assert plan == plan_switch(target, list(reversed(loaded)), budget, policy=PlanPolicy(strategy))
    for model in plan.evicted:
        there = sum(size for name, size in model.held_on.items() if name in plan.devices)
        assert plan.free_bytes + plan.freed_bytes - there < plan.needed_bytes, f"{model.name} need not go"
