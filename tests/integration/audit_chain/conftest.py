"""The triggers that keep entries: there when a test wants them, and gone after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection

from models_admin import audit_triggers


@pytest.fixture(autouse=True)
def no_triggers_left(transactional_db: None) -> Iterator[None]:
    """An archive makes them again, and then the tables could not be emptied after the test."""
    yield
    audit_triggers.drop(connection)


@pytest.fixture
def triggers(transactional_db: None) -> None:
    audit_triggers.create(connection)
