"""Fixtures for records, actions and jobs on the null runtime."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings

from gantry.runtimes.null import NullWorld, null_world, reset_null_worlds
from models_admin.models import ModelDefinition, Runtime
from models_admin.runtime_access import runtime_for
from tests.factories import make_model

MB = 1_000_000


@pytest.fixture
def world(null_runtime: Runtime) -> Iterator[NullWorld]:
    """What the null runtime holds; empty for each test."""
    reset_null_worlds()
    runtime_for(null_runtime)
    yield null_world(settings.RUNTIME_DIR / f"null-{null_runtime.pk}")
    reset_null_worlds()


@pytest.fixture
def small(null_runtime: Runtime, world: NullWorld) -> ModelDefinition:
    """Takes 600 MB of the 1 GiB."""
    world.memory["small"] = 600 * MB
    return make_model(null_runtime, model_id="small", name="Small", size_bytes=500 * MB)


@pytest.fixture
def other(null_runtime: Runtime, world: NullWorld) -> ModelDefinition:
    """Takes 700 MB: does not fit beside the small one."""
    world.memory["other"] = 700 * MB
    return make_model(null_runtime, model_id="other", name="Other", size_bytes=550 * MB)
