"""A switch's page, logs, import, export, and the forms of the admin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from models_admin import audit
from models_admin.actor import Actor
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime, SwitchEvent
from tests.factories import make_job, make_model
from tests.functional.admin_world import ended_job, load, loading_job, staff, step

HTMX = {"HX-Request": "true"}
YAML = """models:
  - id: small
    name: Small
    path: small.gguf
    parameters: {ctx_size: 2048}
"""
PLAN = {
    "kind": "switch",
    "target_id": "other",
    "target_name": "Other",
    "steps": [
        {"kind": "unload", "model_id": "a", "model_name": "A", "instance_id": "", "expected_seconds": 1.0},
        {"kind": "load", "model_id": "other", "model_name": "Other", "instance_id": "", "expected_seconds": 2.0},
    ],
    "evicted": [{"model_id": "a", "name": "A", "held_bytes": 200_000_000, "is_busy": False}],
    "needed_bytes": 300_000_000,
    "free_bytes": 400_000_000,
    "freed_bytes": 200_000_000,
    "total_bytes": 1_000_000_000,
    "expected_seconds": 3.0,
    "load_low_seconds": 1.8,
    "load_high_seconds": 2.4,
    "load_samples": 5,
}


@pytest.fixture
def other(null_runtime: Runtime) -> ModelDefinition:
    return make_model(null_runtime, model_id="other", name="Other")


@pytest.fixture
def llama(pool: MemoryPool) -> Runtime:
    return Runtime.objects.create(name="llama-server", kind="llama_server", pool=pool, is_healthy=True)


def page(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


# A switch's page


def test_job_page_tells_the_story(signed_in: Client, admin_person: User, other: ModelDefinition) -> None:
    steps = [
        step("unload", "A", "done", seconds=0.7, started_at="2026-01-01T00:00:00+00:00"),
        step("load", "Other", "failed", seconds=1.9, started_at="2026-01-01T00:00:01+00:00"),
    ]
    job = ended_job(
        other,
        admin_person,
        "failed",
        steps=steps,
        plan=PLAN,
        log_tail="ggml: <out> of memory",
        aftermath="A was put back.",
        error_code="out_of_memory",
    )
    SwitchEvent.objects.create(job=job, seq=1, state="loading", percent=42, text="Loading Other")
    audit.write(audit.AuditEvent.SWITCH_REQUEST, actor=Actor(admin_person, "page"), object_text="Other", job=job)

    html = page(signed_in, job.get_absolute_url())

    for words in (
        "from the Models tab",
        "is unloaded and frees 0.2 GB",
        "loading it usually takes 1.8–2.4 s, from 5 loads",
        "Unload A",
        "1.9 s",
        "g-timeline",
        "Loading Other",
        "ggml: &lt;out&gt; of memory",
        "A was put back.",
        "ann asked for a switch to Other",
        "Try again",
    ):
        assert words in html


def test_job_page_of_a_running_job_is_live(signed_in: Client, admin_person: User, other: ModelDefinition) -> None:
    job = loading_job(other, admin_person)

    assert f'ws-connect="/ws/models/?job={job.pk}"' in page(signed_in, job.get_absolute_url())


def test_job_page_shows_the_last_500_events(signed_in: Client, admin_person: User, other: ModelDefinition) -> None:
    job = ended_job(other, admin_person, "succeeded", seq=600)
    SwitchEvent.objects.bulk_create(
        SwitchEvent(job=job, seq=n, state="loading", percent=1, text=f"event {n}.") for n in range(1, 601)
    )

    html = page(signed_in, job.get_absolute_url())

    assert "event 600." in html
    assert "event 100." not in html
    assert "100 earlier ones are left out" in html


def test_job_page_outlives_its_model(signed_in: Client, pool: MemoryPool) -> None:
    job = make_job(pool, None, target_name="Gone", state="failed", error_code="not_downloaded")

    assert "The switch to Gone failed" in page(signed_in, job.get_absolute_url())


def test_job_page_hides_the_audit_from_those_who_may_not_see_it(
    client: Client, admin_person: User, other: ModelDefinition
) -> None:
    job = ended_job(other, admin_person, "succeeded")
    audit.write(audit.AuditEvent.SWITCH_REQUEST, actor=Actor(admin_person, "page"), object_text="Other", job=job)
    client.force_login(staff("eve", "view_modeldefinition"))

    assert "asked for a switch" not in page(client, job.get_absolute_url())


def test_job_page_refuses_outsiders_and_unknown_numbers(
    client: Client, admin_person: User, other: ModelDefinition
) -> None:
    job = ended_job(other, admin_person, "succeeded")
    client.force_login(staff("eve"))
    assert client.get(job.get_absolute_url()).status_code == 403

    client.force_login(admin_person)
    assert client.get("/admin/switches/99999/").status_code == 404


def test_job_list_leads_to_the_pages(signed_in: Client, admin_person: User, other: ModelDefinition) -> None:
    job = ended_job(other, admin_person, "cancelled")

    html = page(signed_in, "/admin/models_admin/switchjob/?state__exact=cancelled")

    assert f'href="{job.get_absolute_url()}"' in html
    assert "Switch to Other" in html
    assert signed_in.get("/admin/models_admin/switchjob/add/").status_code == 403


# Logs


def test_log_of_a_model_that_is_not_loaded_says_so_and_stops_asking(signed_in: Client, other: ModelDefinition) -> None:
    assert "Other is not loaded" in page(signed_in, f"/admin/models/{other.pk}/log/")
    assert signed_in.get(f"/admin/models/{other.pk}/log/", headers=HTMX).status_code == 286


def test_log_of_a_loaded_model_asks_again_each_second(signed_in: Client, other: ModelDefinition) -> None:
    load(other)

    assert 'hx-trigger="every 1s' in page(signed_in, f"/admin/models/{other.pk}/log/")


# Import and export


def test_pasted_yaml_is_imported(signed_in: Client, llama: Runtime) -> None:
    response = signed_in.post("/admin/models/import/yaml/", {"text": YAML}, follow=True)

    assert "1 created" in response.content.decode()
    assert ModelDefinition.objects.get().parameters == {"ctx_size": 2048}
    assert AuditEntry.objects.filter(event="model:file:import", actor_name="ann").exists()


def test_uploaded_yaml_with_errors_lists_them_with_line_and_key(signed_in: Client, llama: Runtime) -> None:
    upload = SimpleUploadedFile("team.yaml", YAML.replace("2048", "-5").encode())

    response = signed_in.post("/admin/models/import/yaml/", {"file": upload})

    html = response.content.decode()
    assert response.status_code == 422
    assert "team.yaml line 5" in html
    assert "models.small.parameters.ctx_size" in html
    assert "ctx_size: -5" in html, "the text stays, to be mended"
    assert ModelDefinition.objects.count() == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "Choose a file, or paste its text."),
        ({"text": "models:\n\t- id: x"}, "tab"),
        ({"file": SimpleUploadedFile("x.yaml", b"models:\n\xff")}, "Line 2 is not UTF-8 text."),
        ({"file": SimpleUploadedFile("x.yaml", b"#" * 1_000_001)}, "larger than 1 MB"),
        ({"file": SimpleUploadedFile("x.yaml", b"")}, "empty"),
    ],
)
def test_unusable_yaml_is_told_where_it_was_given(
    signed_in: Client, llama: Runtime, data: dict[str, Any], words: str
) -> None:
    response = signed_in.post("/admin/models/import/yaml/", data)

    assert response.status_code == 422
    assert words in response.content.decode()


def test_scan_reports_what_it_could_not_use(signed_in: Client, llama: Runtime, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"this is no model")

    response = signed_in.post("/admin/models/import/folder/", {"path": str(tmp_path)})

    html = response.content.decode()
    assert response.status_code == 200
    assert "No model was recognised there" in html
    assert "broken.gguf" in html


def test_export_gives_a_file_that_can_be_imported(signed_in: Client, llama: Runtime) -> None:
    signed_in.post("/admin/models/import/yaml/", {"text": YAML})

    response = signed_in.get("/admin/models/export/")

    assert response.headers["Content-Disposition"] == 'attachment; filename="models.yaml"'
    assert "id: small" in response.content.decode()


def test_import_needs_the_right_to_add_models(client: Client, llama: Runtime) -> None:
    client.force_login(staff("eve", "view_modeldefinition", "switch_model"))

    assert client.get("/admin/models/import/").status_code == 403
    assert client.post("/admin/models/import/yaml/", {"text": YAML}).status_code == 403
    assert client.post("/admin/models/import/folder/", {"path": "/"}).status_code == 403


# Definitions

ADD = "/admin/models_admin/modeldefinition/add/"


def definition(runtime: Runtime, **values: str) -> dict[str, Any]:
    """What the form for a definition sends."""
    filled = {"model_id": "new", "name": "New", "runtime": runtime.pk, "path": "new.gguf", "size_bytes": "0"}
    return {**filled, "tags": "chat, coding", "parameters": '{"ctx_size": 4096}', **values}


def test_definition_is_added_with_its_audit_entry(signed_in: Client, llama: Runtime) -> None:
    response = signed_in.post(ADD, definition(llama))

    assert response.headers["Location"] == "/admin/models/"
    model = ModelDefinition.objects.get()
    assert (model.tags, model.parameters, model.extra_args) == (["chat", "coding"], {"ctx_size": 4096}, [])
    assert AuditEntry.objects.get().event == "model:definition:create"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"parameters": "{ctx_size: 1}"}, "This is not JSON: line 1, column 2"),
        ({"parameters": "[1]"}, "This has to be an object"),
        ({"extra_args": "{}"}, "This has to be a list"),
        ({"parameters": '{"ctx_size": "many"}'}, "ctx_size"),
        ({"parameters": '{"ctx_sise": 1}'}, "ctx_sise"),
        ({"model_id": "a b"}, "letters, digits"),
        ({"tags": "chat, <b>"}, "words of letters"),
        ({"sampling": '{"temperature": 99}'}, "temperature"),
    ],
)
def test_definition_with_an_error_is_refused_at_its_field(
    signed_in: Client, llama: Runtime, values: dict[str, str], words: str
) -> None:
    response = signed_in.post(ADD, definition(llama, **values))

    assert response.status_code == 200
    assert words in response.content.decode()
    assert ModelDefinition.objects.count() == 0


def test_changed_definition_is_audited_with_both_values(signed_in: Client, other: ModelDefinition) -> None:
    values = definition(other.runtime, model_id="other", name="Renamed", path=other.path, size_bytes="100000000")

    signed_in.post(f"/admin/models_admin/modeldefinition/{other.pk}/change/", values)

    entry = AuditEntry.objects.get()
    assert entry.event == "model:definition:change"
    assert (entry.before["name"], entry.after["name"]) == ("Other", "Renamed")
    assert "path" not in entry.after


def test_loaded_model_cannot_be_deleted(signed_in: Client, other: ModelDefinition) -> None:
    load(other)

    response = signed_in.post(f"/admin/models_admin/modeldefinition/{other.pk}/delete/", {"post": "yes"}, follow=True)

    assert "Other is loaded, so it cannot be deleted." in response.content.decode()
    assert ModelDefinition.objects.filter(pk=other.pk).exists()


def test_model_in_an_unfinished_job_cannot_be_deleted(
    signed_in: Client, admin_person: User, other: ModelDefinition
) -> None:
    job = loading_job(other, admin_person)
    data = {"action": "delete_selected", "_selected_action": [other.pk], "post": "yes"}

    response = signed_in.post("/admin/models_admin/modeldefinition/", data, follow=True)

    assert f"cannot be deleted while switch #{job.pk}" in response.content.decode()
    assert ModelDefinition.objects.filter(pk=other.pk).exists()


def test_idle_model_is_deleted_and_audited(signed_in: Client, other: ModelDefinition) -> None:
    signed_in.post(f"/admin/models_admin/modeldefinition/{other.pk}/delete/", {"post": "yes"})

    assert not ModelDefinition.objects.exists()
    assert AuditEntry.objects.get().event == "model:definition:delete"


# The other lists


@pytest.mark.parametrize("address", ["modeldefinition/", "runtime/", "auditentry/", "switchjob/"])
def test_lists_open(signed_in: Client, admin_person: User, other: ModelDefinition, address: str) -> None:
    job = ended_job(other, admin_person, "failed", error_code="killed")
    audit.write(audit.AuditEvent.JOB_END, actor=Actor(None, "system"), object_text="Other", job=job, outcome="failed")

    page(signed_in, f"/admin/models_admin/{address}")


def test_audit_entries_read_like_sentences_and_cannot_be_changed(signed_in: Client, other: ModelDefinition) -> None:
    signed_in.post(f"/admin/models/{other.pk}/pin/", {"is_pinned": "1"})
    entry = AuditEntry.objects.get()

    assert "ann pinned Other" in page(signed_in, "/admin/models_admin/auditentry/?q=other")
    address = f"/admin/models_admin/auditentry/{entry.pk}/change/"
    assert "Save" not in page(signed_in, address)
    assert signed_in.post(address, {"outcome": "x"}).status_code == 403
    assert signed_in.post(f"/admin/models_admin/auditentry/{entry.pk}/delete/", {"post": "yes"}).status_code == 403


def test_people_and_groups_have_their_forms(signed_in: Client, admin_person: User) -> None:
    for address in ("user/", "user/add/", f"user/{admin_person.pk}/change/", "group/", "group/add/"):
        page(signed_in, f"/admin/auth/{address}")


def test_sidebar_shows_only_what_may_be_seen(client: Client, db: None) -> None:
    client.force_login(staff("eve", "view_modeldefinition"))

    html = page(client, "/admin/models/")

    assert "/admin/models_admin/auditentry/" not in html
    assert "/admin/auth/user/" not in html
