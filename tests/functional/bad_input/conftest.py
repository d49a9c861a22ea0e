"""What bad input meets: a llama-server runtime, a folder of models, somebody who is signed in. Nothing may start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.fixtures import Settings

from models_admin import job_moves
from models_admin.models import MemoryPool, Runtime, SwitchJob
from tests.functional import chat_world
from tests.functional.bad_input.helpers import HTMX


@pytest.fixture(autouse=True)
def nothing_starts(db: None) -> Iterator[None]:
    """No request of these tests may lead to a job."""
    with mock.patch.object(job_moves, "enqueue_on_commit") as enqueue:
        yield
    enqueue.assert_not_called()


@pytest.fixture
def no_job(db: None) -> Iterator[None]:
    """Nor is there one in the end, where the test itself has made none."""
    yield
    assert not SwitchJob.objects.exists()


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    """The folder of models."""
    settings.MODELS_DIR = tmp_path
    return tmp_path


@pytest.fixture
def llama(pool: MemoryPool) -> Runtime:
    """A runtime of this host that starts servers."""
    assert pool.host == django_settings.HOST_NAME
    return Runtime.objects.create(name="llama-server", kind="llama_server", pool=pool, is_healthy=True)


@pytest.fixture
def browser(admin_person: User) -> Client:
    return chat_world.signed_in(admin_person)


@pytest.fixture(params=[False, True], ids=["plain", "htmx"])
def headers(request: pytest.FixtureRequest) -> dict[str, str]:
    """Of a request without and with script."""
    return HTMX if request.param else {}
