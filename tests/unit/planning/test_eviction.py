"""Who goes: what holds for each strategy, and what each is about."""

from __future__ import annotations

from itertools import chain, combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.eviction import EXACT_UP_TO, EvictionStrategy, choose
from gantry.planning.exceptions import DoesNotFit
from gantry.planning.planner import PlanPolicy, plan_switch
from gantry.planning.types import LoadedModel, MemoryBudget
from tests.unit.planning.builders import held, loaded_sets, spec

STRATEGIES = st.sampled_from(EvictionStrategy)
NEEDS, FREE = st.integers(0, 120), st.integers(0, 60)


def size(model: LoadedModel) -> int:
    return model.held_bytes


def evicted(loaded: list[LoadedModel], need: int, free: int, strategy: EvictionStrategy) -> list[LoadedModel]:
    budget = MemoryBudget(200, free)
    return list(plan_switch(spec(need), loaded, budget, policy=PlanPolicy(strategy)).evicted)


def enough(models: object, need: int, free: int) -> bool:
    return free + sum(map(size, models)) >= need  # type: ignore[call-overload]


def every_set(models: list[LoadedModel]) -> list[tuple[LoadedModel, ...]]:
    return list(chain.from_iterable(combinations(models, count) for count in range(len(models) + 1)))


@given(loaded_sets(), NEEDS, FREE, STRATEGIES)
def test_does_not_fit_exactly_when_no_allowed_set_suffices(
    loaded: list[LoadedModel], need: int, free: int, strategy: EvictionStrategy
) -> None:
    allowed = [model for model in loaded if not model.is_pinned]
    if any(enough(some, need, free) for some in every_set(allowed)):
        assert enough(evicted(loaded, need, free, strategy), need, free)
        return
    with pytest.raises(DoesNotFit) as caught:
        evicted(loaded, need, free, strategy)
    figures = (caught.value.required_bytes, caught.value.available_bytes, caught.value.freeable_bytes)
    assert figures == (need, free, sum(map(size, allowed)))


@given(loaded_sets(), NEEDS, FREE, STRATEGIES)
def test_pinned_ones_stay_and_nobody_goes_for_nothing(
    loaded: list[LoadedModel], need: int, free: int, strategy: EvictionStrategy
) -> None:
    try:
        gone = evicted(loaded, need, free, strategy)
    except DoesNotFit:
        return
    assert not any(model.is_pinned for model in gone)
    for model in gone:
        assert not enough([other for other in gone if other is not model], need, free), f"{model.name} need not go"


@given(loaded_sets(), NEEDS, FREE, STRATEGIES)
def test_those_that_answer_go_only_when_the_idle_ones_do_not_suffice(
    loaded: list[LoadedModel], need: int, free: int, strategy: EvictionStrategy
) -> None:
    try:
        gone = evicted(loaded, need, free, strategy)
    except DoesNotFit:
        return
    idle = [model for model in loaded if not model.is_busy and not model.is_pinned]
    if enough(idle, need, free):
        assert not any(model.is_busy for model in gone)


@given(loaded_sets(), NEEDS, FREE, STRATEGIES, st.randoms(use_true_random=False))
def test_order_of_the_records_changes_nothing(
    loaded: list[LoadedModel], need: int, free: int, strategy: EvictionStrategy, random: Random
) -> None:
    shuffled = list(loaded)
    random.shuffle(shuffled)
    answers = []
    for order in (loaded, shuffled, loaded):
        try:
            answers.append([model.model_id for model in evicted(order, need, free, strategy)])
        except DoesNotFit:
            answers.append(["does not fit"])
    assert answers[0] == answers[1] == answers[2]


@given(loaded_sets(most=7), st.integers(1, 120))
def test_cheapest_reload_is_the_best_of_all_sets(loaded: list[LoadedModel], shortage: int) -> None:
    def cost(some: tuple[LoadedModel, ...]) -> tuple[int, float, int, int]:
        return (
            sum(model.is_busy for model in some),
            sum(model.reload_seconds for model in some),
            len(some),
            sum(map(size, some)),
        )

    useful = [model for model in loaded if model.held_bytes]
    best = min((cost(some) for some in every_set(useful) if enough(some, shortage, 0)), default=None)
    chosen = choose(loaded, shortage, EvictionStrategy.CHEAPEST_RELOAD, size)
    assert (None if chosen is None else cost(tuple(chosen))) == best


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=EXACT_UP_TO, max_size=EXACT_UP_TO))
def test_cheapest_reload_of_twenty_is_never_dearer_than_another_choice(models: list[tuple[int, int]]) -> None:
    loaded = [held(str(number), byte, reload_seconds=cost) for number, (byte, cost) in enumerate(models)]
    shortage = sum(byte for byte, _ in models) // 2
    chosen = {strategy: choose(loaded, shortage, strategy, size) or [] for strategy in EvictionStrategy}
    seconds = {strategy: sum(model.reload_seconds for model in gone) for strategy, gone in chosen.items()}
    assert seconds[EvictionStrategy.CHEAPEST_RELOAD] == min(seconds.values())


def test_more_than_twenty_are_still_chosen_well() -> None:
    cheap = [held(f"cheap-{number:02}", 10, reload_seconds=1) for number in range(EXACT_UP_TO)]
    dear = [held(f"dear-{number:02}", 10, reload_seconds=9) for number in range(EXACT_UP_TO)]
    gone = choose([*dear, *cheap], 100, EvictionStrategy.CHEAPEST_RELOAD, size)
    assert gone is not None
    assert (len(gone), sum(model.reload_seconds for model in gone)) == (10, 10)


def test_of_more_than_twenty_one_that_does_for_two_is_found() -> None:
    """By seconds for each byte the small ones look better, and both of them cost more."""
    small = [held(f"small-{number}", 6, reload_seconds=6) for number in range(EXACT_UP_TO)]
    whole = held("whole", 10, reload_seconds=11)
    gone = choose([*small, whole], 10, EvictionStrategy.CHEAPEST_RELOAD, size)
    assert gone == [whole]


many = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20), st.booleans()), min_size=EXACT_UP_TO + 1, max_size=30)


@given(many, st.integers(1, 1500))
def test_of_more_than_twenty_nobody_goes_for_nothing_and_as_few_as_can_be_in_mid_answer(
    models: list[tuple[int, int, bool]], shortage: int
) -> None:
    loaded = [
        held(str(number), byte, reload_seconds=cost, is_busy=busy) for number, (byte, cost, busy) in enumerate(models)
    ]
    gone = choose(loaded, shortage, EvictionStrategy.CHEAPEST_RELOAD, size)
    if gone is None:
        assert not enough(loaded, shortage, 0)
        return
    assert enough(gone, shortage, 0)
    for model in gone:
        assert not enough([other for other in gone if other is not model], shortage, 0)
    free = sum(model.held_bytes for model in loaded if not model.is_busy)
    largest = sorted((model.held_bytes for model in loaded if model.is_busy), reverse=True)
    fewest = next(count for count in range(len(largest) + 1) if free + sum(largest[:count]) >= shortage)
    assert sum(model.is_busy for model in gone) == fewest


def test_of_what_costs_the_same_the_fewest_go_then_the_fewest_bytes_then_the_first_by_id() -> None:
    def chosen(*models: LoadedModel) -> list[str]:
        gone = choose(models, 10, EvictionStrategy.CHEAPEST_RELOAD, size) or []
        return [model.model_id for model in gone]

    assert chosen(held("a", 5, reload_seconds=1), held("b", 5, reload_seconds=1), held("c", 30, reload_seconds=2)) == [
        "c"
    ]
    assert chosen(held("a", 30, reload_seconds=1), held("b", 20, reload_seconds=1)) == ["b"]
    assert chosen(held("b", 20, reload_seconds=1), held("a", 20, reload_seconds=1)) == ["a"]


EXAMPLE = [
    held("large", 60, last_used=3, reload_seconds=30),
    held("old", 20, last_used=1, reload_seconds=25),
    held("quick", 50, last_used=2, reload_seconds=2),
]


@pytest.mark.parametrize(
    ("strategy", "gone"),
    [
        (EvictionStrategy.LARGEST_FIRST, ["large"]),  # one model, though it is the one used last and slow to come back
        (EvictionStrategy.OLDEST_FIRST, ["quick"]),  # the old one was taken first and turned out to be needless
        (EvictionStrategy.CHEAPEST_RELOAD, ["quick"]),
    ],
)
def test_each_strategy_has_its_own_mind(strategy: EvictionStrategy, gone: list[str]) -> None:
    assert [model.model_id for model in evicted(EXAMPLE, 50, 0, strategy)] == gone


def test_oldest_first_takes_as_many_as_it_needs_in_the_order_of_their_last_use() -> None:
    gone = evicted(EXAMPLE, 70, 0, EvictionStrategy.OLDEST_FIRST)
    assert [model.model_id for model in gone] == ["old", "quick"]


def test_nothing_goes_where_policy_lets_nothing_go() -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan_switch(spec(50), EXAMPLE, MemoryBudget(200, 10), policy=PlanPolicy(may_evict=False))
    assert (caught.value.available_bytes, caught.value.freeable_bytes) == (10, 130)
