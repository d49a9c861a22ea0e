"""`Idempotency-Key`: what comes twice is done once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.utils import timezone

from models_admin import idempotency
from models_admin.models import ApiKey, IdempotentAnswer, ModelDefinition, SwitchJob
from tests.functional.api.conftest import MakeProgram, Program, code_of, fields_of

pytestmark = pytest.mark.django_db

WANTED = {"model_id": "acme/other"}


def test_same_again_gets_the_first_answer_again(admin: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    first = admin.post("jobs", WANTED, Idempotency_Key="one")
    SwitchJob.objects.update(state="succeeded")
    again = admin.post("jobs", WANTED, Idempotency_Key="one")
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.content, again.headers["Location"]) == (first.content, first.headers["Location"])
    assert (again.headers["Idempotency-Replayed"], "Idempotency-Replayed" in first.headers) == ("true", False)
    assert SwitchJob.objects.count() == 1
    assert admin.post("jobs", WANTED, Idempotency_Key="two").status_code == 201
    assert SwitchJob.objects.count() == 2


def test_other_body_with_the_same_key_is_refused(
    admin: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    admin.post("jobs", WANTED, Idempotency_Key="one")
    response = admin.post("jobs", {"model_id": "acme/small"}, Idempotency_Key="one")
    assert (response.status_code, code_of(response)) == (422, "idempotency_key_reused")


def test_key_is_of_one_program_and_one_address(
    admin: Program, admin_person: User, program_of: MakeProgram, small: ModelDefinition, other: ModelDefinition
) -> None:
    admin.post("jobs", WANTED, Idempotency_Key="one")
    second = program_of(admin_person).post("jobs", WANTED, Idempotency_Key="one")
    assert (second.status_code, second.json()["status"]) == (200, "joined")
    assert admin.post("models/acme/small/unload", Idempotency_Key="one").status_code == 409


def test_refused_request_may_come_again(admin: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    ModelDefinition.objects.filter(pk=other.pk).update(is_available=False)
    refused = admin.post("jobs", WANTED, Idempotency_Key="one")
    assert refused.status_code == 409
    ModelDefinition.objects.filter(pk=other.pk).update(is_available=True)
    assert admin.post("jobs", WANTED, Idempotency_Key="one").status_code == 201


def test_request_that_is_being_worked_on_is_told(
    admin: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    admin.post("jobs", WANTED, Idempotency_Key="one")
    IdempotentAnswer.objects.update(status=None)
    response = admin.post("jobs", WANTED, Idempotency_Key="one")
    assert (response.status_code, code_of(response)) == (409, "idempotency_in_progress")
    # Whoever worked on it is gone.
    IdempotentAnswer.objects.update(created_at=timezone.now() - idempotency.GIVEN_UP)
    assert admin.post("jobs", WANTED, Idempotency_Key="one").json()["status"] == "joined"


def test_answer_is_kept_for_a_day(admin: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    admin.post("jobs", WANTED, Idempotency_Key="one")
    IdempotentAnswer.objects.update(created_at=timezone.now() - idempotency.LIFETIME - timedelta(seconds=1))
    assert admin.post("jobs", WANTED, Idempotency_Key="one").json()["status"] == "joined"
    assert IdempotentAnswer.objects.count() == 1


def test_new_key_is_given_again_and_stored_readable_nowhere(admin: Program) -> None:
    wanted = {"name": "robot", "scopes": ["status"]}
    first = admin.post("keys", wanted, Idempotency_Key="one")
    assert admin.post("keys", wanted, Idempotency_Key="one").json()["token"] == first.json()["token"]
    assert ApiKey.objects.filter(name="robot").count() == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT body FROM models_admin_idempotentanswer")
        assert first.json()["token"].rpartition("_")[2] not in cursor.fetchone()[0]


@pytest.mark.parametrize("key", ["", "x" * 201, "a\x7fb", "ä"])
def test_key_that_is_none_is_refused(key: str, admin: Program, other: ModelDefinition) -> None:
    response = admin.post("jobs", WANTED, Idempotency_Key=key)
    assert (response.status_code, fields_of(response)) == (422, ["Idempotency-Key"])


def test_anonymous_and_unreadable_requests_leave_nothing(admin: Program) -> None:
    assert Program().post("jobs", WANTED, Idempotency_Key="one").status_code == 401
    assert admin.post("jobs", "{", Idempotency_Key="one").status_code == 400
    assert admin.post("jobs", {"kind": "x"}, Idempotency_Key="one").status_code == 422
    assert not IdempotentAnswer.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_ten_at_once_make_one_key(admin: Program) -> None:
    def send(_: int) -> int:
        try:
            return int(
                Program(admin.token)
                .post("keys", {"name": "robot", "scopes": ["chat"]}, Idempotency_Key="k")
                .status_code
            )
        finally:
            connections.close_all()

    with ThreadPoolExecutor(5) as threads:
        statuses = list(threads.map(send, range(10)))
    assert set(statuses) <= {201, 409}
    assert 201 in statuses
    assert ApiKey.objects.filter(name="robot").count() == 1
