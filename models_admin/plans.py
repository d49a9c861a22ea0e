"""Plans made from the records: what is loaded, what the target needs, what is free."""

from __future__ import annotations

from dataclasses import replace

from gantry.planning.planner import plan_restart, plan_switch, plan_unload
from gantry.planning.states import InstanceState, JobKind
from gantry.planning.types import LoadedModel, MemoryBudget, SwitchPlan, TimeRange
from models_admin import catalog
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance


def make_plan(kind: JobKind, target: ModelDefinition, budget: MemoryBudget) -> SwitchPlan:
    """What a job of this kind would do now.

    Args:
        target: the model to load, to unload or to load again; with its runtime and pool.
        budget: the pool's memory; the caller decides whether that is a fresh reading or the last one.

    Raises:
        DoesNotFit: no allowed set of evictions makes room.
    """
    loaded = loaded_models(target.runtime.pool)
    own = next((model for model in loaded if model.model_id == target.model_id), None)
    if kind == JobKind.UNLOAD:
        # None: its process has ended by itself. What is left is the record, which every job clears before it plans.
        return plan_unload(own, budget) if own else replace(empty_plan(target), kind=kind, target_id="")
    spec = catalog.spec_for(target, target.runtime.pool.host)
    if kind == JobKind.RESTART:
        return plan_restart(spec, own, budget)
    return plan_switch(spec, loaded, budget)


def empty_plan(target: ModelDefinition) -> SwitchPlan:
    """A plan that does nothing."""
    return SwitchPlan(
        kind=JobKind.SWITCH,
        target_id=target.model_id,
        target_name=target.name,
        steps=(),
        evicted=(),
        needed_bytes=0,
        free_bytes=0,
        freed_bytes=0,
        total_bytes=0,
        load_time=TimeRange(0.0, 0.0, 0.0, 0),
    )


def loaded_models(pool: MemoryPool) -> list[LoadedModel]:
    """What a pool's runtimes hold, oldest load first. One query."""
    rows = (
        ModelInstance.objects.filter(runtime__pool=pool, state=InstanceState.LOADED)
        .select_related("model")
        .order_by("created_at", "pk")
    )
    return [_loaded(row) for row in rows]


def budget_of(pool: MemoryPool) -> MemoryBudget:
    """The pool's memory as last read."""
    return MemoryBudget(total_bytes=pool.total_bytes, free_bytes=pool.free_bytes)


def _loaded(row: ModelInstance) -> LoadedModel:
    used = row.model.last_used_at or row.created_at
    return LoadedModel(
        instance_id=str(row.instance_id),
        model_id=row.model.model_id,
        name=row.model.name,
        held_bytes=row.held_bytes,
        last_used=used.timestamp(),
        is_busy=row.busy_count > 0,
        is_pinned=row.model.is_pinned,
        is_active=row.is_active,
    )
