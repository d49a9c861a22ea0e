"""Runtimes through the API. Keys go in and never come out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery, current_app

from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime
from tests.functional.api.conftest import Program, code_of, fields_of

pytestmark = pytest.mark.django_db

TABBY = {"name": "tabby", "kind": "tabby", "url": "http://127.0.0.1:5000/", "api_key": "secret-one"}


@pytest.fixture
def no_broker() -> Iterator[None]:
    """Messages go to an address where nobody answers."""
    usual = current_app._get_current_object()  # type: ignore[attr-defined]
    lonely = Celery("lonely", set_as_current=False)
    lonely.config_from_object("django.conf:settings", namespace="CELERY")
    lonely.conf.update(broker_url="redis://127.0.0.1:1/0")
    lonely.set_current()
    yield
    usual.set_current()
    lonely.close()


def test_how_many_models_a_server_holds_is_told(admin: Program, pool: MemoryPool) -> None:
    assert admin.post("runtimes", TABBY).json()["most_models"] == 1
    router = Runtime.objects.create(name="router", kind=Runtime.Kind.LLAMA_ROUTER, pool=pool)
    assert admin.get(f"runtimes/{router.pk}").json()["most_models"] is None
    Runtime.objects.filter(pk=router.pk).update(max_models=3)
    assert admin.get(f"runtimes/{router.pk}").json()["most_models"] == 3


def test_runtime_is_added_changed_and_deleted(admin: Program, pool: MemoryPool) -> None:
    made = admin.post("runtimes", TABBY)
    row = Runtime.objects.get()
    assert (made.status_code, made.headers["Location"]) == (201, f"/api/v1/runtimes/{row.pk}")
    body = made.json()
    assert (body["url"], body["host"], body["has_api_key"], body["has_admin_key"]) == (
        "http://127.0.0.1:5000",
        "local",
        True,
        False,
    )
    changed = admin.patch(f"runtimes/{row.pk}", {"admin_key": "secret-two", "is_enabled": False})
    assert (changed.status_code, changed.json()["has_admin_key"], changed.json()["is_enabled"]) == (200, True, False)
    assert admin.patch(f"runtimes/{row.pk}", {"api_key": ""}).json()["has_api_key"] is False
    row.refresh_from_db()
    assert (row.api_key, row.admin_key) == ("", "secret-two")
    assert admin.send("DELETE", f"runtimes/{row.pk}").status_code == 204
    events = list(AuditEntry.objects.filter(event__startswith="runtime").order_by("pk"))
    assert [entry.event for entry in events] == [
        AuditEvent.RUNTIME_CREATE,
        AuditEvent.RUNTIME_CHANGE,
        AuditEvent.RUNTIME_CHANGE,
        AuditEvent.RUNTIME_DELETE,
    ]


def test_key_never_comes_out(admin: Program, pool: MemoryPool) -> None:
    made = admin.post("runtimes", TABBY)
    number = made.json()["id"]
    texts = [made, admin.get("runtimes"), admin.get(f"runtimes/{number}"), admin.patch(f"runtimes/{number}", {})]
    assert not any(b"secret-one" in response.content for response in texts)
    assert not any("secret-one" in str((entry.before, entry.after)) for entry in AuditEntry.objects.all())


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "other"}, "kind"),
        ({"name": ""}, "name"),
        ({"name": "null"}, "name"),
        ({"url": ""}, "url"),
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://user:pass@127.0.0.1:1"}, "url"),
        ({"kind": "llama_server"}, "url"),
        ({"host": "nowhere"}, "host"),
        ({"options": []}, "options"),
        ({"health_text": "fine"}, "health_text"),
        ({"api_key": 3}, "api_key"),
    ],
)
def test_wrong_value_is_named(values: dict[str, object], field: str, admin: Program, null_runtime: Runtime) -> None:
    response = admin.post("runtimes", {**TABBY, **values})
    assert (response.status_code, fields_of(response)) == (422, [field])
    made = admin.post("runtimes", TABBY).json()
    changed = admin.patch(f"runtimes/{made['id']}", values)
    assert (changed.status_code, fields_of(changed)) == (422, [field])


def test_null_is_refused(admin: Program, null_runtime: Runtime) -> None:
    response = admin.patch(f"runtimes/{null_runtime.pk}", {"name": None, "host": None})
    assert (response.status_code, fields_of(response)) == (422, ["name", "host"])


def test_runtime_with_models_stays(admin: Program, small: ModelDefinition) -> None:
    response = admin.send("DELETE", f"runtimes/{small.runtime_id}")
    assert (response.status_code, code_of(response)) == (409, "runtime_in_use")
    assert not AuditEntry.objects.filter(event=AuditEvent.RUNTIME_DELETE).exists()


def test_list_and_its_pages(admin: Program, null_runtime: Runtime) -> None:
    admin.post("runtimes", TABBY)
    body = admin.get("runtimes", {"limit": 1, "offset": 1}).json()
    assert ([item["name"] for item in body["items"]], body["count"]) == (["tabby"], 2)
    assert body["items"][0]["abilities"]["holds_many"] is False
    missing = admin.get("runtimes/999")
    assert (missing.status_code, code_of(missing)) == (404, "not_found")


def test_worker_is_asked_to_look(admin: Program, null_runtime: Runtime) -> None:
    response = admin.post(f"runtimes/{null_runtime.pk}/refresh")
    assert (response.status_code, response.json()) == (202, {"host": "local", "sent": True})


@pytest.mark.usefixtures("no_broker")
def test_broker_that_is_away_is_told(admin: Program, null_runtime: Runtime) -> None:
    for response in (admin.post(f"runtimes/{null_runtime.pk}/refresh"), admin.post("recover")):
        assert (response.status_code, code_of(response)) == (503, "unavailable")
