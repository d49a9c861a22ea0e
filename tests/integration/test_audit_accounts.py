"""Accounts that Django's own commands and pages change are written down, and passwords never are."""

from __future__ import annotations

import io
import json
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from models_admin.audit_words import audit_sentence
from models_admin.models import AuditEntry


def the_entry(event: str) -> AuditEntry:
    """The only entry there is."""
    entry = AuditEntry.objects.exclude(event__startswith="user:session").get()
    assert entry.event == event
    return entry


def change_password(name: str, *typed: str) -> None:
    """`manage.py changepassword`, at whose prompt this is typed."""
    with mock.patch("getpass.getpass", side_effect=typed):
        call_command("changepassword", name, stdout=io.StringIO(), stderr=io.StringIO())


@pytest.mark.django_db
def test_createsuperuser_is_audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SUPERUSER_PASSWORD", "correct horse")
    call_command("createsuperuser", username="ann", email="", interactive=False, stdout=io.StringIO())
    entry = the_entry("user:account:create")
    assert (entry.via, entry.object_text) == ("command", "ann")
    assert entry.after == {"username": "ann", "is_staff": True, "is_superuser": True}
    assert audit_sentence(entry) == "The command line added the user ann"


@pytest.mark.django_db
def test_changepassword_is_audited_without_the_password(member: User) -> None:
    change_password("ben", "correct horse", "correct horse")
    member.refresh_from_db()
    assert member.check_password("correct horse")
    entry = the_entry("user:account:change")
    assert (entry.via, entry.object_text, entry.after) == ("command", "ben", {"password": "changed"})
    assert "horse" not in json.dumps(list(AuditEntry.objects.values()), default=str)


@pytest.mark.django_db
def test_password_that_was_not_changed_is_not_audited(member: User) -> None:
    with pytest.raises(CommandError):
        change_password("ben", *["one password", "another one"] * 3)
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
def test_nothing_is_noted_once_the_command_is_over(member: User) -> None:
    change_password("ben", "correct horse", "correct horse")
    member.set_password("another horse")
    member.save()
    User.objects.create_user("olaf")
    assert AuditEntry.objects.count() == 1


@pytest.mark.django_db
def test_own_password_is_audited_once_it_is_changed(admin_person: User, client: Client) -> None:
    client.force_login(admin_person)
    typed: dict[str, Any] = {
        "old_password": "wrong",
        "new_password1": "correct horse 7",
        "new_password2": "correct horse 7",
    }
    assert client.post("/admin/password_change/", typed).status_code == 200
    assert client.get("/admin/password_change/").status_code == 200
    assert not AuditEntry.objects.exclude(event__startswith="user:session").exists()
    assert client.post("/admin/password_change/", typed | {"old_password": "pass-ann"}).status_code == 302
    admin_person.refresh_from_db()
    assert admin_person.check_password("correct horse 7")
    entry = the_entry("user:account:change")
    assert (entry.actor, entry.via, entry.address) == (admin_person, "page", "127.0.0.1")
    assert entry.after == {"password": "changed"}
