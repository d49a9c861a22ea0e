"""Builders of rows."""

from __future__ import annotations

import factory
from factory.django import DjangoModelFactory

from models_admin.models import ModelDefinition, SwitchJob


class ModelDefinitionFactory(DjangoModelFactory):  # type: ignore[misc]
    """A model that is there and idle. Give it `runtime`."""

    class Meta:
        model = ModelDefinition

    model_id = factory.Sequence(lambda n: f"model-{n}")
    name = factory.Sequence(lambda n: f"Model {n}")
    path = factory.Sequence(lambda n: f"model-{n}.gguf")
    size_bytes = 100_000_000
    is_available = True


class SwitchJobFactory(DjangoModelFactory):  # type: ignore[misc]
    """A job that waits. Give it `pool` and `target`."""

    class Meta:
        model = SwitchJob

    kind = "switch"
    state = "waiting"
    target_name = factory.LazyAttribute(lambda job: job.target.name if job.target else "gone")
    requested_by_name = "ann"
    via = "page"
