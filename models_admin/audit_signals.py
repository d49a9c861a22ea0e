"""Sign-ins, failed sign-ins and sign-outs, as Django tells of them, and accounts that Django's own code changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models.signals import post_save, pre_save
from django.http import HttpRequest

from models_admin import audit
from models_admin.actor import Actor

UNKNOWN = "an unknown name"


def connect() -> None:
    """Listen from now on."""
    user_logged_in.connect(note_sign_in, dispatch_uid="models_admin.audit.sign_in")
    user_logged_out.connect(note_sign_out, dispatch_uid="models_admin.audit.sign_out")
    user_login_failed.connect(note_failure, dispatch_uid="models_admin.audit.failure")


@contextmanager
def accounts_noted(actor: Actor) -> Iterator[None]:
    """While this runs, people who are added or get another password are written down in the actor's name.

    For Django's own commands, which save by themselves: the entry follows the row at once, but in a transaction of its own, because
    one around the whole command would lock the database while it waits for somebody to type.
    """
    stored: dict[int, str] = {}

    def remember(*, instance: User, **kwargs: Any) -> None:
        stored.update(User.objects.filter(pk=instance.pk).values_list("pk", "password"))

    def note(*, instance: User, created: bool, **kwargs: Any) -> None:
        name = instance.get_username()
        if created:
            after = {"username": name, "is_staff": instance.is_staff, "is_superuser": instance.is_superuser}
            audit.write(audit.AuditEvent.USER_CREATE, actor=actor, object_text=name, after=after)
        elif stored.get(instance.pk) != instance.password:
            note_password(instance, actor=actor)

    pre_save.connect(remember, sender=User, weak=False)
    post_save.connect(note, sender=User, weak=False)
    try:
        yield
    finally:
        pre_save.disconnect(remember, sender=User)
        post_save.disconnect(note, sender=User)


def note_password(user: User, *, actor: Actor) -> None:
    """Somebody's password was changed; which one it is stands nowhere."""
    audit.write(
        audit.AuditEvent.USER_CHANGE, actor=actor, object_text=user.get_username(), after={"password": "changed"}
    )


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
        write_refusal(audit.AuditEvent.SIGN_IN_FAILED, request, credentials.get("username"))


def write_refusal(event: audit.AuditEvent, request: HttpRequest | None, username: object) -> None:
    """Somebody was kept from signing in, with this name."""
    actor = Actor(None, "page", address_of(request))
    audit.write(event, actor=actor, object_text=known_name(username), outcome="failed", name="somebody")


def known_name(username: object) -> str:
    """The name only of somebody who exists: people type their password into the wrong field (I8)."""
    name = str(username or "")
    is_known = get_user_model()._default_manager.filter(username=name).exists()  # noqa: SLF001 - Django's documented name
    return name if is_known else UNKNOWN


def _actor(request: HttpRequest, user: User) -> Actor:
    return Actor(user, "page", address_of(request))


def address_of(request: HttpRequest | None) -> str:
    """Where a request comes from; empty when there is none."""
    return (request.META.get("REMOTE_ADDR") or "") if request else ""
