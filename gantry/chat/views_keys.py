"""The page of API keys: everybody makes, sees and revokes their own; who may see all keys sees all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.views.decorators.http import require_http_methods

from gantry.chat.forms_keys import KeyForm
from gantry.chat.web import ChatRequest, dialog, refused, signed_in
from models_admin import keys
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused, InvalidRequest
from models_admin.models import ApiKey
from models_admin.models.api_key import Scope

LISTED = 200


@dataclass(frozen=True, slots=True)
class KeyLine:
    """A key as the list shows it."""

    key: ApiKey
    state: str  # valid, revoked, expired
    scopes: tuple[str, ...]
    is_own: bool
    may_revoke: bool


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def page(request: ChatRequest) -> HttpResponse:
    """The keys and the form for a new one. A key that was just made is shown in this answer and never again."""
    if request.method != "POST":
        return _page(request, KeyForm(request.user))
    form = KeyForm(request.user, request.POST)
    if not form.is_valid():
        return _page(request, form, status=422)
    try:
        key, token = keys.create_key(request.user, actor=_actor(request), **form.wanted)
    except InvalidRequest as exc:
        form.add_refusal(exc)
        return _page(request, form, status=exc.status)
    except ActionRefused as exc:
        form.add_error(None, f"{exc} {exc.hint}".strip())
        return _page(request, form, status=exc.status)
    response = _page(
        request, KeyForm(request.user), {"new_key": key, "token": token, "curl": _curl(request, key, token)}
    )
    add_never_cache_headers(response)
    return response


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def revoke(request: ChatRequest, pk: int) -> HttpResponse:
    """End a key, after asking."""
    actor = _actor(request)
    key = get_object_or_404(keys.keys_seen_by(actor), pk=pk)
    if request.method != "POST":
        return dialog(request, "chat/_revoke_dialog.html", {"key": key})
    try:
        keys.revoke_key(key, actor=actor)
    except ActionRefused as exc:
        return refused(request, exc, "This key cannot be revoked")
    messages.success(request, f"{key} was revoked: from now on it is refused.")
    return redirect("chat:keys")


def _page(
    request: ChatRequest, form: KeyForm, more: dict[str, Any] | None = None, *, status: int = 200
) -> HttpResponse:
    actor = _actor(request)
    found = list(keys.keys_seen_by(actor).order_by("-id")[: LISTED + 1])
    context = {
        "form": form,
        "lines": [_line(key, actor) for key in found[:LISTED]],
        "has_more": len(found) > LISTED,
        "listed": LISTED,
        "sees_all": actor.may("view_apikey"),
    }
    return render(request, "chat/keys.html", {**context, **(more or {})}, status=status)


def _line(key: ApiKey, actor: Actor) -> KeyLine:
    is_own, state = key.user == actor.user, _state(key, timezone.now())
    return KeyLine(
        key=key,
        state=state,
        scopes=tuple(Scope(scope).label for scope in Scope.values if scope in key.scopes),
        is_own=is_own,
        may_revoke=state == "valid" and (is_own or actor.may("change_apikey")),
    )


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.is_valid(now) else "expired"


def _curl(request: ChatRequest, key: ApiKey, token: str) -> str:
    """A line for a shell that uses the key; empty when the key may not see the state of models."""
    if not Actor(request.user, "rest", key=key).may_see_status:
        return ""
    return f'curl -H "Authorization: Bearer {token}" {request.build_absolute_uri("/v1/models/status")}'


def _actor(request: ChatRequest) -> Actor:
    return Actor.from_request(request, via="page")
