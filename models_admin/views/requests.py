"""Answering people who ask for a model: approving is a switch, with the same dialog; declining takes a word to them."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods
from django_htmx.http import reswap, trigger_client_event

from models_admin import switch_requests
from models_admin.actions import SwitchDecision
from models_admin.actor import Actor
from models_admin.audience import Audience
from models_admin.exceptions import ActionRefused
from models_admin.models import ModelDefinition, SwitchRequest
from models_admin.rendering import render_requests
from models_admin.views.common import PARTIAL_HEADER, HtmxRequest, actor_of, may_see_models, render_page, render_partial
from models_admin.views.switching import answer, refuse

_ask = require_http_methods(["GET", "HEAD", "POST"])


@_ask
@may_see_models
def approve(request: HtmxRequest, pk: int) -> HttpResponse:
    """Show what the switch would do; do it."""
    wanted = _find(pk)

    def act(model: ModelDefinition, *, actor: Actor) -> SwitchDecision:
        return switch_requests.approve(wanted, actor=actor, confirm="confirm" in request.POST, plan_was_shown=True)

    try:
        switch_requests.check_answerable(wanted, actor=actor_of(request))
    except ActionRefused as exc:
        return refuse(request, wanted.model, "switch", exc)
    reason = f": “{wanted.reason}”" if wanted.reason else "."
    lead = f"{wanted.user.get_username()} asks for it{reason}"
    url = reverse("admin:request_approve", args=[pk])
    return answer(request, wanted.model_id, "switch", act, action_url=url, lead=lead)


@_ask
@may_see_models
def decline(request: HtmxRequest, pk: int) -> HttpResponse:
    """Ask for a word to the person; say no."""
    wanted, refusal = _find(pk), None
    try:
        switch_requests.check_answerable(wanted, actor=actor_of(request))
        if request.method == "POST":
            switch_requests.decline(wanted, actor=actor_of(request), answer=request.POST.get("answer", ""))
            return _declined(request)
    except ActionRefused as exc:
        refusal = exc
    context = {"request_row": wanted, "refusal": refusal, "most_characters": switch_requests.MOST_CHARACTERS}
    status = refusal.status if refusal else 200
    if request.htmx:
        return reswap(render_partial(request, "models_admin/_decline.html", context, status=status), "innerHTML")
    title = f"Decline {wanted.model.name}?"
    page = {"title": title, "content_title": title, **context}
    return render_page(request, "models_admin/decline.html", page, status=status)


def _declined(request: HtmxRequest) -> HttpResponse:
    if not request.htmx:
        return redirect("admin:models_tab")
    response = HttpResponse(render_requests(Audience.of(actor_of(request), None)))
    response.headers[PARTIAL_HEADER] = "1"
    return trigger_client_event(response, "gantry:close-dialog", after="receive")


def _find(pk: int) -> SwitchRequest:
    return get_object_or_404(SwitchRequest.objects.select_related("user", "model"), pk=pk)
