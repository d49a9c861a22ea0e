"""What to evict, what to load, in which order. Functions of their arguments: ask as often as you like, nothing happens.

The order of a plan's steps is drain all, unload all, wait for the memory, load, verify. Everything is drained before
anything is unloaded, so that a cancel while answers are still running has cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from gantry.planning.exceptions import DoesNotFit
from gantry.planning.states import JobKind, StepKind
from gantry.planning.types import LoadedModel, MemoryBudget, ModelSpec, PlanStep, SwitchPlan, TimeRange

DRAIN_SECONDS_WHEN_BUSY = 5.0  # a chat answer that is half done; the engine waits longer if it must
FREE_SECONDS = 0.3  # until the memory of a process that is gone shows as free
VERIFY_SECONDS = 0.5  # one token

_NOTHING_TO_LOAD = TimeRange(0.0, 0.0, 0.0, 0)


class EvictionStrategy(StrEnum):
    """In which order models are considered for eviction."""

    LARGEST_FIRST = "largest_first"


def plan_switch(
    target: ModelSpec,
    loaded: Sequence[LoadedModel],
    budget: MemoryBudget,
    *,
    active_is_replaced: bool = False,
    strategy: EvictionStrategy = EvictionStrategy.LARGEST_FIRST,
) -> SwitchPlan:
    """Choose what to evict so that `target` fits, then how to load it.

    Nothing is evicted that the target can do without: whatever is left out of `evicted`, the rest would be too little.
    Models that are busy go only when the idle ones do not suffice; pinned ones never. A target that is loaded already
    needs no step at all, only to be made the active one.

    Args:
        loaded: what the runtimes of this pool hold now. A crashed model holds nothing and is not in it.
        active_is_replaced: one model at a time: the active model goes (unless it is pinned) even where both would fit.

    Raises:
        DoesNotFit: too little even when everything that may go is evicted.
    """
    if any(model.model_id == target.model_id for model in loaded):
        return _make_plan(JobKind.SWITCH, target, (), budget, is_loaded=True)
    allowed = [model for model in loaded if not model.is_pinned]
    replaced = [model for model in allowed if active_is_replaced and model.is_active]
    others = [model for model in allowed if model not in replaced]
    shortage = target.need_bytes - budget.free_bytes - _held(replaced)
    evicted = replaced + _choose(others, shortage, strategy)
    _check_fits(target.need_bytes, budget, evicted=evicted, allowed=allowed)
    return _make_plan(JobKind.SWITCH, target, tuple(evicted), budget)


def plan_unload(model: LoadedModel, budget: MemoryBudget) -> SwitchPlan:
    """Unload one model and load nothing. Somebody asked for this very model, so a pin does not protect it."""
    return replace(_make_plan(JobKind.UNLOAD, None, (model,), budget), target_name=model.name)


def plan_restart(target: ModelSpec, loaded: LoadedModel | None, budget: MemoryBudget) -> SwitchPlan:
    """Unload the target if it is held, and load it again. Evicts nothing else.

    Raises:
        DoesNotFit: what is free together with what it holds now is too little (its parameters may have changed).
    """
    evicted = (loaded,) if loaded else ()
    needed = target.need_bytes
    if loaded and target.is_measured:
        # It fits in what it holds: the margin on top of a measured need must not stand in the way of a restart.
        needed = min(needed, max(loaded.held_bytes, 0))
    _check_fits(needed, budget, evicted=evicted, allowed=evicted)
    return _make_plan(JobKind.RESTART, target, evicted, budget)


def _choose(candidates: Iterable[LoadedModel], shortage_bytes: int, strategy: EvictionStrategy) -> list[LoadedModel]:
    """As few of the candidates as cover the shortage, by the strategy's order; all of them if they do not."""
    chosen: list[LoadedModel] = []
    for model in _ORDERS[strategy](candidates):
        if _held(chosen) >= shortage_bytes:
            break
        if model.held_bytes > 0:  # evicting what holds nothing would help nobody
            chosen.append(model)
    return _without_needless(chosen, shortage_bytes)


def _without_needless(chosen: list[LoadedModel], shortage_bytes: int) -> list[LoadedModel]:
    """Leave out what turned out not to be needed: a large busy model may make small idle ones superfluous."""
    for model in sorted(chosen, key=lambda model: (not model.is_busy, -model.held_bytes)):
        rest = [other for other in chosen if other is not model]
        if _held(rest) >= shortage_bytes:
            chosen = rest
    return chosen


def _largest_first(candidates: Iterable[LoadedModel]) -> list[LoadedModel]:
    """Idle before busy, then the largest; of equals the one unused for longest. The id makes it the same every time."""
    return sorted(candidates, key=lambda model: (model.is_busy, -model.held_bytes, model.last_used, model.instance_id))


_ORDERS: dict[EvictionStrategy, Callable[[Iterable[LoadedModel]], list[LoadedModel]]] = {
    EvictionStrategy.LARGEST_FIRST: _largest_first,
}


def _check_fits(
    needed_bytes: int, budget: MemoryBudget, *, evicted: Sequence[LoadedModel], allowed: Sequence[LoadedModel]
) -> None:
    if budget.free_bytes + _held(evicted) < needed_bytes:
        raise DoesNotFit(required_bytes=needed_bytes, available_bytes=budget.free_bytes, freeable_bytes=_held(allowed))


def _make_plan(
    kind: JobKind,
    target: ModelSpec | None,
    evicted: tuple[LoadedModel, ...],
    budget: MemoryBudget,
    *,
    is_loaded: bool = False,
) -> SwitchPlan:
    to_load = None if is_loaded else target
    return SwitchPlan(
        kind=kind,
        target_id=target.model_id if target else "",
        target_name=target.name if target else "",
        steps=(*_unload_steps(evicted), *_load_steps(to_load)),
        evicted=evicted,
        needed_bytes=to_load.need_bytes if to_load else 0,
        free_bytes=budget.free_bytes,
        freed_bytes=_held(evicted),
        total_bytes=budget.total_bytes,
        load_time=to_load.load_time if to_load else _NOTHING_TO_LOAD,
    )


def _unload_steps(evicted: Sequence[LoadedModel]) -> list[PlanStep]:
    drains = [_step(StepKind.DRAIN, model, DRAIN_SECONDS_WHEN_BUSY if model.is_busy else 0.0) for model in evicted]
    unloads = [_step(StepKind.UNLOAD, model, model.unload_seconds) for model in evicted]
    free = [PlanStep(StepKind.FREE, "", "", "", FREE_SECONDS)] if evicted else []
    return drains + unloads + free


def _load_steps(target: ModelSpec | None) -> list[PlanStep]:
    if target is None:
        return []
    return [
        PlanStep(StepKind.LOAD, target.model_id, target.name, "", target.load_time.usual_seconds),
        PlanStep(StepKind.VERIFY, target.model_id, target.name, "", VERIFY_SECONDS),
    ]


def _step(kind: StepKind, model: LoadedModel, expected_seconds: float) -> PlanStep:
    return PlanStep(kind, model.model_id, model.name, model.instance_id, expected_seconds)


def _held(models: Iterable[LoadedModel]) -> int:
    return sum(model.held_bytes for model in models)
