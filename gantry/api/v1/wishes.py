"""From what a client wants to the one action that does it."""

from __future__ import annotations

from collections.abc import Callable

from gantry.api.v1.bodies_jobs import JobIn, Wanted
from gantry.planning.states import JobKind
from gantry.planning.types import SwitchPlan
from models_admin import actions
from models_admin.actions import SwitchDecision
from models_admin.actor import Actor
from models_admin.exceptions import InvalidRequest
from models_admin.models import MemoryPool, ModelDefinition, SwitchJob

_SIMPLE: dict[JobKind, Callable[..., SwitchDecision]] = {
    JobKind.UNLOAD: actions.request_unload,
    JobKind.RESTART: actions.request_restart,
    JobKind.PRELOAD: actions.request_preload,
}


def request_job(wanted: JobIn, actor: Actor) -> SwitchDecision:
    """Have it done.

    Raises:
        ActionRefused: one of its kinds.
    """
    _refuse_misplaced(wanted)
    if wanted.kind == JobKind.UNLOAD_ALL:
        return actions.request_unload_all(_pool(wanted), actor=actor)
    model = _model(wanted)
    if wanted.kind == JobKind.SWITCH:
        return actions.request_switch(
            model, actor=actor, confirm=wanted.confirm, context=wanted.context, unpin=wanted.unpin
        )
    if wanted.kind == JobKind.CALL:
        messages = [message.model_dump() for message in wanted.messages]
        return actions.request_call(
            model, messages, actor=actor, sampling=wanted.sampling, plan_was_shown=wanted.confirm
        )
    return _SIMPLE[wanted.kind](model, actor=actor)


def foresee(wanted: Wanted, actor: Actor) -> tuple[SwitchPlan, SwitchJob | None]:
    """What it would do now, and the switch that it would take over from.

    Raises:
        ActionRefused: one of its kinds.
    """
    _refuse_misplaced(wanted)
    if wanted.kind == JobKind.UNLOAD_ALL:
        return actions.preview_unload_all(_pool(wanted), actor=actor), None
    model = _model(wanted)
    plan = actions.preview(model, kind=wanted.kind, actor=actor, context=wanted.context, unpin=wanted.unpin)
    return plan, actions.switch_to_take_over(model) if wanted.kind == JobKind.SWITCH else None


def _refuse_misplaced(wanted: Wanted) -> None:
    """What would be passed over in silence is refused."""
    misplaced = [name for name, kind in _ONLY_OF.items() if getattr(wanted, name, None) and wanted.kind != kind]
    if misplaced:
        errors = [(name, f"goes with the kind {_ONLY_OF[name]} only") for name in misplaced]
        raise InvalidRequest("Some fields do not go with this kind of job.", errors)


_ONLY_OF = {
    "context": JobKind.SWITCH,
    "unpin": JobKind.SWITCH,
    "messages": JobKind.CALL,
    "sampling": JobKind.CALL,
    "host": JobKind.UNLOAD_ALL,
}


def _model(wanted: Wanted) -> ModelDefinition:
    if not wanted.model_id:
        raise InvalidRequest("Say which model.", [("model_id", f"is needed for the kind {wanted.kind}")])
    return actions.find_model(wanted.model_id)


def _pool(wanted: Wanted) -> MemoryPool:
    if wanted.model_id:
        raise InvalidRequest("All models are unloaded.", [("model_id", "does not go with the kind unload_all")])
    pools = list(MemoryPool.objects.filter(**({"host": wanted.host} if wanted.host else {}))[:2])
    if len(pools) != 1:
        known = ", ".join(MemoryPool.objects.order_by("host").values_list("host", flat=True)) or "none"
        raise InvalidRequest("Say on which host.", [("host", f"must be one of: {known}")])
    return pools[0]
