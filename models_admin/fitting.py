"""When a model does not fit: by how much, and what would make it fit."""

from __future__ import annotations

from collections.abc import Sequence

from gantry.planning.exceptions import DoesNotFit
from gantry.planning.planner import PlanPolicy
from gantry.planning.types import ModelSpec
from gantry.planning.ways_out import WayOut, ways_out
from models_admin import plans, specs
from models_admin.exceptions import DoesNotFitNow
from models_admin.models import ModelDefinition, Runtime
from models_admin.plans import Wish


def refusal(wish: Wish, exc: DoesNotFit) -> DoesNotFitNow:
    """What is told to the one who asked."""
    could_free = f" and {exc.freeable_bytes / 1e9:.1f} GB more could be freed" if exc.freeable_bytes else ""
    policy = plans.plan_policy()
    ways = _ways(wish, policy)
    by_hand = not policy.may_evict and exc.available_bytes + exc.freeable_bytes >= exc.required_bytes
    hint = (
        "Unload another model first: by policy, switches unload nothing by themselves."
        if by_hand
        else "Choose a smaller model or a smaller context, or unpin a model that is loaded."
    )
    return DoesNotFitNow(
        f"{wish.target_name} needs {exc.required_bytes / 1e9:.1f} GB; "
        f"{exc.available_bytes / 1e9:.1f} GB are free{could_free}.",
        hint,
        required_bytes=exc.required_bytes,
        available_bytes=exc.available_bytes,
        freeable_bytes=exc.freeable_bytes,
        ways_out=ways,
    )


def _ways(wish: Wish, policy: PlanPolicy) -> tuple[WayOut, ...]:
    if wish.target is None:
        return ()
    return tuple(
        ways_out(
            specs.spec_for(specs.with_context(wish.target, wish.context), wish.pool.host),
            plans.loaded_models(wish.pool, unpinned=wish.unpinned),
            plans.budget_of(wish.pool),
            policy=policy,
            must_go=plans.same_server(wish.target),
            need_of_context=specs.need_of_context(wish.target),
            context_now=_context(wish),
            others=_others(wish.target),
        )
    )


def _context(wish: Wish) -> int | None:
    """Tokens of context that were asked for; the model's own length when its definition names none."""
    if wish.context is not None or wish.target is None:
        return wish.context
    name = specs.CONTEXT_PARAMETER[Runtime.Kind(wish.target.runtime.kind)]
    return wish.target.parameters.get(name) or wish.target.context_length


def _others(target: ModelDefinition) -> Sequence[ModelSpec]:
    """Models that could be loaded instead: of the same pool, there, and of the same use."""
    rows = ModelDefinition.objects.with_runtime().filter(
        runtime__pool=target.runtime.pool_id, runtime__is_enabled=True, is_available=True
    )
    same_use = [row for row in rows.exclude(pk=target.pk) if row.is_embedding == target.is_embedding]
    return list(specs.specs_for(same_use).values())
