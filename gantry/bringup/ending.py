"""How `up` ends: no model outlives it."""

from __future__ import annotations

from collections.abc import Callable

from django.db.utils import DatabaseError

from gantry.runtimes.base import RunningInstance
from gantry.runtimes.exceptions import RuntimeFault
from models_admin.models import ModelDefinition, ModelInstance, Runtime
from models_admin.runtime_access import runtime_for


def end_models(host: str, say: Callable[[str], None]) -> None:
    """Unload every model that the runtimes of this host really hold, and forget the records of it.

    Asks the runtimes, not the records; a runtime proves that a process is its own before it ends it. Servers that Gantry
    only attaches to keep what they hold.
    """
    try:
        for row in Runtime.objects.filter(pool__host=host):
            runtime = runtime_for(row)
            if runtime.capabilities.owns_processes:
                for instance in runtime.running():
                    if instance.is_alive:
                        _end_model(row, instance, say)
    except (DatabaseError, RuntimeFault) as exc:
        say(f"Could not see whether models still run ({exc}): `manage.py up` takes them over at its next start.")


def _end_model(row: Runtime, instance: RunningInstance, say: Callable[[str], None]) -> None:
    model = ModelDefinition.objects.filter(model_id=instance.model_id).first()
    name = model.name if model else instance.model_id
    try:
        runtime_for(row).unload(instance.instance_id)
    except RuntimeFault as exc:
        say(f"{name} did not end ({exc.detail or exc}): look for process {instance.pid}.")
        return
    ModelInstance.objects.filter(instance_id=instance.instance_id).delete()
    say(f"Ended {name}")
