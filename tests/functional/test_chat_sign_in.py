"""Signing in and out, and the pages for when something is wrong."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.test import Client
from pytest_django.fixtures import Settings

from tests.functional.chat_world import signed_in


def test_signing_in_leads_to_the_page_that_was_asked_for(client: Client, outsider: User) -> None:
    response = client.post("/sign-in/", {"username": "oda", "password": "pass-oda", "next": "/c/5/"})

    assert response.headers["Location"] == "/c/5/"


def test_wrong_password_says_what_to_do_and_keeps_the_name(client: Client, outsider: User) -> None:
    page = client.post("/sign-in/", {"username": "oda", "password": "wrong"}).content.decode()

    assert "do not match" in page
    assert 'value="oda"' in page
    assert "wrong" not in page


def test_too_many_attempts_are_told_when_to_try_again(client: Client, outsider: User, settings: Settings) -> None:
    settings.AXES_ENABLED, settings.AXES_FAILURE_LIMIT = True, 2
    wrong = {"username": "oda", "password": "wrong"}
    for _ in range(2):
        client.post("/sign-in/", wrong)
    response = client.post("/sign-in/", wrong)

    assert response.status_code == 429
    assert "Too many attempts" in response.content.decode()
    assert "Try again in 15 min." in response.content.decode()


def test_signing_out_is_a_post(outsider: User) -> None:
    client = signed_in(outsider)

    assert client.get("/sign-out/").status_code == 405
    assert client.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert client.get("/").status_code == 302


@pytest.mark.parametrize("name", ["403", "404", "500", "403_csrf", "429"])
def test_page_for_trouble_needs_no_context_and_offers_one_way_on(name: str) -> None:
    page = render_to_string(f"{name}.html")

    assert page.count("button--primary") == 1
    assert "An error occurred" not in page


def test_form_without_its_token_is_explained(outsider: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(outsider)

    response = client.post("/send/", {"text": "Hi"})

    assert response.status_code == 403
    assert "This form is out of date" in response.content.decode()
