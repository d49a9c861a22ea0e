"""Which of the loaded models go, when so many bytes have to come free.

Whatever the strategy: models that are answering go only when all idle ones together do not suffice, nothing goes that the rest can
do without, and the same question has the same answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

from gantry.planning.types import LoadedModel

EXACT_UP_TO = 20  # models; beyond, cheapest_reload is a good choice, not proven to be the best

Freed = Callable[[LoadedModel], int]  # bytes that come free where they are needed


class EvictionStrategy(StrEnum):
    """By which rule models are chosen. That pinned models stay is not a strategy: it holds for each of them."""

    LARGEST_FIRST = "largest_first"  # as few models as possible
    OLDEST_FIRST = "oldest_first"  # the least recently used
    CHEAPEST_RELOAD = "cheapest_reload"  # the least time to have them all back


def choose(
    candidates: Sequence[LoadedModel], shortage_bytes: int, strategy: EvictionStrategy, freed: Freed
) -> list[LoadedModel] | None:
    """The models to evict, in the order in which they are unloaded; None when all of them together are too little.

    Args:
        candidates: those that may go.
        shortage_bytes: how much has to come free; 0 or less: nothing goes.
        freed: bytes that evicting a model frees where they are needed.
    """
    useful = [model for model in candidates if freed(model) > 0]  # evicting what holds nothing would help nobody
    if shortage_bytes <= 0:
        return []
    if sum(map(freed, useful)) < shortage_bytes:
        return None
    return _STRATEGIES[strategy](useful, shortage_bytes, freed)


def _largest_first(models: Sequence[LoadedModel], shortage: int, freed: Freed) -> list[LoadedModel]:
    """Of equals not the active one, then the one unused for longest; the id makes it the same every time."""

    def key(model: LoadedModel) -> tuple[float | str, ...]:
        return -freed(model), model.is_active, model.last_used, model.instance_id

    return _first_ones(models, shortage, freed, key)


def _oldest_first(models: Sequence[LoadedModel], shortage: int, freed: Freed) -> list[LoadedModel]:
    return _first_ones(models, shortage, freed, lambda model: (model.last_used, -freed(model), model.instance_id))


def _first_ones(
    models: Sequence[LoadedModel], shortage: int, freed: Freed, key: Callable[[LoadedModel], tuple[float | str, ...]]
) -> list[LoadedModel]:
    """Idle ones before busy ones, by the key, until they suffice; then without those that turned out to be needless."""
    chosen: list[LoadedModel] = []
    for model in sorted(models, key=lambda model: (model.is_busy, *key(model))):
        if sum(map(freed, chosen)) >= shortage:
            break
        chosen.append(model)
    return _without_needless(chosen, shortage, freed)


def _without_needless(chosen: list[LoadedModel], shortage: int, freed: Freed) -> list[LoadedModel]:
    """A model that came late may make earlier ones superfluous. Busy ones are spared first, then the largest."""
    for model in sorted(chosen, key=lambda model: (not model.is_busy, -freed(model))):
        rest = [other for other in chosen if other is not model]
        if sum(map(freed, rest)) >= shortage:
            chosen = rest
    return chosen


class _Cost(NamedTuple):
    """What evicting some models costs; compared from left to right. Adding up keeps the order, so halves can be compared."""

    busy: int
    milliseconds: int  # to load them again; whole, so that sums do not depend on their order
    models: int
    freed: int
    mask: int  # which ones, a bit each: makes the choice the same every time

    def plus(self, other: _Cost) -> _Cost:
        return _Cost(*(a + b for a, b in zip(self, other, strict=True)))


_NOTHING = _Cost(0, 0, 0, 0, 0)


def _cheapest_reload(models: Sequence[LoadedModel], shortage: int, freed: Freed) -> list[LoadedModel]:
    ordered = sorted(models, key=lambda model: model.instance_id)
    if len(ordered) > EXACT_UP_TO:
        return _cheapest_of_many(ordered, shortage, freed)
    costs = [
        _Cost(int(model.is_busy), round(1000 * model.reload_seconds), 1, freed(model), 1 << number)
        for number, model in enumerate(ordered)
    ]
    best = _cheapest_cover(costs, shortage)
    return [model for number, model in enumerate(ordered) if best.mask >> number & 1]


def _cheapest_cover(costs: Sequence[_Cost], shortage: int) -> _Cost:
    """The cheapest set that frees enough, exactly: the two halves' subsets are joined (Horowitz and Sahni, 1974).

    For 20 models 2 × 1,024 subsets are looked at instead of a million.
    """
    half = len(costs) // 2
    left, right = _subsets(costs[:half]), _subsets(costs[half:])
    right.sort(key=lambda cost: (cost.freed, cost))
    sizes = [cost.freed for cost in right]
    # The cheapest of all subsets of the right half that free as much as this one or more.
    cheapest = list(accumulate(reversed(right), min))[::-1]
    fitting = ((cost, bisect_left(sizes, shortage - cost.freed)) for cost in left)
    return min(cost.plus(cheapest[index]) for cost, index in fitting if index < len(right))


def _subsets(costs: Sequence[_Cost]) -> list[_Cost]:
    found = [_NOTHING]
    for cost in costs:
        found += [other.plus(cost) for other in found]
    return found


def _cheapest_of_many(models: Sequence[LoadedModel], shortage: int, freed: Freed) -> list[LoadedModel]:
    """By seconds for each byte, then without what is needless, the dearest first."""
    chosen = _first_ones(
        models, shortage, freed, lambda model: (model.reload_seconds / freed(model), model.instance_id)
    )
    for model in sorted(chosen, key=lambda model: (not model.is_busy, -model.reload_seconds)):
        rest = [other for other in chosen if other is not model]
        if sum(map(freed, rest)) >= shortage:
            chosen = rest
    return chosen


_STRATEGIES: dict[EvictionStrategy, Callable[[Sequence[LoadedModel], int, Freed], list[LoadedModel]]] = {
    EvictionStrategy.LARGEST_FIRST: _largest_first,
    EvictionStrategy.OLDEST_FIRST: _oldest_first,
    EvictionStrategy.CHEAPEST_RELOAD: _cheapest_reload,
}
