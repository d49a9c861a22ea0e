"""Plans made from the records: what is loaded, what the target needs, what is free, what policy allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from gantry.planning.eviction import EvictionStrategy
from gantry.planning.planner import (
    ALL_MODELS,
    PlanPolicy,
    plan_preload,
    plan_restart,
    plan_switch,
    plan_unload,
    plan_unload_all,
)
from gantry.planning.states import InstanceState, JobKind
from gantry.planning.types import DeviceMemory, LoadedModel, MemoryBudget, SwitchPlan, TimeRange
from models_admin import specs
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, SwitchPolicy
from models_admin.runtime_access import model_limit, takes_devices


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. `target` with its runtime and pool; None when it is about all models of the pool."""

    kind: JobKind
    pool: MemoryPool
    target: ModelDefinition | None
    context: int | None = None  # tokens, for this load only; None: as the definition says
    unpinned: Collection[str] = ()  # ids of models whose pin does not count any more

    @property
    def target_name(self) -> str:
        """As people call it."""
        return self.target.name if self.target else ALL_MODELS


def make_plan(wish: Wish, budget: MemoryBudget | None = None, policy: SwitchPolicy | None = None) -> SwitchPlan:
    """What a job that fulfils the wish would do now.

    Args:
        budget: the pool's memory, measured now; None: as it was last read.
        policy: as it was read a moment ago; None: as it is.

    Raises:
        DoesNotFit: no allowed set of evictions makes room.
        DeviceUnknown: the model names a device that the pool does not have.
    """
    rows = _loaded_rows(wish.pool)
    target = specs.with_context(wish.target, wish.context) if wish.target else None
    # One look into the ledgers for all of them. The target as it is to be loaded stands for the target as it is held.
    models = {row.model_id: row.model for row in rows} | ({target.pk: target} if target else {})
    known = specs.expected_of(models.values(), wish.pool.host)
    loaded = _loaded(rows, known, wish.pool.host, wish.unpinned)
    budget = replace(budget or budget_of(wish.pool), free_seconds=known.times.free_seconds(wish.pool.host))
    if wish.kind == JobKind.UNLOAD_ALL or target is None:
        return plan_unload_all(loaded, budget)
    own = next((model for model in loaded if model.model_id == target.model_id), None)
    if wish.kind == JobKind.UNLOAD:
        # None: its process has ended by itself. What is left is the record, which every job clears before it plans.
        return plan_unload(own, budget) if own else empty_plan(wish)
    spec = known.specs[target.pk]
    if not takes_devices(target.runtime):  # its server puts it where it likes: only the whole pool can be planned with
        spec, budget = replace(spec, devices=()), replace(budget, devices=())
    if wish.kind == JobKind.RESTART or (own and _is_loaded_otherwise(wish)):
        return plan_restart(spec, own, budget)
    if wish.kind == JobKind.PRELOAD:
        return plan_preload(spec, loaded, budget)
    must_go = same_server(target)
    return plan_switch(spec, loaded, budget, policy=plan_policy(policy), kind=wish.kind, must_go=must_go)


def empty_plan(wish: Wish) -> SwitchPlan:
    """A plan that does nothing: what is to be done cannot be told yet, or there is nothing."""
    loads = wish.target is not None and wish.kind not in {JobKind.UNLOAD, JobKind.UNLOAD_ALL}
    return SwitchPlan(
        kind=wish.kind,
        target_id=wish.target.model_id if wish.target and loads else "",
        target_name=wish.target_name,
        steps=(),
        evicted=(),
        needed_bytes=0,
        free_bytes=0,
        freed_bytes=0,
        total_bytes=0,
        load_time=TimeRange(0.0, 0.0, 0.0, 0),
    )


def parameters_of(wish: Wish) -> dict[str, Any]:
    """What the target is to be loaded with."""
    return specs.parameters_for(wish.target, wish.context) if wish.target else {}


def _is_loaded_otherwise(wish: Wish) -> bool:
    """Whether the target is held with another context than the one asked for."""
    held = ModelInstance.objects.filter(model=wish.target, state=InstanceState.LOADED)
    return wish.context is not None and not held.filter(parameters=parameters_of(wish)).exists()


def same_server(target: ModelDefinition) -> list[str]:
    """Instances that go when the target comes, however much memory there is: its server holds one model at a time, or a few.

    Of a few, those go that are missed the least: whatever is pinned, busy or active stays before what is not.
    """
    limit = model_limit(target.runtime)
    if limit is None:
        return []
    others = ModelInstance.objects.filter(runtime=target.runtime_id).exclude(model=target)
    held = sorted(others.exclude(state=InstanceState.CRASHED).select_related("model"), key=_missed)
    return [str(row.instance_id) for row in held[: max(0, len(held) + 1 - limit)]]


def _missed(row: ModelInstance) -> tuple[bool, bool, bool, datetime]:
    return row.model.is_pinned, row.busy_count > 0, row.is_active, row.model.last_used_at or row.created_at


def plan_policy(policy: SwitchPolicy | None = None) -> PlanPolicy:
    """What the switch policy, the present one unless given, means for a plan."""
    policy = policy or SwitchPolicy.current()
    return PlanPolicy(
        strategy=EvictionStrategy(policy.strategy), may_evict=policy.auto_unload, keeps_former=policy.keep_former
    )


def loaded_models(pool: MemoryPool, *, unpinned: Collection[str] = ()) -> list[LoadedModel]:
    """What a pool's runtimes hold, oldest load first."""
    rows = _loaded_rows(pool)
    return _loaded(rows, specs.expected_of((row.model for row in rows), pool.host), pool.host, unpinned)


def _loaded_rows(pool: MemoryPool) -> list[ModelInstance]:
    return list(
        ModelInstance.objects.filter(runtime__pool=pool, state=InstanceState.LOADED)
        .select_related("model__runtime__pool")
        .order_by("created_at", "pk")
    )


def _loaded(
    rows: Sequence[ModelInstance], known: specs.Expected, host: str, unpinned: Collection[str]
) -> list[LoadedModel]:
    return [
        LoadedModel(
            instance_id=str(row.instance_id),
            model_id=row.model.model_id,
            name=row.model.name,
            held_bytes=row.held_bytes,
            last_used=(row.model.last_used_at or row.created_at).timestamp(),
            is_busy=row.busy_count > 0,
            is_pinned=row.model.is_pinned and row.model.model_id not in unpinned,
            is_active=row.is_active,
            unload_seconds=known.times.unload_seconds(host, row.model_id),
            reload_seconds=known.specs[row.model_id].load_time.usual_seconds,
            held_on=row.held_on,
        )
        for row in rows
    ]


def budget_of(pool: MemoryPool) -> MemoryBudget:
    """The pool's memory as last read; asked anew, for whoever holds the row may have held it for long."""
    pool = MemoryPool.objects.get(pk=pool.pk)
    return MemoryBudget(
        total_bytes=pool.total_bytes,
        free_bytes=pool.free_bytes,
        devices=tuple(
            DeviceMemory(device["id"], device["name"], device["total_bytes"], device["free_bytes"])
            for device in pool.devices
        ),
    )
