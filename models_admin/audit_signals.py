"""Sign-ins, failed sign-ins and sign-outs, as Django and axes tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from axes.helpers import get_cool_off
from axes.signals import user_locked_out
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest
from django.utils import timezone

from models_admin import audit
from models_admin.actor import Actor
from models_admin.models import AuditEntry

UNKNOWN = "an unknown name"
RECENT = 50


def connect() -> None:
    """Listen from now on."""
    user_logged_in.connect(note_sign_in, dispatch_uid="models_admin.audit.sign_in")
    user_logged_out.connect(note_sign_out, dispatch_uid="models_admin.audit.sign_out")
    user_login_failed.connect(note_failure, dispatch_uid="models_admin.audit.failure")
    user_locked_out.connect(note_lock, dispatch_uid="models_admin.audit.lock")


def note_sign_in(*, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    """Somebody has signed in. A session that code makes for itself, without a request that came in, is no sign-in."""
    if request is not None and request.method is not None:
        audit.write(audit.AuditEvent.SIGN_IN, actor=_actor(request, user), object_text=user.get_username())


def note_sign_out(*, request: HttpRequest | None, user: User | None, **kwargs: Any) -> None:
    """Somebody has signed out; nobody, when the session had ended before."""
    if user is not None and request is not None and request.method is not None:
        audit.write(audit.AuditEvent.SIGN_OUT, actor=_actor(request, user), object_text=user.get_username())


def note_failure(*, credentials: Mapping[str, Any], request: HttpRequest | None = None, **kwargs: Any) -> None:
    """Somebody has failed to sign in. While sign-in is paused for them, that is written once, not for each try."""
    if not getattr(request, "axes_locked_out", False):
        _write_refusal(audit.AuditEvent.SIGN_IN_FAILED, request, credentials.get("username"))


def note_lock(*, request: HttpRequest | None, username: str | None, **kwargs: Any) -> None:
    """Too many tries: sign-in is paused for this name and address. axes tells so again at each further try."""
    if not _is_written(_known_name(username), _address(request)):
        _write_refusal(audit.AuditEvent.SIGN_IN_LOCKED, request, username)


def _write_refusal(event: audit.AuditEvent, request: HttpRequest | None, username: object) -> None:
    actor = Actor(None, "page", _address(request))
    audit.write(event, actor=actor, object_text=_known_name(username), outcome="failed", name="somebody")


def _is_written(name: str, address: str) -> bool:
    """Whether the pause that holds now is in the log; looks at the last few only, so that nobody can make it slow."""
    since = timezone.now() - (get_cool_off() or timedelta(days=365))
    pauses = AuditEntry.objects.filter(event=audit.AuditEvent.SIGN_IN_LOCKED).order_by("-pk")[:RECENT]
    return any((entry.object_text, entry.address) == (name, address) and entry.at > since for entry in pauses)


def _known_name(username: object) -> str:
    """The name only of somebody who exists: people type their password into the wrong field (I8)."""
    name = str(username or "")
    is_known = get_user_model()._default_manager.filter(username=name).exists()  # noqa: SLF001 - Django's documented name
    return name if is_known else UNKNOWN


def _actor(request: HttpRequest, user: User) -> Actor:
    return Actor(user, "page", _address(request))


def _address(request: HttpRequest | None) -> str:
    return (request.META.get("REMOTE_ADDR") or "") if request else ""
