"""What to evict, what to load, where and in which order. Functions of their arguments: ask as often as you like, nothing happens.

Where the memory has to come free first, the order of a plan's steps is drain all, unload all, wait for the memory, load, verify.
Everything is drained before anything is unloaded, so that a cancel while answers are still running has cost nothing. Where old and
new fit together and the old one is to go all the same, it goes last: then nobody has to wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from gantry.planning.eviction import EvictionStrategy, choose
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

    def cost(self, need_bytes: int) -> tuple[object, ...]:
        """What makes one choice better than another: whom it costs what, then how many devices, then how little is left over."""
        freed = sum(map(self.room.freed_by, self.evicted))
        return (
            sum(model.is_busy for model in self.evicted),
            len(self.evicted),
            sum(model.reload_seconds for model in self.evicted),
            len(self.room.device_ids),
            self.room.free_bytes + freed - self.room.need(need_bytes),
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
        kind: SWITCH, or CALL: then the call follows the first token.
        must_go: ids of instances that cannot stay, however much memory there is: their server holds one model at a time.

    Raises:
        DoesNotFit: too little even when everything that may go is evicted.
        DeviceUnknown: the target names a device that the pool does not have.
    """
    if any(model.model_id == target.model_id for model in loaded):
        return _make_plan(kind, target, budget, is_loaded=True)
    allowed = _allowed(loaded, policy, must_go)
    choices = [
        choice
        for room in rooms(budget, target.devices)
        if (choice := _choice(room, target, loaded, allowed, policy, must_go)) is not None
    ]
    if not choices:
        raise _does_not_fit(target, [model for model in loaded if not model.is_pinned], budget)
    return _make_plan(kind, target, budget, min(choices, key=lambda choice: choice.cost(target.need_bytes)))


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
    needed = target.need_bytes
    if loaded and target.is_measured:
        # It fits in what it holds: the margin on top of a measured need must not stand in the way of a restart.
        needed = min(needed, max(loaded.held_bytes, 0))
    fitting = [
        _Choice(room, evicted)
        for room in rooms(budget, target.devices)
        if room.free_bytes + sum(map(room.freed_by, evicted)) >= room.need(needed)
    ]
    if not fitting:
        raise _does_not_fit(target, evicted, budget)
    return _make_plan(JobKind.RESTART, target, budget, min(fitting, key=lambda choice: choice.cost(needed)))


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
    need = room.need(target.need_bytes)
    first = [model for model in loaded if model.instance_id in must_go]
    former = [m for m in allowed if m.is_active and m not in first and not policy.keeps_former]
    if not first and need <= room.free_bytes:
        return _Choice(room, tuple(former), LoadOrder.LOAD_FIRST if former else LoadOrder.FREE_FIRST)
    gone = first + former
    others = [model for model in allowed if model not in gone]
    shortage = need - room.free_bytes - sum(map(room.freed_by, gone))
    chosen = choose(others, shortage, policy.strategy, room.freed_by)
    return None if chosen is None else _Choice(room, tuple(gone + chosen))


def _does_not_fit(target: ModelSpec, could_go: Iterable[LoadedModel], budget: MemoryBudget) -> DoesNotFit:
    """The figures of the place that comes nearest."""
    could_go = list(could_go)

    def missing(room: Room) -> int:
        return room.need(target.need_bytes) - room.free_bytes - sum(map(room.freed_by, could_go))

    nearest = min(rooms(budget, target.devices), key=missing)
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
        devices=choice.room.device_ids,
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
