"""The one door in: every mutation that a page, the chat, an endpoint or a command asks for.

Each function checks permission, writes row and audit entry in one transaction, and lets tasks and live events leave on commit.
All raise `ActionRefused` subclasses (models_admin.exceptions), which carry a sentence for people and what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from gantry import live
from gantry.live import JobSnapshot
from gantry.modelfiles.sampling import validate_sampling
from gantry.planning.states import TERMINAL_STATES, JobKind, JobState
from gantry.planning.types import SwitchPlan
from gantry.runtimes.typed_fields import ParameterInvalid
from models_admin import audit, job_moves, job_requests, load_checks, plans
from models_admin.actor import Actor
from models_admin.exceptions import (
    ActionRefused,
    InvalidRequest,
    ModelUnknown,
    NotAllowed,
    NotDownloaded,
    NotLoaded,
    RuntimeUnusable,
)
from models_admin.job_requests import (
    HALF_DONE_PERCENT,
    Consent,
    SwitchDecision,
    need_permission,
    put_back_after,
    switch_to_take_over,
)
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from models_admin.plans import Wish
from models_admin.recovery import send_to_host
from models_admin.runtime_access import lists_models
from models_admin.snapshots import job_snapshot
from models_admin.specs import CONTEXT_PARAMETER

LEAST_CONTEXT, MOST_CONTEXT = 256, 16_777_216  # tokens


def find_model(model_id: str) -> ModelDefinition:
    """The model with this id.

    Raises:
        ModelUnknown: there is none.
    """
    model = ModelDefinition.objects.with_runtime().filter(model_id=model_id).first()
    if model is None:
        raise ModelUnknown(f"There is no model “{model_id}”.", "The Models tab lists the models there are.")
    return model


def preview(
    model: ModelDefinition,
    *,
    kind: str = "switch",
    actor: Actor,
    context: int | None = None,
    unpin: Collection[str] = (),
) -> SwitchPlan:
    """What a job of this kind would do now, without doing anything.

    Uses the last reading of the memory (at most a few seconds old); the job measures again. While another switch is under way
    (`switch_to_take_over`) nobody can say what will be loaded when it has ended: then the plan has no steps.
    """
    need_permission(actor, "switch_model", "switch models")
    wish = _wish(model, JobKind(kind), context=context, unpin=unpin)
    load_checks.check_possible(model, wish.kind)
    if wish.kind == JobKind.SWITCH and switch_to_take_over(model) is not None:
        return plans.empty_plan(wish)
    return job_requests.plan_or_refuse(wish)


def preview_unload_all(pool: MemoryPool, *, actor: Actor) -> SwitchPlan:
    """What unloading all models of a pool would do now."""
    need_permission(actor, "switch_model", "unload models")
    return plans.make_plan(Wish(JobKind.UNLOAD_ALL, pool, None))


def request_switch(
    model: ModelDefinition,
    *,
    actor: Actor,
    confirm: bool = False,
    plan_was_shown: bool = False,
    context: int | None = None,
    unpin: Collection[str] = (),
) -> SwitchDecision:
    """Make `model` the one that serves.

    A switch to another model that is under way is cancelled and superseded; once it is half done, only with `confirm`.
    Where policy asks before unloading, a plan that unloads something needs `confirm` too, unless `plan_was_shown` to the one
    who asks.

    Args:
        context: tokens of context for this load, instead of what the definition says.
        unpin: ids of models to unpin first, so that they may be unloaded; needs the right to change models.
    """
    return job_requests.request(
        _wish(model, JobKind.SWITCH, context=context, unpin=unpin),
        actor=actor,
        consent=Consent(takes_over=confirm, unloads=confirm or plan_was_shown),
    )


def request_unload(model: ModelDefinition, *, actor: Actor) -> SwitchDecision:
    """Unload a model without loading another."""
    return job_requests.request(_wish(model, JobKind.UNLOAD), actor=actor)


def request_unload_all(pool: MemoryPool, *, actor: Actor) -> SwitchDecision:
    """Unload everything that a pool holds, pinned models too: all of it was asked for.

    Raises:
        NotLoaded: it holds nothing.
    """
    if not ModelInstance.objects.filter(runtime__pool=pool).exists():
        raise NotLoaded("No model is loaded.", "There is nothing to unload.")
    return job_requests.request(Wish(JobKind.UNLOAD_ALL, pool, None), actor=actor)


def request_restart(model: ModelDefinition, *, actor: Actor) -> SwitchDecision:
    """Unload a model, or clear away what is left of it, and load it again."""
    decision = job_requests.request(_wish(model, JobKind.RESTART), actor=actor)
    if decision.status == "accepted":
        # Somebody looked at it: what it did before does not count any more.
        ModelDefinition.objects.filter(pk=model.pk).update(paused_until=None, crash_times=[])
    return decision


def request_preload(model: ModelDefinition, *, actor: Actor) -> SwitchDecision:
    """Load a model beside what is there, in the background; nothing is unloaded for it and nothing made active.

    Raises:
        DoesNotFitNow: there is no room beside what is loaded.
    """
    return job_requests.request(_wish(model, JobKind.PRELOAD), actor=actor)


def request_call(
    model: ModelDefinition,
    messages: Sequence[Mapping[str, str]],
    *,
    actor: Actor,
    sampling: Mapping[str, Any] | None = None,
    plan_was_shown: bool = False,
) -> SwitchDecision:
    """Switch to a model, make one chat call, and put everything back as it was, also when the call fails.

    The answer stands in the job's `result` once it has ended.

    Args:
        messages: {role, content} each, at least one.
        sampling: temperature, max_tokens … as a model's own defaults are given, beside these.

    Raises:
        InvalidRequest: the messages or the sampling make no sense.
    """
    options = {"messages": _checked(messages), "sampling": _checked_sampling(sampling or {})}
    return job_requests.request(
        _wish(model, JobKind.CALL), actor=actor, consent=Consent(unloads=plan_was_shown), options=options
    )


def cancel_job(job: SwitchJob, *, actor: Actor) -> None:
    """Ask a job to end; it puts back what it has unloaded. Cancelling what has ended, or twice, changes nothing."""
    if not may_cancel(job, actor):
        raise NotAllowed("Only the one who asked, or an administrator, can cancel this.", "Ask them to cancel it.")
    with transaction.atomic():
        asked = (
            SwitchJob.objects.unfinished()
            .filter(pk=job.pk, cancel_requested_at=None)
            .update(cancel_requested_at=timezone.now(), cancelled_by_name=actor.name)
        )
        if not asked:
            return
        audit.write(audit.AuditEvent.JOB_CANCEL, actor=actor, object_text=job.target_name, job=job)
        job.refresh_from_db()
        # Nobody works on it: it ends here. One that took over from another still owes what that one unloaded.
        if job.state == JobState.WAITING and not job.supersedes.exists():
            job_moves.finish(job, JobState.CANCELLED, text="Cancelled", actor=actor)
        else:
            live.publish_job(job_snapshot(job))


def may_cancel(job: SwitchJob | JobSnapshot, actor: Actor) -> bool:
    """Whether the actor may cancel this job: the one who asked for it, or who may cancel any."""
    if isinstance(job, SwitchJob):
        is_over, asked_by = job.state in TERMINAL_STATES, job.requested_by_id
    else:
        is_over, asked_by = job["is_finished"], job.get("requested_by_id")
    if is_over:
        return False
    # By account: a name may be given to somebody else.
    is_own = actor.user is not None and actor.user.pk == asked_by and actor.has_scope("switch")
    return is_own or actor.may("cancel_any_job")


def set_pinned(model: ModelDefinition, is_pinned: bool, *, actor: Actor) -> None:
    """Pin a model, so that no switch to another one unloads it, or unpin it."""
    need_permission(actor, "change_modeldefinition", "pin models")
    with transaction.atomic():
        job_requests.set_pins([(model, is_pinned)], actor=actor)


def request_refresh(runtime: Runtime, *, actor: Actor) -> None:
    """Have the worker of a runtime's host ask the server for its models now. What is new is audited when it is found.

    Raises:
        NotAllowed: the actor may neither switch models nor change runtimes.
        RuntimeUnusable: it is switched off, or lists no models by itself.
        Unavailable: the broker does not answer.
    """
    if not actor.may("change_runtime"):
        need_permission(actor, "switch_model", "ask servers for their models")
    if not runtime.is_enabled:
        raise RuntimeUnusable(f"{runtime.name} is switched off.", "Switch it on under Runtimes first.")
    if not lists_models(runtime):
        raise RuntimeUnusable(f"{runtime.name} has no list of models.", "Scan the folder that its models lie in.")
    send_to_host(runtime.pool.host, "models_admin.tasks.refresh_models", [runtime.pk])


def _wish(model: ModelDefinition, kind: JobKind, *, context: int | None = None, unpin: Collection[str] = ()) -> Wish:
    if context is not None and not LEAST_CONTEXT <= context <= MOST_CONTEXT:
        raise InvalidRequest(
            f"A context of {context} tokens cannot be used.", [("context", f"must be at least {LEAST_CONTEXT}")]
        )
    if context is not None and model.runtime.kind not in CONTEXT_PARAMETER:
        raise InvalidRequest(
            f"{model.runtime.name} takes no context length for a load.", [("context", "must be left out")]
        )
    return Wish(kind, model.runtime.pool, model, context, tuple(unpin))


def _checked(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    wanted = [{"role": str(m.get("role", "")), "content": str(m.get("content", ""))} for m in messages]
    if not wanted or any(m["role"] not in {"system", "user", "assistant"} or not m["content"] for m in wanted):
        raise InvalidRequest(
            "The messages cannot be used.",
            [("messages", "must be a list of {role, content}; role is system, user or assistant")],
        )
    return wanted


def _checked_sampling(sampling: Mapping[str, Any]) -> dict[str, Any]:
    try:
        validate_sampling(sampling)
    except ParameterInvalid as exc:
        errors = [(f"sampling.{name}", message) for name, message in exc.errors]
        raise InvalidRequest("The sampling cannot be used.", errors) from exc
    return dict(sampling)


__all__ = [
    "HALF_DONE_PERCENT",
    "ActionRefused",
    "NotDownloaded",
    "SwitchDecision",
    "cancel_job",
    "find_model",
    "may_cancel",
    "preview",
    "preview_unload_all",
    "put_back_after",
    "request_call",
    "request_preload",
    "request_refresh",
    "request_restart",
    "request_switch",
    "request_unload",
    "request_unload_all",
    "set_pinned",
    "switch_to_take_over",
]
