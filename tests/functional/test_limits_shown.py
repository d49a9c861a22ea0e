"""What somebody is told who has switched too often: where they clicked, with the seconds to wait, and `Retry-After` for programs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from gantry.planning.states import JobState
from gantry.ratelimit.moving_window import limiter_for
from models_admin import job_moves, switch_requests
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, Runtime, SwitchJob, SwitchPolicy, SwitchRequest
from tests.factories import make_job, make_model
from tests.functional.chat_world import HTMX, signed_in


@pytest.fixture(autouse=True)
def limits_on(settings: Settings) -> Iterator[None]:
    """Switches are counted, in the memory of this process; nothing runs jobs here."""
    settings.LIMITS_URL = "memory://"
    limiter_for.cache_clear()
    with mock.patch.object(job_moves, "enqueue_on_commit"):
        yield
    limiter_for.cache_clear()


@pytest.fixture
def gemma(null_runtime: Runtime) -> ModelDefinition:
    """The next model that somebody wants."""
    return make_model(null_runtime, name="Gemma 3", size_bytes=1000)


@pytest.fixture
def spent(admin_person: User, null_runtime: Runtime) -> Client:
    """A browser of somebody who has used the one switch a minute that policy allows."""
    SwitchPolicy(switches_per_user=1).save()
    client = signed_in(admin_person)
    first = make_model(null_runtime, name="First", size_bytes=1000)
    assert client.post(f"/admin/models/{first.pk}/switch/").status_code == 302
    return client


def check(response: Any, *, words: str = "You have switched models once within a minute") -> None:
    """It says what happened and how long to wait, in words and in the header, and both agree."""
    assert response.status_code == 429
    wait = int(response.headers["Retry-After"])
    assert 1 <= wait <= 61
    page = response.content.decode()
    assert words in page
    told = re.search(r"Try again in (?:(\d+) min ?)?(?:(\d+) s)?", page)
    assert told is not None
    assert int(told[1] or 0) * 60 + int(told[2] or 0) == wait


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
@pytest.mark.parametrize("kind", ["switch", "preload"])
def test_models_tab_says_when_to_try_again(
    kind: str, headers: dict[str, str], spent: Client, gemma: ModelDefinition
) -> None:
    SwitchJob.objects.update(state="succeeded", finished_at=timezone.now())
    check(spent.post(f"/admin/models/{gemma.pk}/{kind}/", headers=headers))


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
def test_chat_says_when_to_try_again(headers: dict[str, str], spent: Client, gemma: ModelDefinition) -> None:
    check(spent.post(f"/models/{gemma.pk}/switch/", {"confirmed": "1"}, headers=headers))


@pytest.mark.parametrize("headers", [{}, HTMX], ids=["page", "dialog"])
def test_approval_counts_as_a_switch_and_the_request_stays_open(
    headers: dict[str, str], spent: Client, gemma: ModelDefinition, outsider: User
) -> None:
    request = switch_requests.ask(gemma, actor=Actor(outsider, "chat"))
    check(spent.post(f"/admin/requests/{request.pk}/approve/", headers=headers))
    assert SwitchRequest.objects.get().is_open


@pytest.mark.parametrize("address", ["/models/{}/switch/", "/admin/models/{}/switch/"])
def test_model_that_failed_says_how_long_it_is_left_alone(address: str, member: User, gemma: ModelDefinition) -> None:
    member.is_staff = True
    member.save()
    member.user_permissions.add(Permission.objects.get(codename="view_modeldefinition"))
    SwitchPolicy(cool_down_seconds=50).save()
    failed = {"state": JobState.FAILED, "error_code": "load_failed", "finished_at": timezone.now()}
    make_job(gemma.runtime.pool, gemma, **failed)
    response = signed_in(member).post(address.format(gemma.pk), {"confirmed": "1"}, headers=HTMX)
    check(response, words="Gemma 3 failed to load, so it is left alone for a while.")


def test_refusal_for_another_reason_names_no_time(spent: Client, null_runtime: Runtime) -> None:
    away = make_model(null_runtime, is_available=False)
    response = spent.post(f"/admin/models/{away.pk}/switch/", headers=HTMX)
    assert response.status_code == 409
    assert "Retry-After" not in response.headers
