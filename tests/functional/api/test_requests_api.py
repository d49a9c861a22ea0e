"""Requests through the API: somebody who may not switch asks, somebody who may answers."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from models_admin.models import AuditEntry, ModelDefinition, SwitchJob
from tests.functional.api.conftest import MakeProgram, Program, code_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def mia(program_of: MakeProgram) -> Program:
    """A member's program."""
    return program_of(User.objects.create_user("mia"))


def test_request_is_made_once_seen_and_approved(
    mia: Program, operator: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    asked = mia.post("requests", {"model_id": "acme/other", "reason": "For the maths class"})
    assert (asked.status_code, asked.json()["state"], asked.json()["user"]) == (201, "open", "mia")
    number = asked.json()["id"]
    assert mia.post("requests", {"model_id": "acme/other"}).json()["id"] == number
    for program in (mia, operator):
        assert [item["id"] for item in program.get("requests").json()["items"]] == [number]
    assert mia.post(f"requests/{number}/approve").status_code == 403
    approved = operator.post(f"requests/{number}/approve")
    job = SwitchJob.objects.get()
    assert (approved.status_code, approved.json()["job"]["id"], job.requested_by_name) == (201, job.pk, "otto")
    assert AuditEntry.objects.filter(event="model:ask:approve", actor_name="otto").exists()
    assert operator.get("requests").json()["items"] == []


def test_request_is_declined_with_a_word(mia: Program, operator: Program, other: ModelDefinition) -> None:
    number = mia.post("requests", {"model_id": "acme/other"}).json()["id"]
    declined = operator.post(f"requests/{number}/decline", {"answer": "Tomorrow"})
    assert (declined.json()["state"], declined.json()["answer"]) == ("declined", "Tomorrow")
    assert operator.post(f"requests/{number}/decline").status_code == 409


def test_request_is_withdrawn_by_the_one_who_asked(
    mia: Program, operator: Program, program_of: MakeProgram, other: ModelDefinition
) -> None:
    number = mia.post("requests", {"model_id": "acme/other"}).json()["id"]
    stranger = program_of(User.objects.create_user("max"))
    refused = stranger.post(f"requests/{number}/withdraw")
    assert (refused.status_code, code_of(refused)) == (403, "forbidden")
    assert stranger.get("requests").json()["items"] == []
    assert operator.post(f"requests/{number}/withdraw").status_code == 403
    assert mia.post(f"requests/{number}/withdraw").json()["state"] == "withdrawn"


def test_key_for_some_models_answers_for_no_others(
    mia: Program, admin_person: User, program_of: MakeProgram, small: ModelDefinition, other: ModelDefinition
) -> None:
    number = mia.post("requests", {"model_id": "acme/other"}).json()["id"]
    program = program_of(admin_person, model_ids=["acme/small"])
    for answer in ("approve", "decline"):
        refused = program.post(f"requests/{number}/{answer}")
        assert (refused.status_code, code_of(refused)) == (403, "forbidden")
    assert mia.get("requests").json()["items"][0]["state"] == "open"
