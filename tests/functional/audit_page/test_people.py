"""Who may see the audit log, what is written down when people sign in or are changed, and what never is."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.http import HttpRequest
from django.test import Client
from django.test.utils import override_settings

from models_admin import audit_chain
from models_admin.audit import AuditEvent
from models_admin.audit_signals import note_failure
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime
from tests.functional.admin_world import staff
from tests.functional.audit_page.helpers import LIST

# Who may


@pytest.mark.parametrize("address", [LIST, f"{LIST}1/change/", f"{LIST}export/?format=csv"])
def test_only_who_may_see_the_audit_sees_it(client: Client, many: int, address: str) -> None:
    client.force_login(staff("eve", "view_modeldefinition"))
    assert client.get(address).status_code == 403
    client.force_login(staff("oli", "view_auditentry"))
    assert client.get(address).status_code == 200
    assert client.post(address).status_code == 403
    client.logout()
    assert client.get(address).status_code == 302


# Sign-ins and people


def last() -> AuditEntry:
    return AuditEntry.objects.latest("pk")


def sign_in(client: Client, name: str, password: str) -> None:
    client.post("/sign-in/", {"username": name, "password": password}, REMOTE_ADDR="192.0.2.9")


def test_sign_in_and_sign_out_are_written_down(client: Client, admin_person: User) -> None:
    sign_in(client, "ann", "pass-ann")
    entry = last()
    assert (entry.event, entry.actor_name, entry.address) == (AuditEvent.SIGN_IN, "ann", "192.0.2.9")

    client.post("/sign-out/")
    assert (last().event, last().actor_name) == (AuditEvent.SIGN_OUT, "ann")


def test_failed_sign_in_names_only_people_who_exist(client: Client, admin_person: User) -> None:
    sign_in(client, "ann", "wrong-secret")
    assert (last().event, last().actor_name, last().object_text) == (AuditEvent.SIGN_IN_FAILED, "somebody", "ann")

    sign_in(client, "my-password-in-the-wrong-field", "x")
    assert last().object_text == "an unknown name"
    assert not AuditEntry.objects.filter(object_text__contains="password").exists()


@override_settings(AXES_ENABLED=True, AXES_FAILURE_LIMIT=3)
def test_too_many_failures_are_written_once(client: Client, admin_person: User) -> None:
    for _ in range(8):
        sign_in(client, "ann", "wrong")

    events = list(AuditEntry.objects.order_by("pk").values_list("event", flat=True))
    assert events == [AuditEvent.SIGN_IN_FAILED] * 2 + [AuditEvent.SIGN_IN_LOCKED]


def test_failure_without_a_request_is_written_down_too(db: None) -> None:
    note_failure(credentials={}, request=None)
    assert last().event == AuditEvent.SIGN_IN_FAILED
    locked = HttpRequest()
    locked.axes_locked_out = True  # type: ignore[attr-defined]
    note_failure(credentials={}, request=locked)
    assert AuditEntry.objects.count() == 1


def test_users_are_written_down_when_added_changed_and_deleted(signed_in: Client) -> None:
    new = {"username": "fay", "password1": "Long-enough-1", "password2": "Long-enough-1", "usable_password": "true"}
    signed_in.post("/admin/auth/user/add/", new)
    fay = User.objects.get(username="fay")
    entry = last()
    assert (entry.event, entry.actor_name, entry.object_text) == (AuditEvent.USER_CREATE, "ann", "fay")
    assert entry.after["password"] == "changed"

    group = Group.objects.create(name="Night shift")
    joined = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    form = {"username": "fay", "is_active": "on", "is_staff": "on", "groups": [group.pk], **joined}
    signed_in.post(f"/admin/auth/user/{fay.pk}/change/", form)
    assert last().event == AuditEvent.USER_CHANGE
    assert last().before == {"is_staff": False, "groups": ["Member"]}
    assert last().after == {"is_staff": True, "groups": ["Night shift"]}

    signed_in.post(f"/admin/auth/user/{fay.pk}/change/", form)
    assert AuditEntry.objects.count() == 2

    signed_in.post(
        f"/admin/auth/user/{fay.pk}/password/", {**new, "password1": "Another-long-1", "password2": "Another-long-1"}
    )
    assert (last().event, last().before, last().after) == (AuditEvent.USER_CHANGE, {}, {"password": "changed"})

    signed_in.post(f"/admin/auth/user/{fay.pk}/delete/", {"post": "yes"})
    assert (last().event, last().before["groups"]) == (AuditEvent.USER_DELETE, ["Night shift"])
    assert audit_chain.verify().is_whole


def test_groups_are_written_down_when_added_changed_and_deleted(signed_in: Client) -> None:
    right = Permission.objects.get(codename="switch_model")
    signed_in.post("/admin/auth/group/add/", {"name": "Operators", "permissions": [right.pk]})
    assert (last().event, last().after) == (
        AuditEvent.GROUP_CREATE,
        {"name": "Operators", "permissions": ["switch_model"]},
    )
    group = Group.objects.get(name="Operators")

    signed_in.post(f"/admin/auth/group/{group.pk}/change/", {"name": "Operators"})
    assert (last().before, last().after) == ({"permissions": ["switch_model"]}, {"permissions": []})

    selected = {"action": "delete_selected", "_selected_action": [group.pk], "post": "yes"}
    signed_in.post("/admin/auth/group/", selected)
    assert (last().event, last().object_text) == (AuditEvent.GROUP_DELETE, "Operators")


# I8


def test_no_secret_stands_in_any_entry(
    client: Client, admin_person: User, pool: MemoryPool, gemma: ModelDefinition
) -> None:
    secrets = [
        "pass-ann",
        "wrong-secret",
        "typed-in-the-name-field",
        "key-0123456789",
        "admin-key-98765",
        "New-pass-word-1",
    ]
    sign_in(client, "ann", "wrong-secret")
    sign_in(client, "typed-in-the-name-field", "wrong-secret")
    sign_in(client, "ann", "pass-ann")
    runtime = {"name": "tabby", "kind": "tabby", "pool": pool.pk, "is_enabled": "on", "url": "http://127.0.0.1:5000"}
    keys = {"api_key": "key-0123456789", "admin_key": "admin-key-98765", "options": "{}"}
    assert client.post("/admin/models_admin/runtime/add/", {**runtime, **keys}).status_code == 302
    saved = Runtime.objects.get(name="tabby")
    client.post(f"/admin/models_admin/runtime/{saved.pk}/change/", {**runtime, **keys, "api_key": "key-0123456789x"})
    passwords = {"password1": "New-pass-word-1", "password2": "New-pass-word-1", "usable_password": "true"}
    client.post("/admin/auth/user/add/", {"username": "gus", **passwords})
    client.post(f"/admin/auth/user/{admin_person.pk}/password/", passwords)
    client.post(f"/admin/models/{gemma.pk}/pin/", {"is_pinned": "1"})
    hashes = list(User.objects.values_list("password", flat=True))
    client.post("/sign-out/")

    everything = "\n".join(json.dumps(entry.sealed_values()) for entry in AuditEntry.objects.all())

    assert AuditEntry.objects.count() >= 9
    assert not [secret for secret in [*secrets, *hashes] if secret in everything]
