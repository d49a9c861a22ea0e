"""Keys through the API: made, used, listed, revoked."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from models_admin.models import ApiKey, AuditEntry, ModelDefinition
from tests.functional.api.conftest import MakeProgram, Program, code_of, fields_of

pytestmark = pytest.mark.django_db


def test_key_is_made_used_and_revoked(admin: Program, small: ModelDefinition) -> None:
    made = admin.post("keys", {"name": "robot", "scopes": ["status"], "model_ids": ["acme/small"]})
    assert made.status_code == 201
    key = made.json()["key"]
    assert (key["user"], key["state"], key["scopes"], key["model_ids"]) == ("ann", "valid", ["status"], ["acme/small"])
    robot = Program(made.json()["token"])
    assert robot.get("models").status_code == 200
    revoked = admin.send("DELETE", f"keys/{key['id']}")
    assert (revoked.status_code, revoked.json()["state"]) == (200, "revoked")
    refused = robot.get("models")
    assert (refused.status_code, code_of(refused)) == (401, "key_refused")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert admin.send("DELETE", f"keys/{key['id']}").status_code == 200
    assert AuditEntry.objects.filter(event="key:revoke").count() == 1


def test_secret_is_in_no_other_answer(admin: Program) -> None:
    made = admin.post("keys", {"name": "robot", "scopes": ["chat"]})
    secret = made.json()["token"].rpartition("_")[2].encode()
    number = made.json()["key"]["id"]
    assert secret not in admin.get("keys").content + admin.send("DELETE", f"keys/{number}").content


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes.0"),
        ({"model_ids": ["none"]}, "model_ids"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at"),
        ({"expires_at": "2101-01-01T00:00:00"}, "expires_at"),
        ({"switches_per_minute": -1}, "switches_per_minute"),
        ({"user": "nobody"}, "user"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_wrong_value_is_named(values: dict[str, object], field: str, admin: Program) -> None:
    response = admin.post("keys", {"name": "robot", "scopes": ["chat"], **values})
    assert (response.status_code, fields_of(response)) == (422, [field])


def test_key_for_somebody_else_needs_the_right(admin: Program, operator: Program, admin_person: User) -> None:
    wanted = {"name": "robot", "scopes": ["status"]}
    assert operator.post("keys", {**wanted, "user": "ann"}).status_code == 403
    assert operator.post("keys", {**wanted, "user": "nobody"}).status_code == 403
    assert operator.post("keys", {**wanted, "switches_per_minute": 0}).status_code == 403
    made = admin.post(
        "keys", {**wanted, "user": "otto", "expires_at": (timezone.now() + timedelta(days=1)).isoformat()}
    )
    assert (made.status_code, made.json()["key"]["user"]) == (201, "otto")


def test_everybody_sees_own_keys_and_administrators_all(
    admin: Program, operator: Program, operator_person: User
) -> None:
    operator.post("keys", {"name": "mine", "scopes": ["status"]})
    assert [key["name"] for key in operator.get("keys").json()["items"]] == ["mine", "test"]
    assert admin.get("keys", {"limit": 1}).json()["count"] == 3
    foreign = ApiKey.objects.exclude(user=operator_person).get()
    response = operator.send("DELETE", f"keys/{foreign.pk}")
    assert (response.status_code, code_of(response)) == (404, "not_found")


@pytest.mark.parametrize("scope", ["status", "chat", "switch"])
def test_key_without_the_scope_manages_no_keys(scope: str, admin_person: User, program_of: MakeProgram) -> None:
    program = program_of(admin_person, scope)
    for response in (
        program.get("keys"),
        program.post("keys", {"name": "x", "scopes": ["admin"]}),
        program.send("DELETE", "keys/1"),
    ):
        assert (response.status_code, code_of(response)) == (403, "forbidden")


def test_key_makes_none_that_reaches_further(
    admin_person: User, program_of: MakeProgram, small: ModelDefinition
) -> None:
    program = program_of(admin_person, model_ids=["acme/small"])
    assert program.post("keys", {"name": "x", "scopes": ["status"]}).status_code == 403
    assert program.post("keys", {"name": "x", "scopes": ["status"], "model_ids": ["acme/small"]}).status_code == 201


def test_key_that_ends_makes_none_that_lasts_longer(admin_person: User, program_of: MakeProgram) -> None:
    end = timezone.now() + timedelta(hours=1)
    program = program_of(admin_person, expires_at=end)
    wanted = {"name": "x", "scopes": ["status"]}
    for later in ({}, {"expires_at": (end + timedelta(seconds=1)).isoformat()}):
        refused = program.post("keys", {**wanted, **later})
        assert (refused.status_code, code_of(refused)) == (403, "forbidden")
    assert program.post("keys", {**wanted, "expires_at": end.isoformat()}).status_code == 201


def test_key_with_a_limit_of_its_own_makes_no_way_around_it(
    operator_person: User, admin_person: User, program_of: MakeProgram
) -> None:
    wanted = {"name": "x", "scopes": ["switch"]}
    refused = program_of(operator_person, switches_per_minute=1).post("keys", wanted)
    assert (refused.status_code, code_of(refused)) == (403, "forbidden")
    assert program_of(admin_person, switches_per_minute=1).post("keys", wanted).status_code == 201
