"""Asking for a recovery: `POST /api/recover` and `manage.py recover`, alone and on a running Gantry."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from celery import Celery, current_app
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from gantry.planning.states import JobState
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime
from tests.factories import make_job, make_model
from tests.functional.stack import ADMIN_NAME, ADMIN_PASSWORD, Stack

pytestmark = pytest.mark.django_db(transaction=True)

URL = "/api/recover"


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def no_broker() -> Iterator[None]:
    """Messages go to an address where nobody answers."""
    usual = current_app._get_current_object()  # type: ignore[attr-defined]
    lonely = Celery("lonely", set_as_current=False)
    lonely.config_from_object("django.conf:settings", namespace="CELERY")
    lonely.conf.update(broker_url="redis://127.0.0.1:1/0")
    lonely.set_current()
    yield
    usual.set_current()
    lonely.close()


@pytest.fixture
def model(null_runtime: Runtime) -> ModelDefinition:
    return make_model(null_runtime, name="Small")


def test_workers_are_asked_and_it_is_written_down(pool: MemoryPool, admin_person: User) -> None:
    response = client_of(admin_person).post(URL)
    assert (response.status_code, response.json()) == (202, {"hosts": ["local"], "sent": True})
    entry = AuditEntry.objects.get(event=AuditEvent.RECOVERY)
    assert (entry.actor_name, entry.via, entry.object_text) == ("ann", "rest", "local")


def test_person_who_may_cancel_any_job_may_ask(pool: MemoryPool, outsider: User) -> None:
    assert client_of(outsider).post(URL).status_code == 403
    outsider.user_permissions.add(Permission.objects.get(codename="cancel_any_job"))
    assert client_of(User.objects.get(pk=outsider.pk)).post(URL).status_code == 202


def test_staff_may_ask(pool: MemoryPool) -> None:
    staff = User.objects.create_user("sam", password="pass-sam", is_staff=True)
    assert client_of(staff).post(URL).status_code == 202


def test_others_are_refused_in_words(pool: MemoryPool, member: User) -> None:
    response = client_of(member).post(URL)
    assert response.status_code == 403
    assert (response.json()["code"], response.json()["detail"]) == ("forbidden", "You may not ask for a recovery.")
    assert Client().post(URL).status_code == 401
    assert not AuditEntry.objects.exists()


def test_only_a_post_with_its_token_is_taken(pool: MemoryPool, admin_person: User) -> None:
    assert client_of(admin_person).get(URL).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_person)
    assert strict.post(URL).status_code == 403


@pytest.mark.usefixtures("no_broker")
def test_broker_that_is_away_is_told(pool: MemoryPool, admin_person: User) -> None:
    response = client_of(admin_person).post(URL)
    assert response.status_code == 503
    assert "The message broker does not answer" in response.json()["detail"]
    assert not AuditEntry.objects.exists()


def recover(*arguments: str) -> str:
    out = io.StringIO()
    call_command("recover", *arguments, stdout=out)
    return out.getvalue()


def test_command_without_a_worker_puts_its_own_host_right_itself(pool: MemoryPool, model: ModelDefinition) -> None:
    job = make_job(pool, model, state=JobState.LOADING, heartbeat_at=timezone.now() - timedelta(minutes=1))
    assert recover() == f"local: ended, for its worker is gone: switch Small #{job.pk}.\n"
    job.refresh_from_db()
    assert job.state == JobState.INTERRUPTED
    assert AuditEntry.objects.get(event=AuditEvent.RECOVERY).via == "command"
    assert recover("--host", "local", "--wait") == "local: everything is as recorded.\n"


def test_command_says_which_host_nobody_looks_after(pool: MemoryPool, model: ModelDefinition) -> None:
    MemoryPool.objects.create(host="faraway")
    with pytest.raises(CommandError, match="No worker is heard of on faraway"):
        recover("--host", "faraway")
    with pytest.raises(CommandError, match=re.escape("There is no host nowhere. Known: faraway, local.")):
        recover("--host", "nowhere")


def test_running_gantry_answers_the_command_with_what_its_worker_found(stack: Stack) -> None:
    done = stack.manage("recover", "--wait")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("local: ")
    assert "its worker was asked" in stack.manage("recover", "--host", "local").stdout


def test_running_gantry_takes_the_request(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url, follow_redirects=True) as client:
        client.get("sign-in/")
        token = {"X-CSRFToken": client.cookies["csrftoken"]}
        assert client.post("api/recover", headers=token).status_code == 401
        client.post("sign-in/", data={"username": ADMIN_NAME, "password": ADMIN_PASSWORD}, headers=token)
        token = {"X-CSRFToken": client.cookies["csrftoken"]}
        response = client.post("api/recover", headers=token)
        assert (response.status_code, response.json()) == (202, {"hosts": ["local"], "sent": True})
