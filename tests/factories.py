"""Builders of rows."""

from __future__ import annotations

from itertools import count
from typing import Any

from models_admin.models import MemoryPool, ModelDefinition, Runtime, SwitchJob

_numbers = count(1)


def make_model(runtime: Runtime, **fields: Any) -> ModelDefinition:
    """A model that is there and idle."""
    number = next(_numbers)
    defaults = {
        "model_id": f"model-{number}",
        "name": f"Model {number}",
        "path": f"model-{number}.gguf",
        "size_bytes": 100_000_000,
        "is_available": True,
    }
    return ModelDefinition.objects.create(runtime=runtime, **{**defaults, **fields})


def make_job(pool: MemoryPool, target: ModelDefinition | None, **fields: Any) -> SwitchJob:
    """A job that waits."""
    defaults = {
        "kind": "switch",
        "target_name": target.name if target else "gone",
        "requested_by_name": "ann",
        "via": "page",
    }
    return SwitchJob.objects.create(pool=pool, target=target, **{**defaults, **fields})
