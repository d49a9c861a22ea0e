"""Who lets somebody sign in again, whom too many failures have kept from it, is written down."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
from django.test import Client, override_settings
from django.utils import timezone

from models_admin.audit_words import audit_sentence
from models_admin.models import AuditEntry

pytestmark = pytest.mark.django_db

LIMIT = 3
LIFTED = "user:session:unlock"


@pytest.fixture(autouse=True)
def _few_tries() -> Iterator[None]:
    with override_settings(AXES_ENABLED=True, AXES_FAILURE_LIMIT=LIMIT):
        yield


def fail(name: str, *, address: str = "192.0.2.7", browser: str = "x", times: int = LIMIT) -> None:
    """So many failed sign-ins."""
    client = Client(REMOTE_ADDR=address, headers={"User-Agent": browser})
    for _ in range(times):
        client.post("/sign-in/", {"username": name, "password": "wrong"})


def reset(command: str = "axes_reset", *arguments: str) -> None:
    call_command(command, *arguments, stdout=io.StringIO())


def lifts() -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(event=LIFTED).order_by("pk"))


def can_sign_in(user: User, address: str = "192.0.2.7") -> bool:
    client = Client(REMOTE_ADDR=address)
    return client.post("/sign-in/", {"username": user.username, "password": "right"}).status_code == 302


@pytest.mark.parametrize(
    "command",
    [
        ["axes_reset"],
        ["axes_reset_ip", "192.0.2.7"],
        ["axes_reset_username", "ben"],
        ["axes_reset_ip_username", "192.0.2.7", "ben"],
    ],
)
def test_command_that_lifts_a_pause_is_audited(command: list[str], member: User) -> None:
    member.set_password("right")
    member.save()
    fail("ben")
    assert not can_sign_in(member)
    reset(*command)
    [entry] = lifts()
    assert (entry.actor, entry.via, entry.object_text) == (None, "command", "ben")
    assert entry.after == {"address": "192.0.2.7"}
    assert audit_sentence(entry) == "The command line let ben sign in again before the pause was over"
    assert can_sign_in(member)


def page_of(person: User) -> Client:
    client = Client(REMOTE_ADDR="192.0.2.99")
    with override_settings(AXES_ENABLED=False):
        client.force_login(person)
    return client


def test_administrator_who_deletes_the_attempts_is_named(admin_person: User, member: User) -> None:
    fail("ben")
    attempt = AccessAttempt.objects.get()
    done = page_of(admin_person).post(f"/admin/axes/accessattempt/{attempt.pk}/delete/", {"post": "yes"})
    assert (done.status_code, AccessAttempt.objects.count()) == (302, 0)
    [entry] = lifts()
    assert (entry.actor, entry.via, entry.address) == (admin_person, "page", "192.0.2.99")
    assert (entry.object_text, entry.after) == ("ben", {"address": "192.0.2.7"})
    assert audit_sentence(entry) == "ann let ben sign in again before the pause was over"


def test_several_that_are_deleted_at_once_are_one_entry_for_each_pause(admin_person: User, member: User) -> None:
    User.objects.create_user("eve")
    fail("ben", browser="a", times=2)
    fail("ben", browser="b", times=2)  # one pause: browsers are not told apart
    fail("eve", address="192.0.2.8")
    numbers = list(AccessAttempt.objects.values_list("pk", flat=True))
    assert len(numbers) == 3
    page_of(admin_person).post(
        "/admin/axes/accessattempt/", {"action": "delete_selected", "_selected_action": numbers, "post": "yes"}
    )
    assert {(entry.object_text, entry.after["address"]) for entry in lifts()} == {
        ("ben", "192.0.2.7"),
        ("eve", "192.0.2.8"),
    }
    assert len(lifts()) == 2
    assert {entry.actor_name for entry in lifts()} == {"ann"}


def test_second_pause_that_is_lifted_is_written_again(member: User) -> None:
    for _ in range(2):
        fail("ben")
        reset()
    assert len(lifts()) == 2


def test_only_what_ends_a_pause_is_one(member: User) -> None:
    fail("ben", times=LIMIT - 1)
    reset()
    assert lifts() == [], "there was no pause"

    fail("ben", browser="a")
    AccessAttempt.objects.create(
        username="ben", ip_address="192.0.2.7", user_agent="b", failures_since_start=1, attempt_time=timezone.now()
    )
    AccessAttempt.objects.get(user_agent="b").delete()
    assert lifts() == [], "it goes on"

    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(hours=1))
    reset()
    assert lifts() == [], "it was over"


def test_pause_of_a_name_that_nobody_has_keeps_the_name_to_itself() -> None:
    fail("my-password-in-the-wrong-field")
    reset()
    [entry] = lifts()
    assert entry.object_text == "an unknown name"


def test_lift_that_is_taken_back_leaves_no_entry(member: User) -> None:
    fail("ben")
    with transaction.atomic():
        reset()
        transaction.set_rollback(True)
    assert lifts() == []
