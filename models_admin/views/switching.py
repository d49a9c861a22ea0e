"""Asking for a switch, an unload or a restart: the dialog with the plan, and the click that starts it.

Each address shows the plan on GET (a dialog for htmx, else a page) and does it on POST.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_http_methods
from django_htmx.http import reswap, trigger_client_event

from gantry.planning.types import SwitchPlan
from models_admin import actions, rendering
from models_admin.actions import SwitchDecision
from models_admin.audience import Audience
from models_admin.exceptions import ActionRefused, AnotherJobRunning, DoesNotFitNow
from models_admin.models import ModelDefinition, ModelInstance
from models_admin.plan_view import plan_view
from models_admin.snapshots import job_snapshot
from models_admin.views.common import HtmxRequest, actor_of, find_model, may_see_models, render_page, render_partial

_ask = require_http_methods(["GET", "HEAD", "POST"])
_HEADINGS = {
    "switch": "{} cannot be loaded now",
    "unload": "{} cannot be unloaded now",
    "restart": "{} cannot be restarted now",
}


@_ask
@may_see_models
def switch(request: HtmxRequest, pk: int) -> HttpResponse:
    """Make a model the one that serves."""
    return _answer(request, pk, "switch", partial(actions.request_switch, confirm="confirm" in request.POST))


@_ask
@may_see_models
def unload(request: HtmxRequest, pk: int) -> HttpResponse:
    """Unload a model."""
    return _answer(request, pk, "unload", actions.request_unload)


@_ask
@may_see_models
def restart(request: HtmxRequest, pk: int) -> HttpResponse:
    """Load a model again."""
    return _answer(request, pk, "restart", actions.request_restart)


def _answer(request: HtmxRequest, pk: int, kind: str, act: Callable[..., SwitchDecision]) -> HttpResponse:
    model = find_model(pk)
    try:
        if request.method == "POST":
            decision = act(model, actor=actor_of(request))
            if decision.status != "needs_confirmation":
                return _accepted(request, model, decision)
        plan = actions.preview(model, kind=kind, actor=actor_of(request))
    except ActionRefused as exc:
        return _show(
            request, {"model": model, "kind": kind, **_refusal_context(request, model, kind, exc)}, status=exc.status
        )
    taken_over = actions.switch_to_take_over(model) if kind == "switch" else None
    return _show(
        request,
        {
            "model": model,
            "kind": kind,
            "plan": plan_view(plan.as_dict(), _answers(plan)),
            "taken_over": job_snapshot(taken_over) if taken_over else None,
        },
    )


def _show(request: HtmxRequest, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    if request.htmx:
        # A POST from the dialog that is refused comes back into the dialog.
        return reswap(render_partial(request, "models_admin/_confirm.html", context, status=status), "innerHTML")
    title = context["plan"].title if "plan" in context else context["heading"]
    return render_page(
        request, "models_admin/confirm.html", {"title": title, "content_title": title, **context}, status=status
    )


def _accepted(request: HtmxRequest, model: ModelDefinition, decision: SwitchDecision) -> HttpResponse:
    note = {
        "already_loaded": f"{model.name} is active already.",
        "joined": f"{decision.job.requested_by_name} has asked for this already." if decision.job else "",
    }.get(decision.status, "")
    if not request.htmx:
        if note:
            messages.info(request, note)
        return redirect("admin:models_tab")
    job = job_snapshot(decision.job) if decision.job else None
    context = {
        "note": note,
        "has_job": job is not None,
        "audience": Audience.of(actor_of(request), job),
        **rendering.panel_context(job, model),
    }
    response = render_partial(request, "models_admin/_accepted.html", context)
    return trigger_client_event(response, "gantry:close-dialog", after="receive")


def _answers(plan: SwitchPlan) -> dict[str, int]:
    """Model id -> answers it writes now, of those that the plan unloads."""
    busy = ModelInstance.objects.filter(model__model_id__in=[model.model_id for model in plan.evicted])
    return dict(busy.values_list("model__model_id", "busy_count"))


def _refusal_context(request: HtmxRequest, model: ModelDefinition, kind: str, exc: ActionRefused) -> dict[str, Any]:
    context: dict[str, Any] = {
        "refusal": exc,
        "heading": _HEADINGS[kind].format(model.name),
        "may_change": request.user.has_perm("models_admin.change_modeldefinition"),
    }
    if isinstance(exc, AnotherJobRunning):
        context["running_job"] = exc.job
    if isinstance(exc, DoesNotFitNow):
        context["short_bytes"] = max(0, exc.required_bytes - exc.available_bytes - exc.freeable_bytes)
        context["pinned"] = ModelDefinition.objects.filter(is_pinned=True, instances__isnull=False).exclude(pk=model.pk)
    return context
