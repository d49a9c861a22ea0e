"""Changing a runtime, with its audit entry. Keys are named there, never shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction

from models_admin import audit
from models_admin.actor import Actor
from models_admin.models import Runtime

SECRET_FIELDS = frozenset({"api_key", "admin_key"})


def save_runtime(runtime: Runtime, *, changed: Sequence[str], actor: Actor) -> None:
    """Write a runtime whose values were checked already.

    Args:
        changed: names of the fields that differ from the stored row; the audit entry keeps both values of them.
    """
    is_new = runtime.pk is None
    with transaction.atomic():
        before = {} if is_new else _values(Runtime.objects.get(pk=runtime.pk), changed)
        runtime.save(update_fields=None if is_new else list(changed))
        audit.write(
            audit.AuditEvent.RUNTIME_CREATE if is_new else audit.AuditEvent.RUNTIME_CHANGE,
            actor=actor,
            object_text=runtime.name,
            before=before,
            after=_values(runtime, changed),
        )


def delete_runtime(runtime: Runtime, *, actor: Actor) -> None:
    """Remove a runtime; one that models belong to cannot be removed, which the database sees to."""
    with transaction.atomic():
        audit.write(audit.AuditEvent.RUNTIME_DELETE, actor=actor, object_text=runtime.name)
        runtime.delete()


def _values(runtime: Runtime, names: Sequence[str]) -> dict[str, Any]:
    return {name: _plain(name, getattr(runtime, name)) for name in names}


def _plain(name: str, value: Any) -> Any:
    if name in SECRET_FIELDS:
        return "a key" if value else "no key"
    return value if isinstance(value, (str, int, float, bool, dict, list, type(None))) else str(value)
