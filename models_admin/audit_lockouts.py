"""Pauses of signing in after too many failures: that one begins, and that somebody lifts it.

axes keeps one row for the failures of a name, an address and a browser. While enough of them are there, sign-in is paused; whoever
deletes them, in the admin or by `manage.py axes_reset…`, lifts the pause. axes tells the database alone of that, and deletes by itself
only what is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from axes.helpers import get_cool_off
from axes.models import AccessAttempt
from axes.signals import user_locked_out
from django.conf import settings
from django.db.models import Sum
from django.db.models.signals import post_delete, pre_delete
from django.http import HttpRequest
from django.utils import timezone

from models_admin import audit
from models_admin.actor import COMMAND, Actor
from models_admin.audit_signals import address_of, known_name, write_refusal
from models_admin.models import AuditEntry

_RECENT = 50  # entries that are looked at, so that nobody can make it slow
_BEGAN, _LIFTED = audit.AuditEvent.SIGN_IN_LOCKED, audit.AuditEvent.SIGN_IN_UNLOCKED
_by: ContextVar[Actor] = ContextVar("lifted_by", default=COMMAND)


def connect() -> None:
    """Listen from now on."""
    user_locked_out.connect(note_lock, dispatch_uid="models_admin.audit.lock")
    pre_delete.connect(_look, sender=AccessAttempt, dispatch_uid="models_admin.audit.before_unlock")
    post_delete.connect(_note_lift, sender=AccessAttempt, dispatch_uid="models_admin.audit.unlock")


@contextmanager
def lifted_by(actor: Actor) -> Iterator[None]:
    """While this runs, pauses are lifted in the actor's name; else it is the command line that does."""
    token = _by.set(actor)
    try:
        yield
    finally:
        _by.reset(token)


def note_lock(*, request: HttpRequest | None, username: str | None, **kwargs: Any) -> None:
    """Too many tries: sign-in is paused for this name and address. axes tells so again at each further try."""
    latest = _latest(known_name(username), address_of(request))
    if latest is None or latest.event != _BEGAN or latest.at <= _since():
        write_refusal(_BEGAN, request, username)


def _look(*, instance: AccessAttempt, **kwargs: Any) -> None:
    """Before a row goes: whether sign-in is paused by it, and by others like it."""
    instance.held_a_pause = instance.attempt_time > _since() and _is_paused(instance)


def _note_lift(*, instance: AccessAttempt, **kwargs: Any) -> None:
    """After it, and all that were to go with it: whether that pause is over. Of several rows of one pause, the first is told of."""
    if not getattr(instance, "held_a_pause", False) or _is_paused(instance):
        return
    name, address = known_name(instance.username), instance.ip_address or ""
    latest = _latest(name, address)
    if latest is None or latest.event != _LIFTED:
        audit.write(_LIFTED, actor=_by.get(), object_text=name, after={"address": address})


def _is_paused(attempt: AccessAttempt) -> bool:
    """As axes counts: the failures of a name from an address, with whatever browser (AXES_LOCKOUT_PARAMETERS)."""
    alike = AccessAttempt.objects.filter(
        username=attempt.username, ip_address=attempt.ip_address, attempt_time__gt=_since()
    )
    failures: int = alike.aggregate(all=Sum("failures_since_start"))["all"] or 0
    return failures >= settings.AXES_FAILURE_LIMIT


def _since() -> datetime:
    """Failures from before are forgotten."""
    return timezone.now() - (get_cool_off() or timedelta(days=365))


def _latest(name: str, address: str) -> AuditEntry | None:
    """What the log told last of pauses of this name and address."""
    entries = AuditEntry.objects.filter(event__in=[_BEGAN, _LIFTED]).order_by("-pk")[:_RECENT]
    return next((entry for entry in entries if (entry.object_text, _paused_address(entry)) == (name, address)), None)


def _paused_address(entry: AuditEntry) -> str:
    return str(entry.after.get("address", "")) if entry.event == _LIFTED else entry.address
