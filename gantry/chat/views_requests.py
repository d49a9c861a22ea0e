"""Asking for a model from the chat, and taking that back."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_http_methods, require_POST

from gantry.chat.web import ChatRequest, dialog, done, refused, signed_in
from models_admin import switch_requests
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused
from models_admin.models import ModelDefinition, SwitchRequest


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def ask(request: ChatRequest, pk: int) -> HttpResponse:
    """Say why, and ask; or how it stands with what was asked before."""
    model = get_object_or_404(ModelDefinition.objects.with_runtime(), pk=pk)
    actor = Actor.from_request(request, via="chat")
    try:
        if request.method == "POST":
            switch_requests.ask(model, actor=actor, reason=request.POST.get("reason", ""))
            return done(request)
        switch_requests.check_askable(model, actor=actor)
    except ActionRefused as exc:
        return refused(request, exc, f"You cannot ask for {model.name}")
    context = {
        "model": model,
        "last": switch_requests.last_of(request.user, model),
        "most_characters": switch_requests.MOST_CHARACTERS,
    }
    return dialog(request, "chat/_ask_dialog.html", context)


@require_POST
@signed_in
def withdraw(request: ChatRequest, pk: int) -> HttpResponse:
    """Take back what one has asked for."""
    own = SwitchRequest.objects.select_related("user", "model").filter(user=request.user)
    try:
        switch_requests.withdraw(get_object_or_404(own, pk=pk), actor=Actor.from_request(request, via="chat"))
    except ActionRefused as exc:
        return refused(request, exc, "This cannot be withdrawn")
    return done(request)
