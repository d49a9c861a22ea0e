"""What holds for all of the API: who is let in, one shape of refusals, sizes of bodies, status with its ETag, the document."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.http import HttpResponse
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings

from gantry.api.middleware import ApiMiddleware
from gantry.api.v1 import status
from models_admin.models import ModelDefinition
from tests.functional.api.conftest import MakeProgram, Program, code_of

pytestmark = pytest.mark.django_db


def test_nobody_is_told_how_to_sign_in() -> None:
    response = Program().get("models")
    assert (response.status_code, code_of(response)) == (401, "key_refused")
    assert "Authorization: Bearer" in response.json()["hint"]
    wrong = Client(headers={"Authorization": "Basic eDp5"}).get("/api/v1/models")
    assert (wrong.status_code, code_of(wrong)) == (401, "key_refused")


def test_session_needs_the_token_for_what_changes_something(admin_person: User, small: ModelDefinition) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_person)
    assert client.get("/api/v1/models").status_code == 200
    refused = client.put("/api/v1/models/acme/small/pin")
    assert (refused.status_code, code_of(refused)) == (403, "csrf_failed")
    client.get("/")
    token = client.cookies["csrftoken"].value if "csrftoken" in client.cookies else ""
    client.cookies["csrftoken"] = token or "a" * 32
    done = client.put("/api/v1/models/acme/small/pin", headers={"X-CSRFToken": client.cookies["csrftoken"].value})
    assert done.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "nowhere", "not_found"),
        ("PUT", "models", "method_not_allowed"),
        ("DELETE", "audit", "method_not_allowed"),
        ("GET", "recover", "method_not_allowed"),
        ("OPTIONS", "jobs", "method_not_allowed"),
    ],
)
def test_what_no_operation_answers_has_the_same_shape(method: str, path: str, code: str, admin: Program) -> None:
    response = admin.send(method, path)
    assert code_of(response) == code
    assert ("Allow" in response.headers) == (code == "method_not_allowed")


def test_body_that_is_too_large_is_refused(admin: Program, settings: Settings) -> None:
    large = '{"model_id": "' + "x" * settings.API_BODY_BYTES + '"}'
    response = admin.post("jobs", large)
    assert (response.status_code, code_of(response)) == (413, "body_too_large")
    # A models.yaml may be larger, but not without end.
    assert admin.post("catalog/import", large).status_code != 413
    assert admin.post("catalog/import", "x" * (settings.API_IMPORT_BYTES + 1)).status_code == 413


def test_body_of_unknown_length_is_refused(admin: Program) -> None:
    response = admin.client.generic(
        "POST", "/api/v1/jobs", "", headers={"Transfer-Encoding": "chunked"}, content_type="application/json"
    )
    assert (response.status_code, code_of(response)) == (411, "length_required")


@pytest.mark.parametrize("path", ["models/a%00b", "models?q=%00", "audit?who=a%00"])
def test_nul_is_refused(path: str, admin: Program) -> None:
    response = admin.get(path)
    assert (response.status_code, code_of(response)) == (400, "bad_request")


def test_database_that_is_away_is_told(admin: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OperationalError("database is locked")

    monkeypatch.setattr(status, "overview", away)
    response = admin.get("status")
    assert (response.status_code, code_of(response)) == (503, "unavailable")


def test_status_says_everything_and_knows_when_nothing_has_changed(
    admin: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    first = admin.get("status")
    body = first.json()
    assert (body["active"], [model["model_id"] for model in body["models"]]) == (
        "acme/small",
        ["acme/other", "acme/small"],
    )
    assert (body["job"], body["pools"][0]["host"], body["runtimes"][0]["name"]) == (None, "local", "null")
    etag = first.headers["ETag"]
    same = admin.get("status", If_None_Match=etag)
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", etag)
    ModelDefinition.objects.filter(pk=other.pk).update(is_pinned=True)
    assert admin.get("status", If_None_Match=etag).status_code == 200


def test_memory_adds_up(admin: Program, small: ModelDefinition) -> None:
    [pool] = admin.get("memory").json()["pools"]
    assert sum(part["size_bytes"] for part in pool["parts"]) == pool["total_bytes"]
    assert pool["used_bytes"] == pool["total_bytes"] - pool["free_bytes"]


def test_recovery_is_asked_for_at_both_addresses(admin: Program, small: ModelDefinition) -> None:
    assert admin.post("recover").json() == {"hosts": ["local"], "sent": True}
    assert admin.post("recover", {"hosts": ["local"]}).status_code == 202
    nowhere = admin.post("recover", {"hosts": ["nowhere"]})
    assert (nowhere.status_code, code_of(nowhere)) == (422, "invalid")
    assert admin.client.post("/api/recover").json() == {"hosts": ["local"], "sent": True}


def test_key_of_staff_reaches_as_far_as_its_scope_and_no_further(
    small: ModelDefinition, program_of: MakeProgram
) -> None:
    staff = User.objects.create_user("sam", is_staff=True)
    statuses = {scope: program_of(staff, scope).post("recover").status_code for scope in ("status", "chat", "admin")}
    assert statuses == {"status": 403, "chat": 403, "admin": 202}


def test_document_is_whole(admin: Program) -> None:
    document = Client().get("/api/v1/openapi.json").json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] and operation.get("description") for operation in operations)
    assert all(operation["security"] == [{"KeyAuth": []}, {"SessionAuth": []}] for operation in operations)
    assert Client().get("/api/v1/docs").status_code == 200


@pytest.mark.parametrize(("length", "status"), [("many", 400), ("-1", 400), ("9" * 5000, 413)])
def test_length_that_makes_no_sense_is_refused(admin: Program, length: str, status: int) -> None:
    request = RequestFactory().post("/api/v1/jobs", b"{}", content_type="application/json")
    request.META["CONTENT_LENGTH"] = length
    answer = ApiMiddleware(lambda _: HttpResponse())(request)
    assert isinstance(answer, HttpResponse)
    assert answer.status_code == status
