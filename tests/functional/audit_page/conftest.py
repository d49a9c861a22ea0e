"""Who looks at the audit log, and what stands in it."""

from __future__ import annotations

import pytest

from models_admin.models import ModelDefinition, Runtime
from tests.audit_rows import fill_audit
from tests.factories import make_model


@pytest.fixture
def gemma(null_runtime: Runtime) -> ModelDefinition:
    return make_model(null_runtime, model_id="gemma", name="Gemma 3")


@pytest.fixture
def many(db: None) -> int:
    fill_audit(3000)
    return 3000
