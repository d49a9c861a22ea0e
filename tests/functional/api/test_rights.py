"""Who may do what: every operation of the API, asked by everybody.

The table says which answer each of them gets. An operation that is in the document and not in the table fails the test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.test import Client

from gantry.api.app import api
from gantry.planning.states import JobState
from models_admin.actor import COMMAND
from models_admin.keys import create_key
from models_admin.models import AuditEntry, ModelDefinition, Runtime, SwitchRequest
from models_admin.roles import ADMINISTRATOR, MEMBER, OPERATOR
from tests.factories import make_job

pytestmark = pytest.mark.django_db

# The keys are an administrator's, so that nothing but their scope narrows them.
TABLE = """
operation                               | nobody member operator administrator | key:status key:chat key:switch key:admin
----------------------------------------+--------------------------------------+-----------------------------------------
GET    /api/v1/models                   |  401    403     200       200         |   200       403      200       200
POST   /api/v1/models                   |  401    403     403       201         |   403       403      403       201
GET    /api/v1/models/{model_id}        |  401    403     200       200         |   200       403      200       200
PATCH  /api/v1/models/{model_id}        |  401    403     403       200         |   403       403      403       200
DELETE /api/v1/models/{model_id}        |  401    403     403       204         |   403       403      403       204
PUT    /api/v1/models/{model_id}/pin    |  401    403     403       200         |   403       403      403       200
DELETE /api/v1/models/{model_id}/pin    |  401    403     403       200         |   403       403      403       200
POST   /api/v1/models/{model_id}/unload |  401    403     201       201         |   403       403      201       201
POST   /api/v1/models/{model_id}/restart|  401    403     201       201         |   403       403      201       201
POST   /api/v1/catalog/import           |  401    403     403       200         |   403       403      403       200
GET    /api/v1/catalog/export           |  401    403     200       200         |   200       403      200       200
POST   /api/v1/catalog/scan             |  401    403     403       200         |   403       403      403       200
GET    /api/v1/runtimes                 |  401    403     200       200         |   200       403      200       200
POST   /api/v1/runtimes                 |  401    403     403       201         |   403       403      403       201
GET    /api/v1/runtimes/{runtime_id}    |  401    403     200       200         |   200       403      200       200
PATCH  /api/v1/runtimes/{runtime_id}    |  401    403     403       200         |   403       403      403       200
DELETE /api/v1/runtimes/{runtime_id}    |  401    403     403       204         |   403       403      403       204
POST   /api/v1/runtimes/{runtime_id}/refresh| 401 403     202       202         |   403       403      202       202
GET    /api/v1/jobs                     |  401    403     200       200         |   200       403      200       200
POST   /api/v1/jobs                     |  401    403     201       201         |   403       403      201       201
POST   /api/v1/jobs/preview             |  401    403     200       200         |   403       403      200       200
GET    /api/v1/jobs/{job_id}            |  401    403     200       200         |   200       403      200       200
POST   /api/v1/jobs/{job_id}/cancel     |  401    403     202       202         |   403       403      403       202
GET    /api/v1/jobs/{job_id}/events     |  401    403     200       200         |   200       403      200       200
GET    /api/v1/audit                    |  401    403     200       200         |   403       403      403       200
GET    /api/v1/audit/export             |  401    403     200       200         |   403       403      403       200
GET    /api/v1/audit/{entry_id}         |  401    403     200       200         |   403       403      403       200
GET    /api/v1/keys                     |  401    200     200       200         |   403       403      403       200
POST   /api/v1/keys                     |  401    201     201       201         |   403       403      403       201
DELETE /api/v1/keys/{key_id}            |  401    404     404       200         |   403       403      403       200
GET    /api/v1/requests                 |  401    200     200       200         |   403       200      403       200
POST   /api/v1/requests                 |  401    201     403       403         |   403       201      403       403
POST   /api/v1/requests/{request_id}/approve | 401 403    201       201         |   403       403      403       201
POST   /api/v1/requests/{request_id}/decline | 401 403    200       200         |   403       403      403       200
POST   /api/v1/requests/{request_id}/withdraw| 401 403    403       403         |   403       403      403       403
GET    /api/v1/status                   |  401    200     200       200         |   200       403      200       200
GET    /api/v1/memory                   |  401    403     200       200         |   200       403      200       200
POST   /api/v1/recover                  |  401    403     202       202         |   403       403      403       202
POST   /api/recover                     |  401    403     202       202         |   403       403      403       202
GET    /api/llm-status                  |  401    200     200       200         |   200       403      200       200
POST   /api/llm-switch                  |  401    403     202       202         |   403       403      202       202
POST   /api/llm-restart                 |  401    403     202       202         |   403       403      202       202
GET    /v1/models/status                |  401    200     200       200         |   200       403      200       200
POST   /v1/models/switch                |  401    403     200       200         |   403       403      200       200
POST   /api/switch-model                |  401    403     200       200         |   403       403      200       200
GET    /api/model-loading-status        |  401    200     200       200         |   200       403      200       200
POST   /api/restart-api                 |  401    403     403       409         |   403       403      403       409
GET    /api/admin/models                |  401    200     200       200         |   200       403      200       200
POST   /api/admin/models/switch         |  401    403     202       202         |   403       403      202       202
POST   /api/admin/models/unload         |  401    403     202       202         |   403       403      202       202
"""  # 409: nobody would start the web server of a test again
BODIES: dict[str, Any] = {
    "POST /api/v1/models": {"model_id": "new", "name": "New", "runtime": "null"},
    "PATCH /api/v1/models/{model_id}": {"name": "Renamed"},
    "POST /api/v1/catalog/import": "models: []",
    "POST /api/v1/catalog/scan": {"path": "{folder}"},
    "POST /api/v1/runtimes": {"name": "third", "kind": "null"},
    "PATCH /api/v1/runtimes/{runtime_id}": {"name": "renamed"},
    "POST /api/v1/jobs": {"model_id": "acme/other"},
    "POST /api/v1/jobs/preview": {"model_id": "acme/other"},
    "POST /api/v1/keys": {"name": "another", "scopes": ["status"]},
    "POST /api/v1/requests": {"model_id": "acme/other"},
    "POST /api/llm-switch": {"model_id": "acme/other"},
    "POST /v1/models/switch": {"target_model": "acme/other"},
    "POST /api/admin/models/switch": {"model_id": "acme/other"},
}
QUERY = "?wait=0&model_id=acme/other"  # nobody waits for an end; the others do not read it


@dataclass(frozen=True)
class Row:
    """One operation with what each of them is answered."""

    operation: str  # "GET /api/v1/models"
    expected: dict[str, int]


def rows() -> list[Row]:
    """The table, read."""
    head, _, *lines = TABLE.strip().splitlines()
    people = head.replace("|", " ").split()[1:]
    read = [(line.partition("|")[0].split(), line.partition("|")[2].replace("|", " ").split()) for line in lines]
    return [Row(" ".join(name), dict(zip(people, map(int, numbers), strict=True))) for name, numbers in read]


ROWS = {row.operation: row for row in rows()}
PEOPLE = {"member": MEMBER, "operator": OPERATOR, "administrator": ADMINISTRATOR}


@pytest.fixture
def clients(db: None) -> dict[str, Client]:
    """Somebody of each kind, signed in or with a key."""
    clients = {"nobody": Client()}
    for name, role in PEOPLE.items():
        user = User.objects.create_user(name)
        user.groups.set([Group.objects.get(name=role)])
        clients[name] = Client()
        clients[name].force_login(user)
    owner = User.objects.get(username="administrator")
    for scope in ("status", "chat", "switch", "admin"):
        _, token = create_key(owner, actor=COMMAND, name=scope, scopes=[scope])
        clients[f"key:{scope}"] = Client(headers={"Authorization": f"Bearer {token}"})
    return clients


@pytest.fixture
def places(small: ModelDefinition, other: ModelDefinition, tmp_path: Any) -> dict[str, Any]:
    """What stands for the names in addresses and bodies. Job and key are somebody else's."""
    eve = User.objects.create_user("eve")
    spare = Runtime.objects.create(name="spare", kind="null", pool=small.runtime.pool)
    key, _ = create_key(eve, actor=COMMAND, name="eve's", scopes=["status"])
    wish = SwitchRequest.objects.create(user=eve, model=other)
    return {
        "request_id": wish.pk,
        "eve": eve,
        "runtime_id": spare.pk,
        "key_id": key.pk,
        "folder": str(tmp_path),
        "pool": small.runtime.pool,
    }


def answer(row: Row, client: Client, places: dict[str, Any]) -> int:
    """The status of an operation; what it did is taken back."""
    method, path = row.operation.split()
    body = json.dumps(BODIES.get(row.operation, {})) if method in {"POST", "PATCH"} else ""
    body = BODIES[row.operation] if path.endswith("import") else body
    with transaction.atomic():
        named = {**places, "model_id": "acme/small", "entry_id": AuditEntry.objects.earliest("pk").pk}
        if row.operation == "DELETE /api/v1/models/{model_id}":
            named["model_id"] = "acme/other"
        if "{job_id}" in path:
            job = make_job(places["pool"], None, requested_by=places["eve"], requested_by_name="eve")
            job.state = JobState.WAITING
            named["job_id"] = job.pk
        address = path.format(**named) + ("" if "/v1/" in path else QUERY)
        response = client.generic(method, address, body.replace("{folder}", places["folder"]), "application/json")
        transaction.set_rollback(True)
    return int(response.status_code)


@pytest.mark.parametrize("operation", ROWS)
def test_everybody_gets_the_answer_of_the_table(
    operation: str, clients: dict[str, Client], places: dict[str, Any]
) -> None:
    row = ROWS[operation]
    assert {who: answer(row, clients[who], places) for who in row.expected} == row.expected


def test_every_operation_of_the_document_stands_in_the_table() -> None:
    paths = api.get_openapi_schema()["paths"]
    documented = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert documented == set(ROWS)
