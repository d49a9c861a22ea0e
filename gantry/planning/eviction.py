"""Which of the loaded models go, when so many bytes have to come free.

Whatever the strategy: models that are answering go only when all idle ones together do not suffice, nothing goes that the rest can
do without, and the same question has the same answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import reduce
from itertools import accumulate, combinations, product
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
    return _RULES[strategy].choose(useful, shortage_bytes, freed)


def burden(models: Sequence[LoadedModel], strategy: EvictionStrategy) -> tuple[object, ...]:
    """What makes one choice of models worse than another under a strategy; to be compared, the least is the best.

    `choose` finds the least for one place already. This is for the choice between places.
    """
    return sum(model.is_busy for model in models), *_RULES[strategy].burden(models)


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


def _cheapest_reload(models: Sequence[LoadedModel], shortage: int, freed: Freed) -> list[LoadedModel]:
    ordered = sorted(models, key=lambda model: model.instance_id)
    sizes, costs = [freed(model) for model in ordered], _costs(ordered, freed)
    if len(ordered) > EXACT_UP_TO:
        chosen = _improved(_good_start(ordered, sizes, shortage), sizes, costs, shortage)
        return [ordered[number] for number in sorted(chosen)]
    best = _cheapest_cover(sizes, costs, shortage)
    return [model for number, model in enumerate(ordered) if best >> number & 1]


def _costs(models: Sequence[LoadedModel], freed: Freed) -> list[int]:
    """What evicting each model costs, each as one number.

    Sums of them compare like the sums of (busy ones, milliseconds to load them again, models, bytes, which ones), from left to
    right: every column has a radix that its sum cannot reach. Milliseconds are whole, so that no sum depends on its order. The
    last column is a bit for each model, which makes the choice the same every time and tells in the end who was chosen.
    """
    rows = [
        (int(model.is_busy), round(1000 * model.reload_seconds), 1, freed(model), 1 << number)
        for number, model in enumerate(models)
    ]
    radixes = [sum(column) + 1 for column in zip(*rows, strict=True)]
    return [reduce(lambda cost, digit: cost * digit[0] + digit[1], zip(radixes, row, strict=True), 0) for row in rows]


def _cheapest_cover(sizes: Sequence[int], costs: Sequence[int], shortage: int) -> int:
    """The cheapest set that frees enough, exactly, as bits: the two halves' subsets are joined (Horowitz and Sahni, 1974).

    For 20 models 2 × 1,024 subsets are looked at instead of a million.
    """
    half = len(costs) // 2
    left, right = _subsets(sizes[:half], costs[:half]), sorted(_subsets(sizes[half:], costs[half:]))
    right_sizes = [size for size, _ in right]
    # The cheapest of all subsets of the right half that free as much as this one or more.
    cheapest = list(accumulate((cost for _, cost in reversed(right)), min))[::-1]
    fitting = ((cost, bisect_left(right_sizes, shortage - size)) for size, cost in left)
    best = min(cost + cheapest[index] for cost, index in fitting if index < len(right))
    return best % (1 << len(costs))


def _subsets(sizes: Sequence[int], costs: Sequence[int]) -> list[tuple[int, int]]:
    found = [(0, 0)]
    for size, cost in zip(sizes, costs, strict=True):
        found += [(other_size + size, other_cost + cost) for other_size, other_cost in found]
    return found


def _good_start(models: Sequence[LoadedModel], sizes: Sequence[int], shortage: int) -> set[int]:
    """Idle ones by seconds for each byte; then as few busy ones as there can be, the largest first."""

    def key(number: int) -> tuple[bool, float, int]:
        model, size = models[number], sizes[number]
        return model.is_busy, -size if model.is_busy else model.reload_seconds / size, number

    ordered = sorted(range(len(models)), key=key)
    sums = list(accumulate(sizes[number] for number in ordered))
    return set(ordered[: bisect_left(sums, shortage) + 1])


def _improved(chosen: set[int], sizes: Sequence[int], costs: Sequence[int], shortage: int) -> set[int]:
    """Leaves one or two out, or takes another one for them, for as long as that is cheaper. It ends: the cost falls each time."""
    spare = sum(sizes[number] for number in chosen) - shortage

    def change(out: tuple[int, ...], come: tuple[int, ...]) -> tuple[int, int]:
        cost, size = (
            sum(column[number] for number in come) - sum(column[number] for number in out) for column in (costs, sizes)
        )
        return cost, size

    while True:
        others = [number for number in range(len(sizes)) if number not in chosen]
        outs = [*combinations(sorted(chosen), 1), *combinations(sorted(chosen), 2)]
        moves = ((*change(out, come), out, come) for out, come in product(outs, [(), *combinations(others, 1)]))
        best = min((move for move in moves if spare + move[1] >= 0), default=None)
        if best is None or best[0] >= 0:
            return chosen
        _, size, out, come = best
        spare += size
        chosen = chosen.difference(out).union(come)


class _Rule(NamedTuple):
    """One strategy: how it chooses, and by what its choices for different places are compared (after the busy ones)."""

    choose: Callable[[Sequence[LoadedModel], int, Freed], list[LoadedModel]]
    burden: Callable[[Sequence[LoadedModel]], tuple[object, ...]]


def _fewest(models: Sequence[LoadedModel]) -> tuple[object, ...]:
    return len(models), any(model.is_active for model in models), _reload_seconds(models)


def _longest_unused(models: Sequence[LoadedModel]) -> tuple[object, ...]:
    """The one that was used last counts most: it should be as old as can be."""
    return tuple(sorted((model.last_used for model in models), reverse=True)), len(models)


def _least_to_reload(models: Sequence[LoadedModel]) -> tuple[object, ...]:
    return _reload_seconds(models), len(models), sum(model.held_bytes for model in models)


def _reload_seconds(models: Sequence[LoadedModel]) -> float:
    return sum(round(1000 * model.reload_seconds) for model in models) / 1000


_RULES: dict[EvictionStrategy, _Rule] = {
    EvictionStrategy.LARGEST_FIRST: _Rule(_largest_first, _fewest),
    EvictionStrategy.OLDEST_FIRST: _Rule(_oldest_first, _longest_unused),
    EvictionStrategy.CHEAPEST_RELOAD: _Rule(_cheapest_reload, _least_to_reload),
}
