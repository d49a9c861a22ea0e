"""Requests that may come twice: the second gets the first one's answer, and nothing is done again.

Kept in the database and not in Redis: the promise has to hold through a restart of the broker, two requests at once are told apart by a
constraint, and no second store can be away when the first one is there. When the database is away nothing works, and the API says 503.
A web server that is killed between doing and keeping leaves the key in progress for two minutes; then it is free again.

Only what was done is kept. A request that was refused may come again with the same key, for nothing came of it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused, InvalidRequest
from models_admin.models import IdempotentAnswer

LIFETIME = timedelta(hours=24)
GIVEN_UP = timedelta(minutes=2)  # longer than any request takes: whoever worked on it is gone
LONGEST_KEY = 200


class KeyReused(ActionRefused):
    """The key came with another body before."""

    code = "idempotency_key_reused"
    status = 422


class InProgress(ActionRefused):
    """The same request is being worked on."""

    code = "idempotency_in_progress"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a request; end it with `keep` or `release`."""

    pk: int

    def keep(self, status: int, body: str, location: str = "") -> None:
        """Keep the answer for a day."""
        IdempotentAnswer.objects.filter(pk=self.pk).update(status=status, body=body, location=location)

    def release(self) -> None:
        """Nothing came of it: the key is free again."""
        IdempotentAnswer.objects.filter(pk=self.pk).delete()


def claim(actor: Actor, path: str, key: str, body: bytes) -> Claim | IdempotentAnswer:
    """Begin to work on a request, or the answer that it got before.

    Raises:
        InvalidRequest: no such key can be used.
        KeyReused: the key came with another body.
        InProgress: the same request is being worked on.
    """
    if not (1 <= len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        message = f"must be 1 to {LONGEST_KEY} printable ASCII characters"
        raise InvalidRequest("The Idempotency-Key cannot be used.", [("Idempotency-Key", message)])
    now = timezone.now()
    IdempotentAnswer.objects.filter(created_at__lt=now - LIFETIME).delete()
    IdempotentAnswer.objects.filter(status=None, created_at__lt=now - GIVEN_UP).delete()
    names = {"actor": _name(actor), "path": path[:500], "key": key}
    body_hash = hashlib.sha256(body).hexdigest()
    try:
        with transaction.atomic():
            return Claim(IdempotentAnswer.objects.create(**names, body_hash=body_hash, created_at=now).pk)
    except IntegrityError:  # one_answer_per_idempotency_key
        return _first_answer(names, body_hash)


def _first_answer(names: dict[str, str], body_hash: str) -> IdempotentAnswer:
    found = IdempotentAnswer.objects.filter(**names).first()
    if found is not None and found.body_hash != body_hash:
        raise KeyReused("This Idempotency-Key was sent with another body before.", "Use a new key for a new request.")
    if found is None or found.status is None:
        raise InProgress("The same request is being worked on.", "Ask again in a moment.")
    return found


def _name(actor: Actor) -> str:
    if actor.key is not None:
        return f"key-{actor.key.pk}"
    return f"user-{actor.user.pk}" if actor.user else actor.via
