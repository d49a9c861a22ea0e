"""Pools of several devices: where a model is put."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.exceptions import DeviceUnknown, DoesNotFit
from gantry.planning.planner import plan_restart, plan_switch
from gantry.planning.rooms import SPLIT_BYTES
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
    assert plan.devices
    assert sum(free[name] * GIB for name in plan.devices) == plan.free_bytes
    assert plan.free_bytes + plan.freed_bytes >= plan.needed_bytes >= need * GIB
    assert not any(model.is_pinned for model in plan.evicted)
