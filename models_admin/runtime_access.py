"""From a Runtime row to the adapter that drives it. Only on the host that owns it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import Q

from gantry.env import environment
from gantry.runtimes.fleet import Fleet
from gantry.runtimes.registry import RuntimeConfig, build_runtime, capabilities_of
from models_admin import answering
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime

if TYPE_CHECKING:
    from gantry.runtimes import base


KEY_FROM_ENVIRONMENT = "env:"  # before the name of the variable that holds the key


def key_of(stored: str) -> str:
    """The key itself: as stored, or out of the environment variable that it names; "" when that is not set."""
    if not stored.startswith(KEY_FROM_ENVIRONMENT):
        return stored
    name = stored.removeprefix(KEY_FROM_ENVIRONMENT)
    # Gantry's own variables may stand in its .env file, which is no part of the process's environment.
    return os.environ.get(name) or str(getattr(environment(), name.lower(), None) or "")


def runtime_for(row: Runtime) -> base.Runtime:
    """The adapter of a runtime. The folder in which it keeps its processes carries the row's id, so a renaming loses nothing."""
    return build_runtime(
        RuntimeConfig(
            name=row.name,
            kind=row.kind,
            options=row.options,
            state_dir=settings.RUNTIME_DIR / f"{row.kind}-{row.pk}",
            binary=settings.LLAMA_SERVER,
            url=row.url,
            api_key=key_of(row.api_key),
            admin_key=key_of(row.admin_key),
        )
    )


def lists_models(row: Runtime) -> bool:
    """Whether the server offers models by itself. Asks nobody, so it can be told on any host."""
    return runtime_for(row).capabilities.lists_models


def takes_devices(row: Runtime) -> bool:
    """Whether the server can be told on which GPUs it puts a model. Asks nobody."""
    return runtime_for(row).capabilities.takes_devices


def model_limit(row: Runtime) -> int | None:
    """How many models the server holds at the most, by its kind or as it told last; None: as many as there is memory for."""
    return row.max_models if capabilities_of(row.kind).holds_many else 1


def fleet_for(pool: MemoryPool, target: ModelDefinition | None = None) -> base.Runtime:
    """All runtimes of a pool as one, each model and instance with its own. One that is switched off may still hold models."""

    def runtime_of(model_id: str) -> str:
        return str(target.runtime_id) if target and target.model_id == model_id else _runtime_of(model_id)

    rows = Runtime.objects.filter(Q(is_enabled=True) | Q(instances__isnull=False), pool=pool).distinct()
    return Fleet(
        {str(row.pk): runtime_for(row) for row in rows},
        runtime_of=runtime_of,
        owner_of=_owner_of,
        target_id=target.model_id if target else "",
        answers_of=_answers_of,
    )


def _answers_of(instance_id: str) -> int:
    held = ModelInstance.objects.filter(instance_id=instance_id)
    model_id = held.values_list("model__model_id", flat=True).first()
    return answering.answers_of(model_id) if model_id else 0


def _runtime_of(model_id: str) -> str:
    return str(ModelDefinition.objects.values_list("runtime", flat=True).get(model_id=model_id))


def _owner_of(instance_id: str) -> str | None:
    owner = ModelInstance.objects.filter(instance_id=instance_id).values_list("runtime", flat=True).first()
    return str(owner) if owner else None
