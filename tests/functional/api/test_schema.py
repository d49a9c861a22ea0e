"""Requests made up from the API's document, by everybody: no answer is a fault of the server, and each is as the document says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import schemathesis
from django.conf import settings as django_settings
from django.contrib.auth.models import Group, User
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.test import Client
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from models_admin.actor import COMMAND
from models_admin.keys import create_key
from models_admin.models import AuditEntry, ModelDefinition, Runtime, SwitchRequest
from models_admin.roles import ADMINISTRATOR, MEMBER, OPERATOR
from tests.functional.admin_world import ended_job

pytestmark = pytest.mark.django_db

EXAMPLES = 6  # for each operation, each of them sent by everybody
NO_JOB = 999_999_999
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", get_wsgi_application())
schema.config.phases.coverage.enabled = False
schema.config.generation.with_security_parameters = False  # the test says who asks


@pytest.fixture(autouse=True)
def same_connection() -> Iterator[None]:
    """A real web server gives the database back after each request; here all of them are in the test's one transaction."""
    both = (request_started, request_finished)
    for signal in both:
        signal.disconnect(close_old_connections)
    yield
    for signal in both:
        signal.connect(close_old_connections)


@dataclass(frozen=True)
class Sender:
    """How somebody says who they are."""

    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def everybody(db: None) -> dict[str, Sender]:
    """Nobody, the three roles by their session, a key of each scope."""
    senders = {"nobody": Sender()}
    for role in (MEMBER, OPERATOR, ADMINISTRATOR):
        user = User.objects.create_user(role.lower())
        user.groups.set([Group.objects.get(name=role)])
        senders[role] = _signed_in(user)
    owner = User.objects.get(username=ADMINISTRATOR.lower())
    for scope in ("status", "chat", "switch", "admin"):
        _, token = create_key(owner, actor=COMMAND, name=scope, scopes=[scope])
        senders[f"key {scope}"] = Sender({"Authorization": f"Bearer {token}"})
    return senders


@pytest.fixture
def known(small: ModelDefinition, other: ModelDefinition, admin_person: User) -> dict[str, Any]:
    """What is there, by the names of parameters."""
    job = ended_job(other, admin_person, "failed", error_code="out_of_memory")
    spare = Runtime.objects.create(name="spare", kind="null", pool=small.runtime.pool)
    key, _ = create_key(admin_person, actor=COMMAND, name="spare", scopes=["status"])
    wish = SwitchRequest.objects.create(user=admin_person, model=other)
    numbers = {"job_id": job.pk, "request_id": wish.pk, "runtime_id": spare.pk, "key_id": key.pk}
    return {**numbers, "model_id": "acme/other", "entry_id": AuditEntry.objects.earliest("pk").pk}


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_the_document_says(case: Any, everybody: dict[str, Sender], known: dict[str, Any]) -> None:
    if not case.path.startswith("/api/v1/"):
        case.query = {**(case.query or {}), "wait": 0}  # for an end that never comes here
    if case.path.endswith("/events"):  # which a server of this kind cannot stream: only of jobs that are not there
        case.path_parameters = {"job_id": NO_JOB}
    _send(case, everybody)
    # Once more, about what is there.
    if case.path_parameters and not case.path.endswith("/events"):
        case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
        _send(case, everybody)
    if isinstance(case.body, dict) and "model_id" in case.body:
        case.body = {**case.body, "model_id": known["model_id"]}
        _send(case, everybody)


def _send(case: Any, everybody: dict[str, Sender]) -> None:
    for who, sender in everybody.items():
        response = case.call(headers=sender.headers, cookies=sender.cookies)
        # 400 and 404: an address that leads nowhere is refused before anybody is asked who they are.
        assert response.status_code in {400, 401, 404} if who == "nobody" else response.status_code != 401, who
        case.validate_response(response, checks=CHECKS)


def _signed_in(user: User) -> Sender:
    client = Client()
    client.force_login(user)
    token = "a" * 32
    session = client.cookies[django_settings.SESSION_COOKIE_NAME].value
    return Sender(
        {"X-CSRFToken": token},
        {django_settings.SESSION_COOKIE_NAME: session, django_settings.CSRF_COOKIE_NAME: token},
    )
