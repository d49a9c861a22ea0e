"""What to evict, what to load, where and in which order. Functions of their arguments: ask as often as you like, nothing happens.

Where the memory has to come free first, the order of a plan's steps is drain all, unload all, wait for the memory, load, verify.
Everything is drained before anything is unloaded, so that a cancel while answers are still running has cost nothing. Where old and
new fit together and the old one is to go all the same, it goes last: then nobody has to wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from gantry.planning.estimates import need_from_history
from gantry.planning.eviction import EvictionStrategy, burden, choose
from gantry.planning.exceptions import DoesNotFit
from gantry.planning.rooms import Room, rooms
from gantry.planning.states import JobKind, LoadOrder, StepKind
from gantry.planning.types import LoadedModel, MemoryBudget, ModelSpec, PlanStep, SwitchPlan, TimeRange

DRAIN_SECONDS_WHEN_BUSY = 5.0  # a chat answer that is half done; the engine waits longer if it must
ALL_MODELS = "all models"

_NOTHING_TO_LOAD = TimeRange(0.0, 0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """What a plan may do without being asked.

    Attributes:
        strategy: which models go when there has to be room.
        may_evict: whether any may go at all.
        keeps_former: whether the active model stays loaded where it fits beside the target.
    """

    strategy: EvictionStrategy = EvictionStrategy.LARGEST_FIRST
    may_evict: bool = True
    keeps_former: bool = True


@dataclass(frozen=True, slots=True)
class _Choice:
    """A room, and who goes for it, in the order of unloading."""

    room: Room
    evicted: tuple[LoadedModel, ...]
    order: LoadOrder = LoadOrder.FREE_FIRST

    def cost(self, need_bytes: int, strategy: EvictionStrategy) -> tuple[object, ...]:
        """What makes one choice worse than another: somebody has to wait, who goes, how many devices, how much is left over."""
        return (
            self.order != LoadOrder.LOAD_FIRST,  # the former model alone goes, and it goes last
            *burden(self.evicted, strategy),
            any(model.is_active for model in self.evicted),
            len(self.room.device_ids),
            self.room.free_without(self.evicted) - self.room.need(need_bytes),
            self.room.device_ids,
        )


def plan_switch(
    target: ModelSpec,
    loaded: Sequence[LoadedModel],
    budget: MemoryBudget,
    *,
    policy: PlanPolicy = PlanPolicy(),
    kind: JobKind = JobKind.SWITCH,
    must_go: Collection[str] = (),
) -> SwitchPlan:
    """Choose what to evict so that `target` fits, where to put it, and how to load it.

    Nothing is evicted that the target can do without: whatever is left out of `evicted`, the rest would be too little.
    Models that are busy go only when the idle ones do not suffice; pinned ones never. A target that is loaded already
    needs no step at all, only to be made the active one. On a pool of several devices the target goes where it costs the least.

    Args:
        loaded: what the runtimes of this pool hold now. A crashed model holds nothing and is not in it.
        kind: SWITCH, or CALL: then the call follows the first token, and the former model stays where it fits, for it comes back.
        must_go: ids of instances that cannot stay, however much memory there is: their server holds one model at a time.

    Raises:
        DoesNotFit: too little even when everything that may go is evicted.
        DeviceUnknown: the target names a device that the pool does not have.
    """
    if any(model.model_id == target.model_id for model in loaded):
        return _make_plan(kind, target, budget, is_loaded=True)
    if kind == JobKind.CALL:
        policy = replace(policy, keeps_former=True)
    allowed = _allowed(loaded, policy, must_go)
    choices = [
        choice
        for room in rooms(budget, target.devices)
        if (choice := _choice(room, target, loaded, allowed, policy, must_go)) is not None
    ]
    if not choices:
        raise _does_not_fit(target, _allowed(loaded, replace(policy, may_evict=True), must_go), budget)
    best = min(choices, key=lambda choice: choice.cost(target.need_bytes, policy.strategy))
    return _make_plan(kind, target, budget, best)


def can_fit(
    target: ModelSpec,
    loaded: Sequence[LoadedModel],
    budget: MemoryBudget,
    *,
    policy: PlanPolicy = PlanPolicy(),
    must_go: Collection[str] = (),
) -> bool:
    """Whether `plan_switch` would find a place. Quicker: who would go is not worked out.

    Raises:
        DeviceUnknown: the target names a device that the pool does not have.
    """
    if any(model.model_id == target.model_id for model in loaded):
        return True
    could_go = _allowed(loaded, policy, must_go)
    return any(_missing(room, target.need_bytes, could_go) <= 0 for room in rooms(budget, target.devices))


def plan_preload(target: ModelSpec, loaded: Sequence[LoadedModel], budget: MemoryBudget) -> SwitchPlan:
    """Load a model beside what is there. Evicts nothing and makes nothing active.

    Raises:
        DoesNotFit: there is no room beside what is loaded.
    """
    if any(model.model_id == target.model_id for model in loaded):
        return _make_plan(JobKind.PRELOAD, target, budget, is_loaded=True)
    return replace(plan_switch(target, (), budget), kind=JobKind.PRELOAD)


def plan_unload(model: LoadedModel, budget: MemoryBudget) -> SwitchPlan:
    """Unload one model and load nothing. Somebody asked for this very model, so a pin does not protect it."""
    return replace(_make_plan(JobKind.UNLOAD, None, budget, _whole(budget, (model,))), target_name=model.name)


def plan_unload_all(loaded: Sequence[LoadedModel], budget: MemoryBudget) -> SwitchPlan:
    """Unload everything, pinned models too: somebody asked for all of it. The active model goes last."""
    ordered = sorted(loaded, key=lambda model: model.is_active)
    return replace(_make_plan(JobKind.UNLOAD_ALL, None, budget, _whole(budget, ordered)), target_name=ALL_MODELS)


def plan_restart(target: ModelSpec, loaded: LoadedModel | None, budget: MemoryBudget) -> SwitchPlan:
    """Unload the target if it is held, and load it again. Evicts nothing else.

    Raises:
        DoesNotFit: what is free together with what it holds now is too little (its parameters may have changed).
        DeviceUnknown: it names a device that the pool does not have.
    """
    evicted = (loaded,) if loaded else ()
    needed = _need_to_restart(target, loaded)
    fitting = [_Choice(room, evicted) for room in rooms(budget, target.devices) if _missing(room, needed, evicted) <= 0]
    if not fitting:
        raise _does_not_fit(target, evicted, budget)
    best = min(fitting, key=lambda choice: choice.cost(needed, EvictionStrategy.LARGEST_FIRST))
    return _make_plan(JobKind.RESTART, target, budget, best)


def _need_to_restart(target: ModelSpec, loaded: LoadedModel | None) -> int:
    """Without the margin on top of a measured need, which must not stand in the way of what fits already.

    A model that holds clearly less than was measured is to be loaded with other parameters: then the whole need counts.
    One of which nobody can tell what it holds gets the benefit of the doubt.
    """
    if loaded is None or not target.is_measured:
        return target.need_bytes
    if loaded.held_bytes <= 0:
        return 0
    is_margin = target.need_bytes <= need_from_history(loaded.held_bytes)
    return min(target.need_bytes, loaded.held_bytes) if is_margin else target.need_bytes


def _allowed(loaded: Sequence[LoadedModel], policy: PlanPolicy, must_go: Collection[str]) -> list[LoadedModel]:
    return [model for model in loaded if model.instance_id in must_go or (policy.may_evict and not model.is_pinned)]


def _choice(
    room: Room,
    target: ModelSpec,
    loaded: Sequence[LoadedModel],
    allowed: Sequence[LoadedModel],
    policy: PlanPolicy,
    must_go: Collection[str],
) -> _Choice | None:
    """Who goes if the target is put into this room; None when it does not fit there."""
    first = [model for model in loaded if model.instance_id in must_go]
    former = [m for m in allowed if m.is_active and m not in first and not policy.keeps_former]
    if not first and _missing(room, target.need_bytes) <= 0:
        return _Choice(room, tuple(former), LoadOrder.LOAD_FIRST if former else LoadOrder.FREE_FIRST)
    gone = first + former
    others = [model for model in allowed if model not in gone]
    chosen = choose(others, _missing(room, target.need_bytes, gone), policy.strategy, room.freed_by)
    return None if chosen is None else _Choice(room, tuple(gone + chosen))


def _missing(room: Room, need_bytes: int, gone: Iterable[LoadedModel] = ()) -> int:
    """Bytes that are too few once these are gone; 0 or less: it fits."""
    return room.need(need_bytes) - room.free_without(gone)


def _does_not_fit(target: ModelSpec, could_go: Sequence[LoadedModel], budget: MemoryBudget) -> DoesNotFit:
    """The figures of the place that comes nearest."""
    nearest = min(
        rooms(budget, target.devices),
        key=lambda room: (_missing(room, target.need_bytes, could_go), len(room.device_ids)),
    )
    return DoesNotFit(
        required_bytes=nearest.need(target.need_bytes),
        available_bytes=nearest.free_bytes,
        freeable_bytes=sum(map(nearest.freed_by, could_go)),
    )


def _whole(budget: MemoryBudget, evicted: Sequence[LoadedModel]) -> _Choice:
    return _Choice(Room((), budget.free_bytes, budget.total_bytes, is_whole=True), tuple(evicted))


def _make_plan(
    kind: JobKind,
    target: ModelSpec | None,
    budget: MemoryBudget,
    choice: _Choice | None = None,
    *,
    is_loaded: bool = False,
) -> SwitchPlan:
    choice = choice or _whole(budget, ())
    to_load = None if is_loaded else target
    unload_steps = _unload_steps(choice.evicted, budget)
    load_steps = _load_steps(to_load)
    steps = [*load_steps, *unload_steps] if choice.order == LoadOrder.LOAD_FIRST else [*unload_steps, *load_steps]
    if target and kind == JobKind.CALL:
        steps.append(PlanStep(StepKind.CALL, target.model_id, target.name, "", DRAIN_SECONDS_WHEN_BUSY))
    return SwitchPlan(
        kind=kind,
        target_id=target.model_id if target else "",
        target_name=target.name if target else "",
        steps=tuple(steps),
        evicted=choice.evicted,
        needed_bytes=choice.room.need(to_load.need_bytes) if to_load else 0,
        free_bytes=choice.room.free_bytes,
        freed_bytes=sum(map(choice.room.freed_by, choice.evicted)),
        total_bytes=choice.room.total_bytes,
        load_time=to_load.load_time if to_load else _NOTHING_TO_LOAD,
        order=choice.order,
        devices=choice.room.device_ids if len(budget.devices) > 1 else (),  # of one device there is nothing to say
        is_need_known=to_load.is_need_known if to_load else True,
    )


def _unload_steps(evicted: Sequence[LoadedModel], budget: MemoryBudget) -> list[PlanStep]:
    drains = [_step(StepKind.DRAIN, model, DRAIN_SECONDS_WHEN_BUSY if model.is_busy else 0.0) for model in evicted]
    unloads = [_step(StepKind.UNLOAD, model, model.unload_seconds) for model in evicted]
    free = [PlanStep(StepKind.FREE, "", "", "", budget.free_seconds)] if evicted else []
    return drains + unloads + free


def _load_steps(target: ModelSpec | None) -> list[PlanStep]:
    if target is None:
        return []
    return [
        PlanStep(StepKind.LOAD, target.model_id, target.name, "", target.load_time.usual_seconds),
        PlanStep(StepKind.VERIFY, target.model_id, target.name, "", target.verify_seconds),
    ]


def _step(kind: StepKind, model: LoadedModel, expected_seconds: float) -> PlanStep:
    return PlanStep(kind, model.model_id, model.name, model.instance_id, expected_seconds)
