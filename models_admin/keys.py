"""Keys of programs: made, checked at each use, revoked.

A key reads `gty_ab12cd34_…`: a prefix that may be shown and written down, and a secret of 256 bits that is shown once. The secret is
random, so its plain SHA-256 is enough: there is nothing to guess that a slow hash would have to protect.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from django.contrib.auth.models import User
from django.db import models, transaction
from django.utils import timezone

from models_admin import audit
from models_admin.actor import Actor
from models_admin.exceptions import InvalidRequest, KeyRefused, NotAllowed
from models_admin.models import ApiKey, ModelDefinition
from models_admin.models.api_key import Scope

SECRET_BYTES = 32
LATEST = datetime(
    2200, 1, 1, tzinfo=UTC
)  # of the end of a key: well before that of the calendar, which depends on the zone
_TOKEN = re.compile(r"gty_[0-9a-f]{8}_[0-9a-f]{64}")
USE_WRITTEN_EVERY = timedelta(minutes=1)
_HINT = "Send a valid one as “Authorization: Bearer gty_…”. You can make one on the page API keys."
_NOTHING = object()
_being_noted: dict[str, datetime | None] = {}  # prefix -> the last use that this process has replaced, or is about to
_NO_HASH = "0" * 64  # compared with when there is no such key, so that both ways take the same time


def bearer_token(authorization: str) -> str | None:
    """The token of an `Authorization` header; None when it is not of the kind Bearer."""
    kind, _, token = authorization.strip().partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def authenticate(token: str, *, via: str = "rest", address: str = "") -> Actor:
    """The actor that a key stands for, with its user's rights as they are at this moment. One query, seldom a second.

    Raises:
        KeyRefused: the key is unknown, expired or revoked, or its user is switched off.
    """
    if not _TOKEN.fullmatch(token):
        raise KeyRefused("This is not a key of Gantry.", _HINT)
    prefix, _, secret = token.rpartition("_")
    key = _find(prefix=prefix)
    is_right = hmac.compare_digest(_hashed(secret), key.secret_hash if key else _NO_HASH)
    if key is None or not is_right:
        raise KeyRefused("This key is not known.", _HINT)
    _check_usable(key)
    _note_use(key)
    return Actor(key.user, via, address, key)


def recheck(actor: Actor) -> Actor:
    """The same actor with key, person and rights read anew, for connections that stay open.

    Raises:
        KeyRefused: the key or its user cannot be used any more.
    """
    if actor.key is None:
        return actor if actor.user is None else replace(actor, user=_active_user(actor.user.pk))
    key = _find(pk=actor.key.pk)
    if key is None:
        raise KeyRefused("This key is not known.", _HINT)
    _check_usable(key)
    _note_use(key)
    return replace(actor, user=key.user, key=key)


def create_key(
    user: User,
    *,
    actor: Actor,
    name: str,
    scopes: Collection[str],
    model_ids: Collection[str] = (),
    expires_at: datetime | None = None,
    switches_per_minute: int | None = None,
) -> tuple[ApiKey, str]:
    """Make a key for a user; everybody for themselves.

    Returns:
        The row, and the key as the program needs it. It is kept nowhere.

    Raises:
        NotAllowed: the actor may not make keys for this user, keys that reach further than the one it uses, or set limits.
        InvalidRequest: a field makes no sense.
    """
    _need_right(actor, user, "add_apikey", "make keys for others")
    _check_within(actor, model_ids, expires_at)
    if switches_per_minute is not None and not actor.may("change_switchpolicy"):
        raise NotAllowed("You may not set how often a key may switch.", "Leave it empty, or ask an administrator.")
    _check_fields(name, scopes, model_ids, expires_at)
    prefix, secret = f"gty_{secrets.token_hex(4)}", secrets.token_hex(SECRET_BYTES)
    with transaction.atomic():
        key = ApiKey.objects.create(
            user=user,
            name=name.strip(),
            prefix=prefix,
            secret_hash=_hashed(secret),
            scopes=sorted(set(scopes)),
            model_ids=sorted(set(model_ids)),
            expires_at=expires_at,
            switches_per_minute=switches_per_minute,
        )
        audit.write(audit.AuditEvent.KEY_CREATE, actor=actor, object_text=str(key), after=_facts(key))
    return key, f"{prefix}_{secret}"


def revoke_key(key: ApiKey, *, actor: Actor) -> None:
    """End a key for good; it is refused from now on. Revoking it twice changes nothing."""
    _need_right(actor, key.user, "change_apikey", "revoke keys of others")
    with transaction.atomic():
        now = timezone.now()
        if not ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now):
            return
        key.revoked_at = now
        audit.write(audit.AuditEvent.KEY_REVOKE, actor=actor, object_text=str(key), before=_facts(key))


def keys_seen_by(actor: Actor) -> models.QuerySet[ApiKey]:
    """The keys that an actor may see, newest first, with their users: all, or its own. Nobody sees a secret."""
    keys = ApiKey.objects.select_related("user")
    return keys if actor.may("view_apikey") else keys.filter(user=actor.user)


def _find(**lookup: object) -> ApiKey | None:
    return ApiKey.objects.select_related("user").filter(**lookup).first()


def _hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _active_user(pk: int) -> User:
    user = User.objects.filter(pk=pk, is_active=True).first()
    if user is None:
        raise KeyRefused("This account is switched off.", "Ask an administrator.")
    return user


def _check_usable(key: ApiKey) -> None:
    if key.revoked_at is not None:
        raise KeyRefused(f"The key {key.prefix} was revoked.", _HINT)
    if not key.is_valid(timezone.now()):
        raise KeyRefused(f"The key {key.prefix} has expired.", _HINT)
    if not key.user.is_active:
        raise KeyRefused(f"The account that the key {key.prefix} belongs to is switched off.", "Ask an administrator.")


def _note_use(key: ApiKey) -> None:
    """At most once a minute: a busy key must not become a write for each request, nor one for each that comes during the write."""
    now = timezone.now()
    is_noted = key.last_used_at is not None and key.last_used_at >= now - USE_WRITTEN_EVERY
    if is_noted or _being_noted.get(key.prefix, _NOTHING) == key.last_used_at:
        return
    _being_noted[key.prefix] = key.last_used_at
    try:
        unnoted = models.Q(last_used_at=None) | models.Q(last_used_at__lt=now - USE_WRITTEN_EVERY)
        ApiKey.objects.filter(unnoted, pk=key.pk).update(last_used_at=now)
    except BaseException:
        _being_noted.pop(key.prefix, None)
        raise


def _need_right(actor: Actor, user: User, permission: str, doing: str) -> None:
    is_own = actor.user is not None and actor.user.pk == user.pk and actor.user.is_active
    if not actor.has_scope(Scope.ADMIN):
        raise NotAllowed("This key may not manage keys.", "It needs the scope admin.")
    if not (is_own or actor.may(permission)):
        raise NotAllowed(f"You may not {doing}.", "Ask an administrator.")


def _check_within(actor: Actor, model_ids: Collection[str], expires_at: datetime | None) -> None:
    """A key makes none that may be used for more models than itself, for longer, or more often."""
    own = actor.key
    if own is None:
        return
    if own.model_ids and not (model_ids and set(model_ids) <= set(own.model_ids)):
        raise NotAllowed("This key may make keys only for the models that it may be used for.", "Name some of them.")
    if own.expires_at is not None and (expires_at is None or expires_at > own.expires_at):
        raise NotAllowed("This key may make none that lasts longer than itself.", "Let the new one end no later.")
    # Neither with the same limit: each key counts for itself, so that two could be used twice as often.
    if own.switches_per_minute is not None and not actor.may("change_switchpolicy"):
        raise NotAllowed(
            "This key has a limit of its own for switches, so it may make no others.",
            "Use another key, or ask an administrator.",
        )


def _check_fields(name: str, scopes: Collection[str], model_ids: Collection[str], expires_at: datetime | None) -> None:
    errors = []
    if not 1 <= len(name.strip()) <= 100:
        errors.append(("name", "must have 1 to 100 characters"))
    if not scopes or set(scopes) - set(Scope.values):
        errors.append(("scopes", f"must be one or more of {', '.join(Scope.values)}"))
    known = ModelDefinition.objects.filter(model_id__in=model_ids).values_list("model_id", flat=True)
    if unknown := sorted(set(model_ids) - set(known)):
        errors.append(("model_ids", f"there is no model {unknown[0]}"))
    if expires_at is not None and expires_at <= timezone.now():
        errors.append(("expires_at", "must be in the future"))
    if expires_at is not None and expires_at.replace(tzinfo=UTC) > LATEST:
        errors.append(("expires_at", "must be before the year 2200"))
    if errors:
        raise InvalidRequest("The key cannot be made.", errors)


def _facts(key: ApiKey) -> dict[str, object]:
    return {
        "user": key.user.get_username(),
        "scopes": key.scopes,
        "models": key.model_ids,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
        "switches_per_minute": key.switches_per_minute,
    }
