"""What would make a model fit that does not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, islice

from gantry.planning.exceptions import PlanError
from gantry.planning.planner import PlanPolicy, can_fit, plan_switch
from gantry.planning.types import LoadedModel, MemoryBudget, ModelSpec

CONTEXT_STEP = 256  # tokens; caches are made in such pieces
LEAST_CONTEXT = 512  # tokens; less is no use to anybody
MOST_SMALLER = 3
MOST_UNPIN = 2
MOST_PINNED = 10  # of more, only single ones are tried


class WayOutKind(StrEnum):
    """What is to be changed."""

    CONTEXT = "context"  # load the target with a smaller context
    UNPIN = "unpin"  # let pinned models go
    UNLOAD = "unload"  # unload by hand what policy lets no switch unload
    SMALLER_MODEL = "smaller_model"  # load another model


@dataclass(frozen=True, slots=True)
class WayOut:
    """One change that makes room. `model_ids` and `names` are of the models to unpin, to unload, or to load instead."""

    kind: WayOutKind
    model_ids: tuple[str, ...]
    names: tuple[str, ...]
    context: int | None = None  # tokens
    bytes: int = 0  # what is needed then, or what comes free


def ways_out(
    target: ModelSpec,
    loaded: Sequence[LoadedModel],
    budget: MemoryBudget,
    *,
    policy: PlanPolicy,
    must_go: Collection[str] = (),
    need_of_context: Callable[[int], int] | None = None,
    context_now: int | None = None,
    others: Sequence[ModelSpec] = (),
) -> list[WayOut]:
    """What would make the target fit, or could be loaded instead; each of them does, as far as the figures go.

    Args:
        must_go: ids of instances that the target replaces in any case, as in `plan_switch`.
        need_of_context: bytes that the target needs with so many tokens of context; None when nobody knows.
        context_now: tokens that it would be loaded with.
        others: models that could be loaded instead.
    """

    def fits(spec: ModelSpec, held: Sequence[LoadedModel] = loaded, gone: Collection[str] = must_go) -> bool:
        try:
            return can_fit(spec, held, budget, policy=policy, must_go=gone)
        except PlanError:
            return False

    if not policy.may_evict:
        ways = list(_by_hand(target, loaded, budget, policy, must_go))
    else:
        ways = _unpinning(target, [model for model in loaded if model.instance_id not in must_go], loaded, fits)
    if need_of_context and context_now:
        ways += _smaller_context(target, need_of_context, context_now, fits)
    return ways + _smaller_models(others, target, lambda spec: fits(spec, loaded, ()))


_Fits = Callable[..., bool]


def _by_hand(
    target: ModelSpec,
    loaded: Sequence[LoadedModel],
    budget: MemoryBudget,
    policy: PlanPolicy,
    must_go: Collection[str],
) -> Iterator[WayOut]:
    allowed = replace(policy, may_evict=True, keeps_former=True)  # the former model too only where it must
    try:
        plan = plan_switch(target, loaded, budget, policy=allowed, must_go=must_go)
    except PlanError:
        return
    yield _about(WayOutKind.UNLOAD, [model for model in plan.evicted if model.instance_id not in must_go])


def _unpinning(
    target: ModelSpec, candidates: Sequence[LoadedModel], loaded: Sequence[LoadedModel], fits: _Fits
) -> list[WayOut]:
    """The fewest pinned models whose release makes room: of as many, idle ones first, then those that hold the least."""
    pinned = sorted((m for m in candidates if m.is_pinned), key=lambda m: (m.is_busy, m.held_bytes, m.instance_id))
    if not fits(target, _released(loaded, pinned)):
        return []
    for count in range(1, len(pinned) + 1 if len(pinned) <= MOST_PINNED else 2):
        found = [released for released in combinations(pinned, count) if fits(target, _released(loaded, released))]
        if found:
            return [_about(WayOutKind.UNPIN, released) for released in sorted(found, key=_weight)[:MOST_UNPIN]]
    return []


def _weight(models: Sequence[LoadedModel]) -> tuple[int, int]:
    return sum(model.is_busy for model in models), sum(model.held_bytes for model in models)


def _released(loaded: Sequence[LoadedModel], released: Sequence[LoadedModel]) -> list[LoadedModel]:
    return [replace(model, is_pinned=False) if model in released else model for model in loaded]


def _smaller_context(
    target: ModelSpec, need_of_context: Callable[[int], int], context_now: int, fits: _Fits
) -> list[WayOut]:
    """The largest multiple of 256 tokens below the present context with which it fits."""

    def fits_with(pieces: int) -> bool:
        return bool(fits(replace(target, need_bytes=need_of_context(pieces * CONTEXT_STEP))))

    low, high = LEAST_CONTEXT // CONTEXT_STEP, (context_now - 1) // CONTEXT_STEP
    if high < low or not fits_with(low):
        return []
    while low < high:  # the need grows with the context, so the largest that fits can be halved down to
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits_with(middle) else (low, middle - 1)
    context = low * CONTEXT_STEP
    needs = need_of_context(context)
    return [WayOut(WayOutKind.CONTEXT, (target.model_id,), (target.name,), context=context, bytes=needs)]


def _smaller_models(others: Sequence[ModelSpec], target: ModelSpec, fits: _Fits) -> list[WayOut]:
    """The largest of those that need less and fit."""
    smaller = sorted(
        (spec for spec in others if spec.need_bytes < target.need_bytes), key=lambda spec: (-spec.need_bytes, spec.name)
    )
    return [
        WayOut(WayOutKind.SMALLER_MODEL, (spec.model_id,), (spec.name,), bytes=spec.need_bytes)
        for spec in islice(filter(fits, smaller), MOST_SMALLER)
    ]


def _about(kind: WayOutKind, models: Sequence[LoadedModel]) -> WayOut:
    return WayOut(
        kind,
        tuple(model.model_id for model in models),
        tuple(model.name for model in models),
        bytes=sum(model.held_bytes for model in models),
    )
