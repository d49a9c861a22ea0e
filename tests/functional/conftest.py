"""One running Gantry for all functional tests that do not end it, and an administrator's browser for those that need none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.functional.stack import Stack, start_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Web server, worker and scheduler with a data folder of their own; no models."""
    running = start_stack(tmp_path_factory.mktemp("stack"))
    yield running
    running.stop()


@pytest.fixture
def signed_in(client: Client, admin_person: User) -> Client:
    client.force_login(admin_person)
    return client
