"""Choosing a model and cancelling a switch from the chat."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_http_methods, require_POST

from gantry.chat.web import ChatRequest, dialog, done, refused, signed_in
from gantry.planning.states import StepKind
from gantry.planning.types import SwitchPlan
from models_admin import actions
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused
from models_admin.models import ModelDefinition, ModelInstance, SwitchJob
from models_admin.plan_view import plan_view
from models_admin.snapshots import job_snapshot


@require_http_methods(["GET", "POST"])
@signed_in
def switch(request: ChatRequest, pk: int) -> HttpResponse:
    """Show what a switch would do; do it once that was confirmed, or at once when nothing is loaded or unloaded for it."""
    model = get_object_or_404(ModelDefinition.objects.with_runtime(), pk=pk)
    actor = Actor.from_request(request, via="chat")
    try:
        plan = actions.preview(model, actor=actor)
        taken_over = actions.switch_to_take_over(model)
        is_asked = "confirmed" in request.POST or not (taken_over or _needs_confirmation(plan))
        if request.method == "POST" and is_asked:
            was_shown = "confirmed" in request.POST
            decision = actions.request_switch(
                model, actor=actor, confirm="confirm" in request.POST, plan_was_shown=was_shown
            )
            if decision.status != "needs_confirmation":
                return done(request)
    except ActionRefused as exc:
        return refused(request, exc, f"Cannot switch to {model.name}")
    active = ModelInstance.objects.filter(is_active=True).select_related("model").first()
    context = {
        "model": model,
        "plan": plan_view(plan.as_dict(), former=active.model.name if active else ""),
        "taken_over": job_snapshot(taken_over) if taken_over else None,
    }
    return dialog(request, "chat/_switch_dialog.html", context)


@require_POST
@signed_in
def cancel(request: ChatRequest, pk: int) -> HttpResponse:
    """Cancel a switch."""
    job = get_object_or_404(SwitchJob, pk=pk)
    try:
        actions.cancel_job(job, actor=Actor.from_request(request, via="chat"))
    except ActionRefused as exc:
        return refused(request, exc, "This cannot be cancelled")
    return done(request)


def _needs_confirmation(plan: SwitchPlan) -> bool:
    return bool(plan.evicted) or any(step.kind == StepKind.LOAD for step in plan.steps)
