"""Changing a runtime, with its audit entry. Keys are named there, never shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import ProtectedError

from models_admin import audit
from models_admin.actor import Actor
from models_admin.exceptions import InvalidRequest, RuntimeInUse
from models_admin.models import Runtime

SECRET_FIELDS = frozenset({"api_key", "admin_key"})
_NEEDS_ADDRESS = frozenset({Runtime.Kind.TABBY})
_TAKES_ADDRESS = _NEEDS_ADDRESS | {Runtime.Kind.LLAMA_ROUTER}


def checked_address(kind: str, url: str) -> str:
    """Scheme and host of a server, as far as this kind of runtime takes one.

    Raises:
        InvalidRequest: it cannot be used; one error, at `url`, as a sentence.
    """
    url = url.strip().rstrip("/")
    if url and kind and kind not in _TAKES_ADDRESS:
        raise _bad_address("Gantry starts this kind of runtime itself: leave the address empty.")
    if not url and kind in _NEEDS_ADDRESS:
        raise _bad_address("Give its address, such as http://127.0.0.1:5000.")
    if url and (problem := _address_problem(url)):
        raise _bad_address(problem)
    return url


def _bad_address(sentence: str) -> InvalidRequest:
    return InvalidRequest("The address cannot be used.", [("url", sentence)])


def _address_problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "This is no address: check the port and the brackets."
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        return "Give an address that starts with http:// or https://, such as http://127.0.0.1:5000."
    if parts.username or parts.password:
        return "Leave name and password out of the address; keys have fields of their own."
    if parts.path or parts.query or parts.fragment:
        return "Give the address without a path, such as http://127.0.0.1:5000."
    return ""


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
    """Remove a runtime.

    Raises:
        RuntimeInUse: models belong to it, which the database sees to.
    """
    try:
        with transaction.atomic():
            audit.write(audit.AuditEvent.RUNTIME_DELETE, actor=actor, object_text=runtime.name)
            runtime.delete()
    except ProtectedError as exc:
        sentence = f"Models belong to {runtime.name}, so it cannot be deleted."
        raise RuntimeInUse(sentence, "Delete them, or give them to another runtime, first.") from exc


def _values(runtime: Runtime, names: Sequence[str]) -> dict[str, Any]:
    return {name: _plain(name, getattr(runtime, name)) for name in names}


def _plain(name: str, value: Any) -> Any:
    if name in SECRET_FIELDS:
        return "a key" if value else "no key"
    return value if isinstance(value, (str, int, float, bool, dict, list, type(None))) else str(value)
