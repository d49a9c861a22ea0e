"""The chat's own forms: what cannot be sent says why and stays."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from gantry.chat.models import Conversation
from models_admin.models import Runtime
from tests.functional.bad_input.helpers import shows
from tests.functional.chat_world import serve, talk


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "Write something first."), ("\x00 \x00", "Write something first."), ("x" * 100_000, "at most 32,000")],
)
def test_question_that_cannot_be_sent_says_why(
    browser: Client, null_runtime: Runtime, headers: dict[str, str], text: str, words: str
) -> None:
    serve(null_runtime)

    response = browser.post("/send/", {"text": text}, headers=headers)

    assert response.status_code == 422
    assert shows(response, words)
    assert headers or shows(response, text)
    assert not Conversation.objects.exists()


@pytest.mark.parametrize(
    ("title", "words"),
    [("", "Give it a title."), ("x" * 100_000, "At most 200 characters."), ("a\x00b", "Null characters")],
)
def test_title_that_cannot_be_says_why_and_stays(
    browser: Client, admin_person: User, headers: dict[str, str], title: str, words: str
) -> None:
    conversation = talk(admin_person)

    response = browser.post(f"/c/{conversation.pk}/rename/", {"title": title}, headers=headers)

    assert response.status_code == 422
    assert shows(response, words)
    assert shows(response, title)
    conversation.refresh_from_db()
    assert conversation.title == "Old talk"


@pytest.mark.parametrize("doing", ["", "send/", "rename/", "delete/"])
def test_conversation_of_somebody_else_is_no_such_page(
    browser: Client, member: User, headers: dict[str, str], doing: str
) -> None:
    conversation = talk(member, ("secret", "kept"))
    address = f"/c/{conversation.pk}/{doing}"

    for response in (browser.get(address, headers=headers), browser.post(address, {"text": "Hi"}, headers=headers)):
        assert response.status_code in {404, 405}
        assert not shows(response, "secret")
    assert conversation.messages.count() == 2
