"""Asking for a switch, an unload or a restart: the dialog with the plan, and the click that starts it.

Each address shows the plan on GET (a dialog for htmx, else a page) and does it on POST.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods
from django_htmx.http import reswap, trigger_client_event

from gantry.planning.types import SwitchPlan
from models_admin import actions, rendering
from models_admin.actions import SwitchDecision
from models_admin.audience import Audience
from models_admin.exceptions import ActionRefused, AnotherJobRunning, DoesNotFitNow, InvalidRequest
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance
from models_admin.plan_view import plan_view
from models_admin.snapshots import job_snapshot
from models_admin.usage import people_using
from models_admin.views.common import (
    HtmxRequest,
    actor_of,
    find_model,
    may_see_models,
    render_page,
    render_partial,
    with_headers,
)
from models_admin.ways_out_view import ways_out_views

_ask = require_http_methods(["GET", "HEAD", "POST"])
_HEADINGS = {
    "switch": "{} cannot be loaded now",
    "unload": "{} cannot be unloaded now",
    "restart": "{} cannot be restarted now",
    "preload": "{} cannot be loaded now",
}


@_ask
@may_see_models
def switch(request: HtmxRequest, pk: int) -> HttpResponse:
    """Make a model the one that serves; `context` and `unpin` (repeated) change the plan."""
    try:
        wanted = _wanted(request)
    except ActionRefused as exc:
        return refuse(request, find_model(pk), "switch", exc)
    act = partial(actions.request_switch, confirm="confirm" in request.POST, plan_was_shown=True, **wanted)
    return answer(request, pk, "switch", act, wanted)


@_ask
@may_see_models
def preload(request: HtmxRequest, pk: int) -> HttpResponse:
    """Load a model in the background."""
    return answer(request, pk, "preload", actions.request_preload)


@_ask
@may_see_models
def unload_all(request: HtmxRequest, pk: int) -> HttpResponse:
    """Unload every model of a pool."""
    pool = get_object_or_404(MemoryPool, pk=pk)
    actor = actor_of(request)
    try:
        if request.method == "POST":
            return _accepted(request, None, actions.request_unload_all(pool, actor=actor), "unload_all")
        plan = actions.preview_unload_all(pool, actor=actor)
    except ActionRefused as exc:
        context = {"refusal": exc, "heading": "Nothing can be unloaded now", **_running(exc)}
        return with_headers(_show(request, context, status=exc.status), exc)
    action_url = reverse("admin:pool_unload_all", args=[pk])
    return _show(
        request,
        {
            "kind": "unload",
            "plan": plan_view(plan.as_dict(), _answers(plan), people=_people(plan)),
            "action_url": action_url,
        },
    )


@_ask
@may_see_models
def unload(request: HtmxRequest, pk: int) -> HttpResponse:
    """Unload a model."""
    return answer(request, pk, "unload", actions.request_unload)


@_ask
@may_see_models
def restart(request: HtmxRequest, pk: int) -> HttpResponse:
    """Load a model again."""
    return answer(request, pk, "restart", actions.request_restart)


def _wanted(request: HtmxRequest) -> dict[str, Any]:
    """What the plan is to differ in: `context` and `unpin` of the address or the form.

    Raises:
        InvalidRequest: the context is no whole number.
    """
    given = request.POST if request.method == "POST" else request.GET
    context = given.get("context", "").strip()
    if context and not (context.isascii() and context.isdecimal() and len(context) < 10):
        raise InvalidRequest("The context has to be a whole number of tokens.", [("context", "must be a whole number")])
    return {"context": int(context) if context else None, "unpin": tuple(given.getlist("unpin"))}


def answer(
    request: HtmxRequest,
    pk: int,
    kind: str,
    act: Callable[..., SwitchDecision],
    wanted: dict[str, Any] | None = None,
    *,
    action_url: str = "",
    lead: str = "",
) -> HttpResponse:
    """The plan on GET; on POST what `act` does, or the plan again where it has to be confirmed.

    Args:
        action_url: where the dialog's button leads, when not back to the address of this kind.
        lead: a sentence above the plan.
    """
    model = find_model(pk)
    try:
        if request.method == "POST":
            decision = act(model, actor=actor_of(request))
            if decision.status != "needs_confirmation":
                return _accepted(request, model, decision, kind)
        plan = actions.preview(model, kind=kind, actor=actor_of(request), **(wanted or {}))
    except ActionRefused as exc:
        return refuse(request, model, kind, exc)
    taken_over = actions.switch_to_take_over(model) if kind == "switch" else None
    return _show(
        request,
        {
            "model": model,
            "kind": kind,
            "plan": plan_view(plan.as_dict(), _answers(plan), _active_name(), _people(plan)),
            "wanted": wanted,
            "lead": lead,
            "action_url": action_url or reverse(f"admin:model_{kind}", args=[model.pk]),
            "taken_over": job_snapshot(taken_over) if taken_over else None,
        },
    )


def refuse(request: HtmxRequest, model: ModelDefinition, kind: str, exc: ActionRefused) -> HttpResponse:
    """Why it cannot be done now, and the ways out."""
    context = {"model": model, "kind": kind, **_refusal_context(request, model, kind, exc)}
    return with_headers(_show(request, context, status=exc.status), exc)


def _active_name() -> str:
    active = ModelInstance.objects.filter(is_active=True).select_related("model").first()
    return active.model.name if active else ""


def _show(request: HtmxRequest, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    if request.htmx:
        # A POST from the dialog that is refused comes back into the dialog.
        return reswap(render_partial(request, "models_admin/_confirm.html", context, status=status), "innerHTML")
    title = context["plan"].title if "plan" in context else context["heading"]
    return render_page(
        request, "models_admin/confirm.html", {"title": title, "content_title": title, **context}, status=status
    )


def _accepted(request: HtmxRequest, model: ModelDefinition | None, decision: SwitchDecision, kind: str) -> HttpResponse:
    note = {
        "already_loaded": f"{model.name} is {'loaded' if kind == 'preload' else 'active'} already." if model else "",
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


def _people(plan: SwitchPlan) -> dict[str, int]:
    """Model id -> people who use it now, of those that the plan unloads."""
    using = people_using()
    ids = ModelDefinition.objects.filter(pk__in=using).values_list("model_id", "pk")
    return {model_id: using[pk] for model_id, pk in ids}


def _refusal_context(request: HtmxRequest, model: ModelDefinition, kind: str, exc: ActionRefused) -> dict[str, Any]:
    context: dict[str, Any] = {
        "refusal": exc,
        "heading": _HEADINGS[kind].format(model.name),
        "may_change": request.user.has_perm("models_admin.change_modeldefinition"),
    }
    if isinstance(exc, DoesNotFitNow):
        context["short_bytes"] = max(0, exc.required_bytes - exc.available_bytes)
        context["ways_out"] = ways_out_views(model, exc.ways_out, may_change=context["may_change"])
    return {**context, **_running(exc)}


def _running(exc: ActionRefused) -> dict[str, Any]:
    return {"running_job": exc.job} if isinstance(exc, AnotherJobRunning) else {}
