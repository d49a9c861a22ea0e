"""The page of API keys: made once, seen by whom it may be, revoked after asking; all of it without JavaScript."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from models_admin.actor import Actor
from models_admin.keys import authenticate, create_key
from models_admin.models import ApiKey, Runtime
from tests.factories import make_model
from tests.functional.chat_world import signed_in

PAGE = "/keys/"
WANTED: dict[str, Any] = {"name": "Nightly report", "scopes": ["status"], "lifetime": "90"}


def make(user: User, name: str = "script") -> tuple[ApiKey, str]:
    """A key that somebody has made."""
    return create_key(user, actor=Actor(user, "page"), name=name, scopes=["status"])


def shown(client: Client, address: str = PAGE) -> str:
    """The page's HTML."""
    return client.get(address).content.decode()


def token_in(page: str) -> str:
    """The key that a page shows."""
    found = re.search(r"gty_[0-9a-f]{8}_[0-9a-f]{64}", page)
    assert found is not None
    return found[0]


def test_page_is_linked_from_the_chat_and_asks_strangers_to_sign_in(outsider: User, client: Client) -> None:
    assert f'href="{PAGE}"' in shown(signed_in(outsider), "/")
    assert client.get(PAGE).headers["Location"] == f"/sign-in/?next={PAGE}"
    assert client.post(PAGE, WANTED).status_code == 302
    assert not ApiKey.objects.exists()


def test_empty_page_says_what_keys_are_for(outsider: User) -> None:
    assert "No program acts for you yet" in shown(signed_in(outsider))


def test_new_key_is_shown_once_with_a_line_that_uses_it(outsider: User) -> None:
    client = signed_in(outsider)
    made = client.post(PAGE, WANTED)
    token = token_in(made.content.decode())
    assert authenticate(token).user == outsider
    assert "no-store" in made.headers["Cache-Control"]
    assert "It is shown only this once" in made.content.decode()
    assert token.rpartition("_")[2] not in shown(client)
    assert ApiKey.objects.get().prefix in shown(client)


@pytest.mark.django_db(transaction=True)  # the status is looked up on a connection of its own
def test_curl_line_works_as_written(outsider: User) -> None:
    page = signed_in(outsider).post(PAGE, WANTED).content.decode()
    line = re.search(r'<code id="new-key-curl"[^>]*>(.*?)</code>', page)
    assert line is not None
    words = shlex.split(line[1].replace("&quot;", '"'))
    name, value = words[2].split(": ")
    assert (words[:2], name, words[3]) == (["curl", "-H"], "Authorization", "http://testserver/v1/models/status")
    assert Client().get("/v1/models/status", headers={name: value}).status_code == 200


def test_key_that_may_not_see_models_comes_with_its_header_alone(outsider: User) -> None:
    page = signed_in(outsider).post(PAGE, WANTED | {"scopes": ["chat"]}).content.decode()
    assert f"Authorization: Bearer {token_in(page)}" in page
    assert "curl" not in page.replace("new-key-curl", "")


def test_form_makes_the_key_that_was_asked_for(outsider: User, null_runtime: Runtime) -> None:
    model = make_model(null_runtime)
    day = timezone.localdate() + timedelta(days=7)
    wanted = {"scopes": ["chat", "switch"], "models": [model.model_id], "lifetime": "day", "day": f"{day:%Y-%m-%d}"}
    assert signed_in(outsider).post(PAGE, WANTED | wanted).status_code == 200
    key = ApiKey.objects.get()
    assert (key.name, key.scopes, key.model_ids) == ("Nightly report", ["chat", "switch"], [model.model_id])
    assert key.expires_at is not None
    end = timezone.localtime(key.expires_at)
    assert (end.date(), end.hour, end.minute) == (day, 23, 59)


def test_end_of_a_key_can_be_shown_in_the_readers_own_zone(outsider: User) -> None:
    client = signed_in(outsider)
    client.post(PAGE, WANTED)
    end = ApiKey.objects.get().expires_at
    assert end is not None
    listed = shown(client).partition('class="key-list"')[2]
    assert re.search(
        rf'<time datetime="{re.escape(timezone.localtime(end).isoformat()[:19])}[^"]*"[^>]*data-moment-minutes>', listed
    )


@pytest.mark.parametrize(("lifetime", "days"), [("30", 30), ("90", 90), ("365", 365), ("never", None)])
def test_lifetimes(lifetime: str, days: int | None, outsider: User) -> None:
    signed_in(outsider).post(PAGE, WANTED | {"lifetime": lifetime})
    end = ApiKey.objects.get().expires_at
    left = None if end is None else round((end - timezone.now()).total_seconds() / 86400, 2)
    assert left == days


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": ""}, "Say what it is for."),
        ({"name": "   "}, "Say what it is for."),
        ({"scopes": []}, "Choose at least one thing that it may do."),
        ({"scopes": ["root"]}, "is not one of the available choices"),
        ({"models": ["nobody"]}, "is not one of the available choices"),
        ({"lifetime": "1000"}, "is not one of the available choices"),
        ({"lifetime": "day"}, "Choose the last day."),
        ({"lifetime": "day", "day": "soon"}, "Give the day as"),
        ({"lifetime": "day", "day": "2020-01-31"}, "This must be in the future."),
    ],
)
def test_what_makes_no_sense_is_said_where_it_was_typed(wrong: dict[str, Any], words: str, outsider: User) -> None:
    response = signed_in(outsider).post(PAGE, WANTED | wrong)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert not ApiKey.objects.exists()


def test_last_day_of_all_is_too_late_in_every_zone(outsider: User, settings: Settings) -> None:
    settings.TIME_ZONE = "America/New_York"
    answer = signed_in(outsider).post(PAGE, {**WANTED, "lifetime": "day", "day": "9999-12-31"})
    assert answer.status_code == 422
    assert "This must be before the year 2200." in answer.content.decode()
    assert not ApiKey.objects.exists()


def test_scope_that_the_person_does_not_hold_is_explained(outsider: User, admin_person: User) -> None:
    assert "You may not do this yourself now" in shown(signed_in(outsider))
    assert "You may not do this yourself now" not in shown(signed_in(admin_person))


def test_revoking_asks_first_and_then_ends_the_key(outsider: User) -> None:
    key, token = make(outsider)
    client = signed_in(outsider)
    assert "Revoke this key?" in shown(client, f"/keys/{key.pk}/revoke/")
    assert authenticate(token).user is not None
    assert client.post(f"/keys/{key.pk}/revoke/").headers["Location"] == PAGE
    page = shown(client)
    assert "was revoked: from now on it is refused." in page
    assert "Revoked" in page
    assert f"/keys/{key.pk}/revoke/" not in page
    key.refresh_from_db()
    assert key.revoked_at is not None


def test_everybody_sees_and_revokes_only_their_own(member: User, outsider: User) -> None:
    key, token = make(member, "Bens script")
    client = signed_in(outsider)
    assert "Bens script" not in shown(client)
    assert client.get(f"/keys/{key.pk}/revoke/").status_code == 404
    assert client.post(f"/keys/{key.pk}/revoke/").status_code == 404
    assert authenticate(token).user is not None


def test_administrator_sees_and_revokes_all(member: User, admin_person: User) -> None:
    key, _ = make(member, "Bens script")
    client = signed_in(admin_person)
    page = shown(client)
    assert "Bens script" in page
    assert "of ben" in page
    assert client.post(f"/keys/{key.pk}/revoke/").status_code == 302
    key.refresh_from_db()
    assert key.revoked_at is not None


def test_post_without_csrf_token_is_refused(outsider: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(outsider)
    assert client.post(PAGE, WANTED).status_code == 403
    assert not ApiKey.objects.exists()


def test_names_are_shown_as_text(outsider: User) -> None:
    page = signed_in(outsider).post(PAGE, WANTED | {"name": "<script>alert(1)</script>"}).content.decode()
    assert "<script>alert" not in page


def test_number_of_queries_does_not_grow(admin_person: User) -> None:
    client = signed_in(admin_person)
    counts = []
    for number in (1, 9):
        for _ in range(number):
            make(admin_person)
        with CaptureQueriesContext(connection) as captured:
            client.get(PAGE)
        counts.append(len(captured))
    assert counts[0] == counts[1]
