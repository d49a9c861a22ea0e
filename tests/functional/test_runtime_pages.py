"""Runtimes in the admin: addresses, keys that are never shown again, and what each kind can do."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from gantry.bringup.records import ensure_runtimes
from gantry.env import environment
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, MemoryPool, Runtime
from models_admin.runtime_access import key_of

KEY = "very-secret-key-1234567890"
ADD = "admin:models_admin_runtime_add"


def form(pool: MemoryPool, **fields: str) -> dict[str, str]:
    return {
        "name": "Tabby",
        "kind": "tabby",
        "pool": str(pool.pk),
        "options": "{}",
        "is_enabled": "on",
        "url": "http://127.0.0.1:5000",
        **fields,
    }


def test_key_is_stored_encrypted_and_never_shown_again(signed_in: Client, pool: MemoryPool) -> None:
    from django.db import connection

    signed_in.post(reverse(ADD), form(pool, api_key=KEY, admin_key=KEY))
    runtime = Runtime.objects.get(name="Tabby")
    assert (runtime.api_key, runtime.admin_key) == (KEY, KEY)
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_key, admin_key FROM models_admin_runtime")
        assert all(KEY not in stored for stored in cursor.fetchone())
    page = signed_in.get(reverse("admin:models_admin_runtime_change", args=[runtime.pk]))
    assert page.status_code == 200
    assert KEY not in page.text
    assert all(KEY not in f"{entry.before}{entry.after}" for entry in AuditEntry.objects.all())


def test_empty_field_keeps_the_key_and_a_dash_removes_it(signed_in: Client, pool: MemoryPool) -> None:
    signed_in.post(reverse(ADD), form(pool, api_key=KEY, admin_key=KEY))
    runtime = Runtime.objects.get(name="Tabby")
    change = reverse("admin:models_admin_runtime_change", args=[runtime.pk])
    signed_in.post(change, form(pool, name="Renamed", admin_key="-"))
    runtime.refresh_from_db()
    assert (runtime.name, runtime.api_key, runtime.admin_key) == ("Renamed", KEY, "")
    entry = AuditEntry.objects.get(event=AuditEvent.RUNTIME_CHANGE)
    assert (entry.before["admin_key"], entry.after["admin_key"]) == ("a key", "no key")
    assert "api_key" not in entry.before


def test_key_may_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TABBY_KEY", KEY)
    assert key_of("env:MY_TABBY_KEY") == KEY
    assert key_of("env:NOT_SET_ANYWHERE") == ""
    assert key_of("plain") == "plain"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": ""}, "Give its address, such as http://127.0.0.1:5000"),
        ({"url": "127.0.0.1:5000"}, "starts with http:// or https://"),
        ({"url": "http://127.0.0.1:5000/v1"}, "without a path"),
        ({"url": "http://ann:pw@127.0.0.1:5000"}, "Leave name and password out"),
        ({"url": "http://127.0.0.1:99999"}, "check the port"),
        ({"url": "http://[::1"}, "check the port and the brackets"),
        ({"kind": "llama_server"}, "leave the address empty"),
        ({"options": "[1]"}, "This has to be an object"),
    ],
)
def test_address_that_cannot_be_used_is_told_at_its_field(
    signed_in: Client, pool: MemoryPool, fields: dict[str, str], words: str
) -> None:
    answer = signed_in.post(reverse(ADD), form(pool, **fields))
    assert answer.status_code == 200
    assert words in answer.text
    assert not Runtime.objects.filter(name="Tabby").exists()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("tabby", "Holds one model at a time; tells the modules a load has done; a load cannot be stopped"),
        ("llama_server", "Holds several models at once; tells how far a load is; a load can be cancelled; started and"),
    ],
)
def test_page_says_what_a_kind_of_runtime_can_do(signed_in: Client, pool: MemoryPool, kind: str, words: str) -> None:
    runtime = Runtime.objects.create(name="R", kind=kind, pool=pool, url="http://127.0.0.1:5000")
    assert words in signed_in.get(reverse("admin:models_admin_runtime_change", args=[runtime.pk])).text


def test_tabby_host_of_the_environment_becomes_a_runtime_once(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABBY_HOST", "http://tabbyapi:5000/")
    monkeypatch.setenv("TABBY_API_KEY", KEY)
    environment.cache_clear()
    try:
        ensure_runtimes("local")
        ensure_runtimes("local")
        runtime = Runtime.objects.get(kind=Runtime.Kind.TABBY)
        assert (runtime.name, runtime.url, runtime.api_key) == ("TabbyAPI", "http://tabbyapi:5000", "env:TABBY_API_KEY")
        assert key_of(runtime.api_key) == KEY
    finally:
        monkeypatch.undo()
        environment.cache_clear()


def test_deleting_a_runtime_is_written_down(signed_in: Client, pool: MemoryPool) -> None:
    runtime = Runtime.objects.create(name="Old", kind="tabby", pool=pool, url="http://127.0.0.1:5000")
    signed_in.post(reverse("admin:models_admin_runtime_delete", args=[runtime.pk]), {"post": "yes"})
    assert not Runtime.objects.filter(name="Old").exists()
    assert AuditEntry.objects.get(event=AuditEvent.RUNTIME_DELETE).object_text == "Old"
