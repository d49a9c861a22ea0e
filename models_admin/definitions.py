"""Saving and deleting a model's definition by hand, with its audit entry and its live event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from gantry import live
from models_admin import audit, catalog
from models_admin.actor import Actor
from models_admin.exceptions import ModelInUse
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, SwitchJob


def save_definition(model: ModelDefinition, *, changed: Sequence[str], actor: Actor) -> None:
    """Write a definition whose values were checked already.

    Args:
        changed: names of the fields that differ from the stored row; the audit entry keeps both values of them.
    """
    is_new = model.pk is None
    with transaction.atomic():
        before = {} if is_new else _values(ModelDefinition.objects.select_for_update().get(pk=model.pk), changed)
        if "path" in changed:
            model.metadata = {}  # what another file said
        # Only what was changed here: a worker may write how a load ended while somebody fills in the form.
        model.save(update_fields=None if is_new else [*changed, "metadata", "updated_at"])
        catalog.refresh_availability([model])
        audit.write(
            audit.AuditEvent.MODEL_CREATE if is_new else audit.AuditEvent.MODEL_CHANGE,
            actor=actor,
            object_text=model.name,
            before=before,
            after=_values(model, changed),
        )
        _tell_all(model, "saved")


def refuse_move(model: ModelDefinition) -> None:
    """Check that a model's id and runtime may change: not while it is held or a job is about it, which know it by them.

    Raises:
        ModelInUse: they may not now.
    """
    _refuse_in_use(model, "changed")


def delete_definition(model: ModelDefinition, *, actor: Actor) -> None:
    """Delete a definition; its file stays where it is.

    Raises:
        ModelInUse: it is loaded, or a job that has not ended is about it.
    """
    with transaction.atomic():
        # Requests for a switch lock the pool too: none can begin between the look and the deletion.
        MemoryPool.objects.select_for_update().get(pk=model.runtime.pool_id)
        _refuse_in_use(model, "deleted")
        audit.write(
            audit.AuditEvent.MODEL_DELETE,
            actor=actor,
            object_text=model.name,
            before=catalog.audited_values(model),
        )
        _tell_all(model, "deleted")
        model.delete()


def _refuse_in_use(model: ModelDefinition, verb: str) -> None:
    if ModelInstance.objects.filter(model=model).exists():
        raise ModelInUse(f"{model.name} is loaded, so it cannot be {verb}.", "Unload it first.")
    job = SwitchJob.objects.unfinished().filter(target=model).first()
    if job is not None:
        raise ModelInUse(
            f"{model.name} cannot be {verb} while switch #{job.pk} is about it.",
            "Wait until it has ended, or cancel it.",
        )


def _values(model: ModelDefinition, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(model, name) for name in names}
    return {name: str(value) if hasattr(value, "pk") else value for name, value in values.items()}


def _tell_all(model: ModelDefinition, verb: str) -> None:
    live.publish_models_changed([], event_id=f"model-{model.pk}-{verb}-{timezone.now().timestamp()}")
