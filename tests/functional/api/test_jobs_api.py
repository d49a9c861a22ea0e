"""Jobs through the API: made, foreseen, listed, read, cancelled, followed."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User
from django.test import AsyncClient
from pytest_django.fixtures import Settings

from gantry.api import sse
from gantry.planning.states import JobState
from gantry.ratelimit.moving_window import limiter_for
from models_admin import job_moves
from models_admin.models import ApiKey, AuditEntry, ModelDefinition, SwitchJob, SwitchPolicy
from models_admin.roles import MEMBER
from tests.factories import make_job
from tests.functional.admin_world import ended_job, loading_job
from tests.functional.api.conftest import MakeProgram, Program, code_of, fields_of

pytestmark = pytest.mark.django_db


def _call(**sampling: object) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi"}]
    return {"kind": "call", "model_id": "acme/other", "messages": messages, "sampling": sampling}


def test_switch_is_accepted_joined_and_not_needed(
    admin: Program, operator: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    none = admin.post("jobs", {"model_id": "acme/small"})
    assert (none.status_code, none.json()) == (200, {"status": "already_loaded", "job": None, "plan": None})
    made = admin.post("jobs", {"model_id": "acme/other"})
    job = SwitchJob.objects.get()
    assert (made.status_code, made.headers["Location"]) == (201, f"/api/v1/jobs/{job.pk}")
    body = made.json()
    assert (body["status"], body["job"]["id"], body["job"]["via"]) == ("accepted", job.pk, "rest")
    assert [model["model_id"] for model in body["plan"]["evicted"]] == ["acme/small"]
    same = operator.post("jobs", {"model_id": "acme/other"})
    assert (same.status_code, same.json()["status"], same.json()["job"]["id"]) == (200, "joined", job.pk)
    assert AuditEntry.objects.get(job=job).actor_name == "ann"


def test_what_policy_asks_is_confirmed_by_the_same_with_confirm(
    admin: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    SwitchPolicy(confirm_before_unload=True).save()
    asked = admin.post("jobs", {"model_id": "acme/other"})
    assert (asked.status_code, code_of(asked)) == (409, "needs_confirmation")
    data = asked.json()["data"]
    assert (data["job_id"], [m["name"] for m in data["plan"]["evicted"]]) == (None, ["Small"])
    assert not SwitchJob.objects.exists()
    assert admin.post("jobs", {"model_id": "acme/other", "confirm": True}).status_code == 201


def test_switch_that_is_half_done_is_taken_over_when_confirmed(
    admin: Program, admin_person: User, small: ModelDefinition, other: ModelDefinition
) -> None:
    job = loading_job(other, admin_person)
    asked = admin.post("jobs", {"model_id": "acme/small"})
    assert (asked.status_code, code_of(asked)) == (409, "needs_confirmation")
    assert asked.json()["data"] == {"job_id": job.pk, "percent": 52, "plan": None}
    taken = admin.post("jobs", {"model_id": "acme/small", "confirm": True})
    assert taken.status_code == 201
    job.refresh_from_db()
    assert job.superseded_by_id == taken.json()["job"]["id"]
    assert admin.get(f"jobs/{job.pk}").json()["superseded_by"] == job.superseded_by_id


@pytest.mark.parametrize("kind", ["unload", "restart"])
def test_other_kinds_of_jobs_are_made(kind: str, admin: Program, small: ModelDefinition) -> None:
    made = admin.post("jobs", {"kind": kind, "model_id": "acme/small"})
    assert (made.status_code, made.json()["job"]["kind"]) == (201, kind)


def test_all_is_unloaded_on_the_only_host_there_is(admin: Program, small: ModelDefinition) -> None:
    assert fields_of(admin.post("jobs", {"kind": "unload_all", "host": "nowhere"})) == ["host"]
    made = admin.post("jobs", {"kind": "unload_all"})
    assert (made.status_code, made.json()["job"]["kind"]) == (201, "unload_all")


def test_call_takes_messages(admin: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    wanted: dict[str, Any] = {"kind": "call", "model_id": "acme/other"}
    assert fields_of(admin.post("jobs", wanted)) == ["messages"]
    made = admin.post("jobs", {**wanted, "messages": [{"role": "user", "content": "Hello"}]})
    assert made.status_code == 201
    job = SwitchJob.objects.get()
    SwitchJob.objects.filter(pk=job.pk).update(result={"text": "Hi"})
    assert admin.get(f"jobs/{job.pk}").json()["result"] == {"text": "Hi"}


def test_answer_of_a_call_is_for_the_one_who_asked(
    operator: Program, admin_person: User, other: ModelDefinition
) -> None:
    job = ended_job(other, admin_person, "succeeded", kind="call", result={"text": "Hi"}, requested_by=admin_person)
    assert operator.get(f"jobs/{job.pk}").json()["result"] == {}


def test_what_does_not_fit_comes_with_figures_and_ways_out(
    admin: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    ModelDefinition.objects.filter(pk=small.pk).update(is_pinned=True)
    response = admin.post("jobs", {"model_id": "acme/other"})
    assert (response.status_code, code_of(response)) == (409, "insufficient_memory")
    data = response.json()["data"]
    assert data["required_bytes"] > data["available_bytes"]
    assert {"kind": "unpin", "model_ids": ["acme/small"]}.items() <= data["ways_out"][0].items()
    made = admin.post("jobs", {"model_id": "acme/other", "unpin": ["acme/small"]})
    assert made.status_code == 201


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "model_id"),
        ({"kind": "dance"}, "kind"),
        ({"model_id": "acme/other", "context": 1}, "context"),
        ({"model_id": "acme/other", "context": "x"}, "context"),
        ({"model_id": "acme/other", "host": "local"}, "host"),
        ({"model_id": "acme/other", "messages": [{"role": "user", "content": "x"}]}, "messages"),
        ({"kind": "unload", "model_id": "acme/other", "unpin": ["acme/small"]}, "unpin"),
        ({"kind": "unload_all", "model_id": "acme/other"}, "model_id"),
        ({"model_id": "acme/other", "surprise": 1}, "surprise"),
        ({"kind": "call", "model_id": "acme/other", "messages": [{"role": "cat", "content": "x"}]}, "messages.0.role"),
        (_call(max_tokens=True), "sampling.max_tokens"),
        (_call(temperature=-1), "sampling.temperature"),
        (_call(model="another"), "sampling.model"),
    ],
)
def test_wrong_wish_is_named(body: dict[str, Any], field: str, admin: Program, other: ModelDefinition) -> None:
    response = admin.post("jobs", body)
    assert (response.status_code, fields_of(response)) == (422, [field])
    assert not SwitchJob.objects.exists()


@pytest.mark.parametrize("body", ["", "{", "[]", "1", "null", '{"model_id": "a", "model_id": "b"}', '{"context": NaN}'])
def test_body_that_is_none_is_refused(body: str, admin: Program) -> None:
    response = admin.post("jobs", body)
    assert response.status_code in {400, 422}
    assert code_of(response) in {"bad_request", "invalid"}


def test_reason_why_a_body_cannot_be_read_is_told(admin: Program) -> None:
    assert admin.post("jobs", '{"a":\n1,,}').json()["detail"].startswith("This is not JSON: line 2")
    assert "u0000" in admin.post("jobs", r'{"model_id": "a\u0000b"}').json()["detail"]
    assert "half a character" in admin.post("jobs", r'{"model_id": "\ud800"}').json()["detail"]


def test_too_often_says_when_to_try_again(
    admin: Program, small: ModelDefinition, other: ModelDefinition, settings: Settings
) -> None:
    settings.LIMITS_URL = "memory://"
    limiter_for.cache_clear()
    SwitchPolicy(switches_per_user=1).save()
    assert admin.post("jobs", {"kind": "restart", "model_id": "acme/small"}).status_code == 201
    SwitchJob.objects.update(state=JobState.CANCELLED)
    response = admin.post("jobs", {"kind": "restart", "model_id": "acme/small"})
    limiter_for.cache_clear()
    assert (response.status_code, code_of(response)) == (429, "rate_limited")
    assert int(response.headers["Retry-After"]) == response.json()["data"]["retry_after"] <= 61


def test_limits_nobody_can_look_up_close_the_door(
    admin: Program, small: ModelDefinition, other: ModelDefinition, settings: Settings
) -> None:
    settings.LIMITS_URL = "redis://127.0.0.1:1/0"
    limiter_for.cache_clear()
    response = admin.post("jobs", {"model_id": "acme/other"})
    limiter_for.cache_clear()
    assert (response.status_code, code_of(response)) == (503, "unavailable")
    assert admin.get("jobs").status_code == 200


def test_preview_says_what_would_happen_and_does_nothing(
    admin: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    body = admin.post("jobs/preview", {"model_id": "acme/other"}).json()
    assert (body["title"], body["takes_over_job"]) == ("Switch to Other?", None)
    assert [step["kind"] for step in body["plan"]["steps"]] == ["drain", "unload", "free", "load", "verify"]
    assert body["wait_text"].startswith("Everybody's chat waits")
    assert admin.post("jobs/preview", {"kind": "unload_all"}).json()["title"] == "Unload all models?"
    assert not SwitchJob.objects.exists()


def test_list_goes_on_where_the_page_before_ended(admin: Program, admin_person: User, other: ModelDefinition) -> None:
    jobs = [ended_job(other, admin_person, "succeeded").pk for _ in range(5)]
    first = admin.get("jobs", {"limit": 3}).json()
    # One that comes meanwhile moves nothing.
    ended_job(other, admin_person, "failed")
    rest = admin.get("jobs", {"limit": 3, "after": first["next"]}).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == jobs[::-1]
    assert rest["next"] is None
    assert [job["state"] for job in admin.get("jobs", {"state": "failed"}).json()["items"]] == ["failed"]
    assert admin.get("jobs", {"kind": "unload"}).json()["items"] == []
    assert admin.get("jobs", {"unfinished": True}).json()["items"] == []
    assert len(admin.get("jobs", {"model_id": "acme/other"}).json()["items"]) == 6


@pytest.mark.parametrize(("number", "status"), [(999, 404), (2**63 - 1, 404), (2**63, 422), (0, 422), ("x", 422)])
def test_job_that_is_not_there_is_told(number: object, status: int, admin: Program) -> None:
    for response in (
        admin.get(f"jobs/{number}"),
        admin.get(f"jobs/{number}/events"),
        admin.post(f"jobs/{number}/cancel"),
    ):
        assert response.status_code == status
        assert code_of(response) == {404: "not_found", 422: "invalid"}[status]


def test_job_is_cancelled_once(admin: Program, admin_person: User, other: ModelDefinition) -> None:
    job = make_job(other.runtime.pool, other, requested_by=admin_person)
    assert admin.post(f"jobs/{job.pk}/cancel").status_code == 202
    again = admin.post(f"jobs/{job.pk}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_member_follows_own_switches_only(program_of: MakeProgram, admin_person: User, other: ModelDefinition) -> None:
    SwitchPolicy(members_may_switch=True).save()
    user = User.objects.create_user("mia")
    assert user.groups.filter(name=Group.objects.get(name=MEMBER).name).exists()
    own = make_job(other.runtime.pool, other, requested_by=user, requested_by_name="mia")
    foreign = make_job(other.runtime.pool, other, requested_by=admin_person)
    program = program_of(user, "switch")
    assert program.get(f"jobs/{own.pk}").status_code == 200
    assert [program.get(f"jobs/{n}").status_code for n in (foreign.pk, 999)] == [403, 403]
    assert program.post(f"jobs/{foreign.pk}/cancel").status_code == 403
    assert program.get(f"jobs/{foreign.pk}/events", Last_Event_ID="0").status_code == 403
    assert program.get("jobs").status_code == 403
    assert program_of(user, "chat").get(f"jobs/{own.pk}").status_code == 403
    assert program.post(f"jobs/{own.pk}/cancel").status_code == 202


@pytest.mark.django_db(transaction=True)
async def test_events_are_streamed_from_where_the_client_was(
    admin: Program, admin_person: User, other: ModelDefinition
) -> None:
    def ended() -> SwitchJob:
        job = make_job(other.runtime.pool, other, state=JobState.LOADING)
        for number in range(3):
            job_moves.record_event(job, text=f"Event {number + 1}")
        job_moves.finish(job, JobState.SUCCEEDED, text="Done")
        return job

    job = await sync_to_async(ended)()
    headers = {"Authorization": f"Bearer {admin.token}", "Last-Event-ID": "2"}
    response = await AsyncClient().get(f"/api/v1/jobs/{job.pk}/events", headers=headers)
    assert response.headers["Content-Type"] == "text/event-stream"
    assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-store", "no")
    text = b"".join([piece async for piece in response.streaming_content]).decode()  # type: ignore[attr-defined]
    assert [line for line in text.splitlines() if line.startswith(("id:", "event:"))] == [
        "id: 3",
        "event: progress",
        "id: 4",
        "event: end",
    ]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("taken", ["key", "right"])
async def test_stream_of_a_busy_job_ends_with_the_right_to_see_it(
    taken: str,
    operator: Program,
    operator_person: User,
    admin_person: User,
    other: ModelDefinition,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sse, "RIGHTS_SECONDS", 0.0)
    job = await sync_to_async(loading_job)(other, admin_person)
    await sync_to_async(job_moves.record_event)(job, text="Seen")
    headers = {"Authorization": f"Bearer {operator.token}"}
    response = await AsyncClient().get(f"/api/v1/jobs/{job.pk}/events", headers=headers)
    async with aclosing(aiter(response.streaming_content)) as pieces:  # type: ignore[attr-defined]
        assert b"Seen" in await anext(pieces)
        await sync_to_async(ApiKey.objects.all().delete if taken == "key" else operator_person.groups.clear)()
        await sync_to_async(job_moves.record_event)(job, text="Secret")
        assert not [piece async for piece in pieces]


def test_key_for_some_models_unpins_no_others(
    admin_person: User, program_of: MakeProgram, small: ModelDefinition, other: ModelDefinition
) -> None:
    ModelDefinition.objects.filter(pk=small.pk).update(is_pinned=True)
    program = program_of(admin_person, model_ids=["acme/other"])
    refused = program.post("jobs", {"model_id": "acme/other", "unpin": ["acme/small"]})
    assert (refused.status_code, code_of(refused)) == (403, "forbidden")
    small.refresh_from_db()
    assert small.is_pinned


def test_servers_log_is_for_those_who_may_see_switches(
    admin: Program, program_of: MakeProgram, other: ModelDefinition
) -> None:
    user = User.objects.create_user("mia")
    job = make_job(other.runtime.pool, other, requested_by=user, log_tail="cannot open /srv/models/other.gguf")
    assert program_of(user).get(f"jobs/{job.pk}").json()["log_tail"] == ""
    assert admin.get(f"jobs/{job.pk}").json()["log_tail"] == job.log_tail


def test_answer_of_a_call_is_not_for_a_key_that_only_looks(
    admin_person: User, program_of: MakeProgram, other: ModelDefinition
) -> None:
    job = make_job(other.runtime.pool, other, requested_by=admin_person, result={"text": "Hello"})
    seen = {
        scope: program_of(admin_person, scope).get(f"jobs/{job.pk}").json()["result"] for scope in ("status", "switch")
    }
    assert seen == {"status": {}, "switch": job.result}
