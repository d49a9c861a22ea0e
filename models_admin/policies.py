"""Changing the switch policy, with its audit entry."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from django.db import transaction

from models_admin import audit, job_requests
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, SwitchPolicy


def save_policy(
    policy: SwitchPolicy, *, changed: Sequence[str], pinned: Collection[ModelDefinition] | None = None, actor: Actor
) -> None:
    """Write the policy, and which models no switch may unload.

    Args:
        changed: names of the fields that differ; the audit entry keeps both values of them.
        pinned: exactly these are pinned afterwards; None leaves the pins alone.
    """
    with transaction.atomic():
        before = _values(SwitchPolicy.current(), changed)
        policy.save()
        after = _values(policy, changed)
        if pinned is not None:
            # Before the policy's own entry: models are locked ahead of the audit log, as a switch that unpins does (`set_pins`).
            _pin_exactly({model.pk for model in pinned}, actor)
        if before != after:
            audit.write(
                audit.AuditEvent.POLICY_CHANGE, actor=actor, object_text="Switch policy", before=before, after=after
            )


def _pin_exactly(wanted: Collection[int], actor: Actor) -> None:
    unpinned = ModelDefinition.objects.filter(is_pinned=True).exclude(pk__in=wanted)
    pinned = ModelDefinition.objects.filter(is_pinned=False, pk__in=wanted)
    job_requests.set_pins([*((model, False) for model in unpinned), *((model, True) for model in pinned)], actor=actor)


def _values(policy: SwitchPolicy, names: Sequence[str]) -> dict[str, Any]:
    return {name: _plain(getattr(policy, name)) for name in names}


def _plain(value: Any) -> Any:
    return value.model_id if isinstance(value, ModelDefinition) else value
