"""Models through the API: list, read, create, change, delete, pin, import, export, scan."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, ModelDefinition, Runtime, SwitchJob
from tests.factories import make_model
from tests.functional.api.conftest import MakeProgram, Program, code_of, fields_of
from tests.tiny_gguf import write_not_gguf, write_tiny_model

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Settings) -> Path:
    settings.MODELS_DIR = tmp_path
    return tmp_path


def ids(response: object) -> list[str]:
    return [item["model_id"] for item in response.json()["items"]]  # type: ignore[attr-defined]


def test_list_is_filtered_sorted_and_paged(admin: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    make_model(small.runtime, model_id="absent", name="Absent", is_available=False)
    assert ids(admin.get("models")) == ["absent", "acme/other", "acme/small"]
    assert ids(admin.get("models", {"sort": "-size"})) == ["acme/other", "acme/small", "absent"]
    assert ids(admin.get("models", {"state": "loaded"})) == ["acme/small"]
    assert ids(admin.get("models", {"tag": "coding"})) == ["acme/other"]
    assert ids(admin.get("models", {"q": "SMALL"})) == ["acme/small"]
    assert ids(admin.get("models", {"runtime": "nobody"})) == []
    page = admin.get("models", {"limit": 1, "offset": 1})
    assert (ids(page), page.json()["count"]) == (["acme/other"], 3)


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 201}, {"offset": -1}, {"sort": "x"}, {"state": "x"}])
def test_wrong_query_is_refused_with_its_name(query: dict[str, object], admin: Program) -> None:
    response = admin.get("models", query)
    assert (response.status_code, code_of(response), fields_of(response)) == (422, "invalid", list(query))


def test_model_is_read_by_an_id_with_slashes(admin: Program, small: ModelDefinition) -> None:
    body = admin.get("models/acme/small").json()
    assert (body["state"], body["is_active"], body["held_bytes"]) == ("active", True, 600_000_000)
    assert body["need"]["estimated_bytes"] > 0
    response = admin.get("models/acme/none")
    assert (response.status_code, code_of(response)) == (404, "model_unknown")


def test_model_is_created_changed_and_deleted(admin: Program, null_runtime: Runtime) -> None:
    created = admin.post(
        "models", {"model_id": "a/b", "name": "New", "tags": ["chat"], "parameters": {"ctx_size": 4096}}
    )
    assert (created.status_code, created.headers["Location"]) == (201, "/api/v1/models/a/b")
    assert (created.json()["runtime"], created.json()["state"]) == ("null", "not_downloaded")

    changed = admin.patch("models/a/b", {"name": "Renamed", "context_length": None, "idle_minutes": 5})
    assert changed.status_code == 200
    assert (changed.json()["name"], changed.json()["idle_minutes"], changed.json()["tags"]) == ("Renamed", 5, ["chat"])

    assert admin.send("DELETE", "models/a/b").status_code == 204
    assert not ModelDefinition.objects.exists()
    events = AuditEntry.objects.order_by("pk").values_list("event", "via")
    assert [event for event, via in events if via == "rest"] == [
        AuditEvent.MODEL_CREATE,
        AuditEvent.MODEL_CHANGE,
        AuditEvent.MODEL_DELETE,
    ]


def test_change_of_nothing_leaves_no_trace(admin: Program, small: ModelDefinition) -> None:
    before = AuditEntry.objects.count()
    assert admin.patch("models/acme/small", {"name": "Small"}).status_code == 200
    assert admin.patch("models/acme/small", {}).status_code == 200
    assert AuditEntry.objects.count() == before


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model_id": "a b"}, "model_id"),
        ({"model_id": "acme/small"}, "model_id"),
        ({"runtime": "none"}, "runtime"),
        ({"name": ""}, "name"),
        ({"name": 3}, "name"),
        ({"parameters": {"ctx_size": "many"}}, "parameters.ctx_size"),
        ({"parameters": []}, "parameters"),
        ({"tags": ["a,b"]}, "tags"),
        ({"tags": "chat"}, "tags"),
        ({"sampling": {"temperature": -1}}, "sampling.temperature"),
        ({"extra_args": ["--model", "x"]}, "extra_args"),
        ({"idle_minutes": 2**40}, "idle_minutes"),
        ({"size_bytes": 2**70}, "size_bytes"),
        ({"is_pinned": True}, "is_pinned"),
        ({"path": "broken.gguf"}, "path"),
    ],
)
def test_wrong_value_is_named_in_creating_and_changing(
    values: dict[str, object], field: str, admin: Program, small: ModelDefinition, folder: Path
) -> None:
    write_not_gguf(folder / "broken.gguf")
    make_model(small.runtime, model_id="mine", name="Mine")
    created = admin.post("models", {"model_id": "new", "name": "New", **values})
    changed = admin.patch("models/mine", values)
    assert (created.status_code, fields_of(created)) == (422, [field])
    assert (changed.status_code, fields_of(changed)) == (422, [field])
    assert ModelDefinition.objects.count() == 2


def test_null_is_refused_where_there_must_be_something(admin: Program, small: ModelDefinition) -> None:
    response = admin.patch("models/acme/small", {"name": None, "tags": None, "context_length": None})
    assert (response.status_code, fields_of(response)) == (422, ["name", "tags"])


def test_loaded_model_keeps_its_id_and_is_not_deleted(admin: Program, small: ModelDefinition) -> None:
    moved = admin.patch("models/acme/small", {"model_id": "elsewhere"})
    deleted = admin.send("DELETE", "models/acme/small")
    assert [(r.status_code, code_of(r)) for r in (moved, deleted)] == [(409, "model_in_use")] * 2


def test_runtime_has_to_be_named_where_there_are_two(admin: Program, null_runtime: Runtime) -> None:
    Runtime.objects.create(name="second", kind="null", pool=null_runtime.pool)
    assert fields_of(admin.post("models", {"model_id": "new", "name": "New"})) == ["runtime"]
    assert admin.post("models", {"model_id": "new", "name": "New", "runtime": "second"}).status_code == 201


def test_pin_is_set_and_taken_away_and_twice_is_once(admin: Program, small: ModelDefinition) -> None:
    assert [admin.send("PUT", "models/acme/small/pin").json()["is_pinned"] for _ in range(2)] == [True, True]
    assert admin.send("DELETE", "models/acme/small/pin").json()["is_pinned"] is False
    assert AuditEntry.objects.filter(event=AuditEvent.MODEL_PIN).count() == 2


def test_unload_and_restart_are_jobs(admin: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    response = admin.post("models/acme/small/unload")
    job = SwitchJob.objects.get()
    assert (response.status_code, response.headers["Location"]) == (201, f"/api/v1/jobs/{job.pk}")
    assert (response.json()["status"], response.json()["job"]["kind"]) == ("accepted", "unload")
    again = admin.post("models/acme/small/unload")
    assert (again.status_code, again.json()["status"]) == (200, "joined")
    busy = admin.post("models/acme/small/restart")
    assert (busy.status_code, code_of(busy), busy.json()["data"]) == (409, "job_running", {"job_id": job.pk})
    idle = admin.post("models/acme/other/unload")
    assert (idle.status_code, code_of(idle)) == (409, "not_loaded")


def test_models_yaml_goes_out_and_comes_in_again(admin: Program, null_runtime: Runtime) -> None:
    Runtime.objects.filter(pk=null_runtime.pk).update(kind="llama_server")
    make_model(null_runtime, model_id="a/b", name="First", parameters={"ctx_size": 2048})
    out = admin.get("catalog/export")
    assert (out.status_code, out.headers["Content-Type"]) == (200, "application/yaml; charset=utf-8")
    text = out.content.decode().replace("First", "Second")
    answer = admin.post("catalog/import", text)
    assert (answer.status_code, answer.json()["changed"]) == (200, ["a/b"])
    assert ModelDefinition.objects.get().name == "Second"


def test_models_yaml_with_an_error_changes_nothing(admin: Program, null_runtime: Runtime) -> None:
    response = admin.post("catalog/import", "models:\n  - id: [")
    assert (response.status_code, code_of(response)) == (422, "invalid")
    response = admin.client.post("/api/v1/catalog/import", b"\xff\xfe", content_type="application/yaml")
    assert (response.status_code, code_of(response)) == (400, "bad_request")


def test_folder_is_scanned(admin: Program, null_runtime: Runtime, folder: Path) -> None:
    Runtime.objects.filter(pk=null_runtime.pk).update(kind="llama_server")
    write_tiny_model(folder / "good.gguf")
    write_not_gguf(folder / "bad.gguf")
    answer = admin.post("catalog/scan", {"path": str(folder)}).json()
    assert len(answer["created"]) == 1
    assert len(answer["problems"]) == 1
    missing = admin.post("catalog/scan", {"path": str(folder / "none")})
    assert (missing.status_code, code_of(missing)) == (422, "invalid")


def test_key_for_some_models_sees_all_and_changes_only_these(
    admin_person: User, program_of: MakeProgram, small: ModelDefinition, other: ModelDefinition
) -> None:
    program = program_of(admin_person, model_ids=["acme/other"])
    assert ids(program.get("models")) == ["acme/other", "acme/small"]
    assert program.patch("models/acme/other", {"description": "Mine"}).status_code == 200
    refused = [
        program.patch("models/acme/small", {"description": "Mine"}),
        program.send("PUT", "models/acme/small/pin"),
        program.send("DELETE", "models/acme/small"),
        program.post("models/acme/small/unload"),
        program.post("models", {"model_id": "new", "name": "New"}),
        program.post("catalog/import", "models: []"),
        program.post("catalog/scan", {"path": "/"}),
        program.post("recover"),
    ]
    assert [(r.status_code, code_of(r)) for r in refused] == [(403, "forbidden")] * len(refused)
