"""What every address refuses, with which status: one row for each address."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django.fixtures import Settings

from gantry.ratelimit.moving_window import limiter_for
from models_admin.models import MemoryPool, ModelDefinition, Runtime, SwitchJob, SwitchPolicy
from tests.factories import make_job, make_model
from tests.functional.api_seeds.conftest import Program, ProgramOf

# How each address that switches is asked for a model.
SWITCHES = {
    "llm-switch": ("/api/llm-switch?wait=0", "model_id"),
    "switch stream": ("/v1/models/switch", "target_model"),
    "switch-model": ("/api/switch-model", ""),
    "admin switch": ("/api/admin/models/switch?wait=0", "model_id"),
}
READS = ("/api/llm-status", "/v1/models/status", "/api/model-loading-status", "/api/admin/models")
OTHERS = ("/api/llm-restart?wait=0", "/api/admin/models/unload?wait=0", "/api/restart-api")
EACH_SWITCH = pytest.mark.parametrize("name", SWITCHES)


def ask(program: Program, name: str, model_id: Any, *, confirm: bool = False) -> Any:
    """Ask for a switch in the way of one address."""
    path, field = SWITCHES[name]
    if field:
        return program.post(path, {field: model_id, **({"confirm": True} if confirm else {})})
    return program.post(f"{path}?model_id={model_id}{'&confirm=true' if confirm else ''}")


def refusal(response: Any) -> tuple[int, str]:
    """Status and code of a refusal, which has the one shape."""
    body = response.json()
    assert sorted(body) == ["code", "data", "detail", "hint"], body
    assert isinstance(body["detail"], str)
    assert body["detail"]
    return response.status_code, body["code"]


# Who may: (role, scope of the key) -> status of reading, of switching, and of a restart of the web server.
# 409: let in, and there is nothing to do it with.
@pytest.mark.parametrize(
    ("role", "scope", "reading", "switching", "restarting"),
    [
        ("", "", 401, 401, 401),
        ("Member", "status", 200, 403, 403),
        ("Member", "chat", 403, 403, 403),
        ("Member", "admin", 200, 403, 403),
        ("Operator", "chat", 403, 403, 403),
        ("Operator", "status", 200, 403, 403),
        ("Operator", "switch", 200, 409, 403),
        ("Operator", "admin", 200, 409, 403),
        ("Administrator", "status", 200, 403, 403),
        ("Administrator", "switch", 200, 409, 403),
        ("Administrator", "admin", 200, 409, 409),
    ],
)
def test_who_may(
    role: str, scope: str, reading: int, switching: int, restarting: int, program_of: ProgramOf, null_runtime: Runtime
) -> None:
    make_model(null_runtime, model_id="gone", is_available=False)
    program = program_of(role, scope)
    for path in READS:
        assert program.get(path).status_code == reading, path
    for name in SWITCHES:
        assert ask(program, name, "gone").status_code == switching, name
    for path in OTHERS[:2]:
        assert program.post(path).status_code == switching, path
    assert program.post("/api/restart-api").status_code == restarting


def test_key_that_is_none_is_refused(db: None) -> None:
    program = Program(Client(headers={"Authorization": "Bearer my-secret-api-key-12345"}))
    for path in READS:
        assert refusal(program.get(path)) == (401, "key_refused")
    for path in OTHERS:
        assert refusal(program.post(path)) == (401, "key_refused")


def test_session_reads_without_and_changes_only_with_its_token(admin_person: User, small: ModelDefinition) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_person)
    for path in READS:
        assert client.get(path).status_code == 200, path
    for name in SWITCHES:
        assert refusal(ask(Program(client), name, "acme/small")) == (403, "csrf_failed")
    for path in OTHERS:
        assert refusal(Program(client).post(path)) == (403, "csrf_failed")
    client.cookies["csrftoken"] = token = "a" * 32
    answer = client.post(
        "/api/llm-switch", {"model_id": "acme/small"}, "application/json", headers={"X-CSRFToken": token}
    )
    assert answer.status_code == 200


def test_key_for_other_models_is_refused(program_of: ProgramOf, small: ModelDefinition, other: ModelDefinition) -> None:
    program = program_of("Operator", "switch", model_ids=["acme/small"])
    for name in SWITCHES:
        assert refusal(ask(program, name, "acme/other")) == (403, "forbidden")


@EACH_SWITCH
def test_unknown_model_is_refused(name: str, operator: Program, small: ModelDefinition) -> None:
    assert refusal(ask(operator, name, "acme/unknown")) == (404, "model_unknown")


@EACH_SWITCH
def test_model_that_is_not_downloaded_is_refused(name: str, operator: Program, null_runtime: Runtime) -> None:
    make_model(null_runtime, model_id="gone", is_available=False)
    assert refusal(ask(operator, name, "gone")) == (409, "not_downloaded")


@pytest.mark.parametrize(
    "body", [None, "{", "[]", "{}", '{"model_id": 3, "target_model": 3}', '{"model_id": "", "target_model": ""}']
)
@EACH_SWITCH
def test_request_that_names_no_model_is_refused(name: str, body: str | None, operator: Program) -> None:
    path, field = SWITCHES[name]
    response = operator.post(path if field else f"{path}?model_id=", body)
    assert response.status_code == (400 if body == "{" and field else 422)
    assert response.json()["detail"]


def test_wait_that_is_none_is_refused(operator: Program) -> None:
    for wait in ("-1", "601", "nan", "soon"):
        assert refusal(operator.post(f"/api/llm-restart?wait={wait}")) == (422, "invalid")


@EACH_SWITCH
def test_switch_that_is_half_done_is_taken_over_only_when_confirmed(
    name: str, operator: Program, pool: MemoryPool, small: ModelDefinition, other: ModelDefinition
) -> None:
    running = make_job(pool, small, state="loading", percent=70)
    response = ask(operator, name, "acme/other")
    assert refusal(response) == (409, "needs_confirmation")
    assert (response.json()["data"]["job_id"], response.json()["data"]["percent"]) == (running.pk, 70)
    assert SwitchJob.objects.count() == 1

    if name != "switch stream":  # its answer ends with the switch
        assert ask(operator, name, "acme/other", confirm=True).status_code in {200, 202}
        running.refresh_from_db()
        assert running.superseded_by is not None


@EACH_SWITCH
def test_plan_that_unloads_is_done_only_when_confirmed_where_policy_asks(
    name: str, operator: Program, small: ModelDefinition, other: ModelDefinition
) -> None:
    SwitchPolicy(confirm_before_unload=True).save()
    response = ask(operator, name, "acme/other")
    assert refusal(response) == (409, "needs_confirmation")
    assert [model["model_id"] for model in response.json()["data"]["plan"]["evicted"]] == ["acme/small"]
    assert not SwitchJob.objects.exists()


@EACH_SWITCH
def test_too_often_says_when_to_try_again(
    name: str, operator: Program, small: ModelDefinition, other: ModelDefinition, settings: Settings
) -> None:
    settings.LIMITS_URL = "memory://"
    limiter_for.cache_clear()
    SwitchPolicy(switches_per_user=1).save()
    assert operator.post("/api/llm-restart?wait=0").status_code == 202
    SwitchJob.objects.update(state="cancelled")
    response = ask(operator, name, "acme/other")
    limiter_for.cache_clear()
    assert refusal(response) == (429, "rate_limited")
    assert 1 <= int(response.headers["Retry-After"]) == response.json()["data"]["retry_after"] <= 61


@pytest.mark.parametrize("name", [name for name in SWITCHES if name != "switch stream"])
def test_what_does_not_fit_is_refused_with_its_figures(name: str, operator: Program, null_runtime: Runtime) -> None:
    make_model(null_runtime, model_id="huge", size_bytes=10**12)
    response = ask(operator, name, "huge")
    assert refusal(response) == (409, "insufficient_memory")
    assert response.json()["data"]["required_bytes"] >= 10**12


def test_nothing_loaded_is_neither_restarted_nor_unloaded(operator: Program, other: ModelDefinition) -> None:
    for path in OTHERS[:2]:
        assert refusal(operator.post(path)) == (409, "not_loaded")


def test_unload_meets_a_job_under_way(operator: Program, pool: MemoryPool, small: ModelDefinition) -> None:
    make_job(pool, small, kind="restart", state="loading")
    response = operator.post("/api/admin/models/unload?wait=0")
    assert refusal(response) == (409, "job_running")


def test_same_requests_join_one_job(operator: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    answers = [ask(operator, name, "acme/other").json() for name in SWITCHES if name != "switch stream"]
    assert {answer["job_id"] for answer in answers} == {SwitchJob.objects.get().pk}
    assert [answer["message"] for answer in answers] == ["Switching to Other", *["Switching to acme/other"] * 2]


def test_web_server_that_nobody_would_start_again_stays(program_of: ProgramOf) -> None:
    response = program_of("Administrator").post("/api/restart-api")
    assert refusal(response) == (409, "not_supervised")
