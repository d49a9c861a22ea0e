"""The chat's pages and forms, as people use them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from gantry.chat.models import Conversation
from models_admin.models import ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.functional.chat_world import HTMX, answer_in, serve, signed_in, talk


@pytest.fixture
def browser(outsider: User) -> Client:
    """Somebody who may chat and nothing more."""
    return signed_in(outsider)


def read(client: Client, address: str = "/") -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def test_anonymous_is_asked_to_sign_in_and_comes_back(client: Client, outsider: User) -> None:
    conversation = talk(outsider, ("Hi", "Hello"))

    response = client.get(conversation.get_absolute_url())

    assert response.headers["Location"] == f"/sign-in/?next={conversation.get_absolute_url()}"


def test_htmx_request_of_somebody_signed_out_loads_the_sign_in_page(client: Client, db: None) -> None:
    response = client.post("/send/", {"text": "Hi"}, headers=HTMX)

    assert response.headers["HX-Redirect"].startswith("/sign-in/")


def test_somebody_who_is_not_staff_can_chat_and_sees_no_link_to_the_admin(
    browser: Client, null_runtime: Runtime
) -> None:
    serve(null_runtime)
    page = read(browser)

    assert 'placeholder="Message Smol"' in page
    assert "/admin/models/" not in page


def test_staff_sees_the_link_to_the_models_tab(admin_person: User) -> None:
    assert 'href="/admin/models/"' in read(signed_in(admin_person))


def test_without_a_model_the_input_says_so_and_send_is_off(browser: Client) -> None:
    page = read(browser)

    assert 'placeholder="Select a model to start chatting"' in page
    assert 'data-can-send="false"' in page


@pytest.mark.parametrize("address", ["/c/{pk}/", "/c/{pk}/rename/", "/c/{pk}/delete/"])
def test_conversations_of_others_do_not_exist(address: str, browser: Client, member: User) -> None:
    conversation = talk(member, ("my secret", "safe with me"))
    address = address.format(pk=conversation.pk)

    assert browser.get(address).status_code == 404
    assert browser.post(address, {"title": "mine"}).status_code in {404, 405}
    assert browser.post(f"/c/{conversation.pk}/send/", {"text": "Hi"}).status_code == 404
    assert "my secret" not in read(browser, "/?q=secret")
    assert "Old talk" not in read(browser)
    conversation.refresh_from_db()
    assert (conversation.title, conversation.messages.count()) == ("Old talk", 2)


@pytest.mark.parametrize("doing", ["stop", "again"])
def test_answers_of_others_cannot_be_touched(doing: str, browser: Client, member: User) -> None:
    state = {"stop": "streaming", "again": "failed"}[doing]
    answer = answer_in(talk(member, ("Hi", "Hello")), state=state)

    assert browser.post(f"/messages/{answer.pk}/{doing}/").status_code == 404
    answer.refresh_from_db()
    assert answer.state == state


def test_number_too_large_for_the_database_is_no_such_page(browser: Client) -> None:
    assert browser.get("/c/99999999999999999999/").status_code == 404


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("   ", 422, "Write something first"),
        ("x" * 32_001, 422, "32,001 characters; at most 32,000"),
        ("Hi", 409, "Select a model to start chatting"),
    ],
)
def test_refused_question_says_why_and_its_text_comes_back(browser: Client, text: str, status: int, words: str) -> None:
    response = browser.post("/send/", {"text": text})

    assert response.status_code == status
    assert words in response.content.decode()
    assert f">{text}</textarea>" in response.content.decode()
    assert not Conversation.objects.exists()


def test_refused_question_with_htmx_swaps_only_the_reason(browser: Client) -> None:
    response = browser.post("/send/", {"text": "Hi"}, headers=HTMX)

    assert response.status_code == 409
    assert response.content.decode().count("<p") == 1
    assert 'id="composer-error"' in response.content.decode()


def test_question_during_a_switch_is_refused(browser: Client, null_runtime: Runtime) -> None:
    model = serve(null_runtime)
    make_job(null_runtime.pool, model, state="loading")

    response = browser.post("/send/", {"text": "Hi"})

    assert response.status_code == 409
    assert "Your text is kept" in response.content.decode()


def test_model_that_only_makes_embeddings_takes_no_questions(browser: Client, null_runtime: Runtime) -> None:
    serve(null_runtime, tags=["embedding"])

    response = browser.post("/send/", {"text": "Hi"})

    assert response.status_code == 409
    assert "makes embeddings and cannot chat" in response.content.decode()


def test_second_question_while_an_answer_is_written_is_refused(
    browser: Client, outsider: User, null_runtime: Runtime
) -> None:
    serve(null_runtime)
    conversation = talk(outsider)
    answer_in(conversation, state="streaming", heartbeat_at=timezone.now())

    response = browser.post(f"/c/{conversation.pk}/send/", {"text": "Hi"})

    assert response.status_code == 409
    assert "still being written" in response.content.decode()
    assert conversation.messages.count() == 1


@pytest.mark.parametrize(
    ("kind", "eta", "words"),
    [
        ("switch", 12.2, "Switching to Gemma 3… (12s remaining)"),
        ("switch", 0.1, "Switching to Gemma 3… (1s remaining)"),
        ("switch", None, "Switching to Gemma 3…"),
        ("unload", None, "Unloading Gemma 3…"),
        ("restart", 3.0, "Restarting Gemma 3… (3s remaining)"),
    ],
)
def test_lock_says_what_happens_and_how_long(
    browser: Client, null_runtime: Runtime, kind: str, eta: float | None, words: str
) -> None:
    target = make_model(null_runtime, name="Gemma 3")
    make_job(null_runtime.pool, target, state="loading", kind=kind, eta_seconds=eta, from_name="Smol", percent=40)

    page = read(browser)

    assert f'placeholder="{words}"' in page
    assert 'data-locked="true"' in page
    assert "(asked by ann)" in page


def test_switch_that_takes_longer_names_no_time_left(browser: Client, null_runtime: Runtime) -> None:
    job = make_job(
        null_runtime.pool, make_model(null_runtime, name="G"), state="loading", eta_seconds=1.0, expected_seconds=12
    )
    SwitchJob.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(seconds=30))

    page = read(browser)

    assert 'placeholder="Switching to G…"' in page
    assert "taking longer than usual (usually 12 s)" in page


@pytest.mark.parametrize(("age", "is_shown"), [(timedelta(minutes=1), True), (timedelta(hours=1), False)])
def test_failed_switch_is_told_for_a_while(member: User, null_runtime: Runtime, age: timedelta, is_shown: bool) -> None:
    target = make_model(null_runtime, name="Gemma 3")
    make_job(
        null_runtime.pool, target, state="failed", error_code="out_of_memory", aftermath="Smol was put back.",
        finished_at=timezone.now() - age,
    )  # fmt: skip

    page = read(signed_in(member))

    assert ("Switching to Gemma 3 failed: out of memory. Smol was put back." in page) is is_shown


def test_crashed_model_is_told_with_a_way_out(member: User, null_runtime: Runtime) -> None:
    model = serve(null_runtime)
    ModelInstance.objects.update(state="crashed", is_active=False, error_code="killed")

    page = read(signed_in(member))

    assert "Smol crashed: killed." in page
    assert f'href="/models/{model.pk}/switch/"' in page
    assert 'placeholder="Select a model to start chatting"' in page


def test_answer_is_shown_as_markdown_without_anything_dangerous(browser: Client, outsider: User) -> None:
    nasty = "**bold** <script>alert(1)</script> ![x](https://evil.example/x.png) [go](javascript:alert(1))\n\n```py\nx = 1\n```"
    conversation = talk(outsider, ("<b>me</b>", nasty))

    page = read(browser, conversation.get_absolute_url())

    assert "<strong>bold</strong>" in page
    assert 'class="hl-' in page
    assert "&lt;b&gt;me&lt;/b&gt;" in page
    for danger in ("<script>alert", "<img", 'href="javascript'):
        assert danger not in page


def test_line_stands_where_the_model_changed(browser: Client, outsider: User) -> None:
    conversation = talk(outsider, ("a", "1"), ("b", "2"), model="Smol")
    conversation.messages.create(role="user", text="c")
    changed = conversation.messages.create(role="assistant", text="3", model_name="Gemma 3")

    page = read(browser, conversation.get_absolute_url())

    assert page.count("— from here:") == 1
    assert page.index("— from here: Gemma 3 —") > page.index(f'id="message-{changed.pk}"')


def test_long_conversation_shows_its_newest_messages_first(browser: Client, outsider: User) -> None:
    conversation = talk(outsider, *((f"question {n}.", "ok") for n in range(60)))

    page = read(browser, conversation.get_absolute_url())
    whole = read(browser, conversation.get_absolute_url() + "?all")

    assert "question 1." not in page
    assert "question 59." in page
    assert "Show earlier messages" in page
    assert "question 1." in whole


def test_list_is_grouped_by_day_and_searched_through_all_messages(browser: Client, outsider: User) -> None:
    talk(outsider, ("about llamas", "they spit"))
    old = Conversation.objects.create(user=outsider, title="Yesterday's")
    Conversation.objects.filter(pk=old.pk).update(updated_at=timezone.now() - timedelta(days=2))

    page = read(browser)
    found = browser.get("/conversations/?q=LLAMAS", headers=HTMX).content.decode()

    assert page.index("Today") < page.index("Old talk") < page.index("Earlier") < page.index("Yesterday&#x27;s")
    assert "Old talk" in found
    assert "Yesterday" not in found
    assert "<html" not in found


def test_renaming_changes_the_title(browser: Client, outsider: User) -> None:
    conversation = talk(outsider)

    response = browser.post(f"/c/{conversation.pk}/rename/", {"title": "A better title"})

    assert response.headers["Location"] == conversation.get_absolute_url()
    conversation.refresh_from_db()
    assert conversation.title == "A better title"


@pytest.mark.parametrize("title", ["", "x" * 201])
def test_title_that_cannot_be_is_refused_in_place(browser: Client, outsider: User, title: str) -> None:
    conversation = talk(outsider)

    response = browser.post(f"/c/{conversation.pk}/rename/", {"title": title}, headers=HTMX)

    assert response.status_code == 422
    assert 'role="alert"' in response.content.decode()


def test_deleting_asks_first(browser: Client, outsider: User) -> None:
    conversation = talk(outsider, ("Hi", "Hello"))

    assert "Delete this conversation?" in read(browser, f"/c/{conversation.pk}/delete/")
    assert Conversation.objects.count() == 1
    assert browser.post(f"/c/{conversation.pk}/delete/").headers["Location"] == "/"
    assert not Conversation.objects.exists()


def test_deleting_the_open_conversation_leads_to_a_new_one(browser: Client, outsider: User) -> None:
    conversation = talk(outsider)
    address = f"http://testserver{conversation.get_absolute_url()}"

    response = browser.post(f"/c/{conversation.pk}/delete/", HTTP_HX_CURRENT_URL=address, headers=HTMX)

    assert response.headers["HX-Redirect"] == "/"


def test_stopping_keeps_the_text_and_a_second_stop_changes_nothing(browser: Client, outsider: User) -> None:
    answer = answer_in(talk(outsider), state="streaming", text="so far", heartbeat_at=timezone.now())

    for _ in range(2):
        response = browser.post(f"/messages/{answer.pk}/stop/", headers=HTMX)
        assert "You ended this answer early." in response.content.decode()
    answer.refresh_from_db()
    assert (answer.state, answer.text) == ("stopped", "so far")


def test_only_the_last_answer_can_be_asked_for_again(browser: Client, outsider: User, null_runtime: Runtime) -> None:
    serve(null_runtime)
    conversation = talk(outsider)
    failed = answer_in(conversation, state="failed")
    conversation.messages.create(role="user", text="something else")

    response = browser.post(f"/messages/{failed.pk}/again/", headers=HTMX)

    assert response.status_code == 409
    assert "can no longer be asked for again" in response.content.decode()


def test_who_may_not_chat_is_refused(outsider: User, null_runtime: Runtime) -> None:
    serve(null_runtime)
    failed = answer_in(talk(outsider, ("Hi", "Hello")), state="failed", error_text="It broke.")
    outsider.groups.clear()
    client = signed_in(outsider)

    for address in ("/send/", f"/messages/{failed.pk}/again/"):
        response = client.post(address, {"text": "Hi"}, headers=HTMX)
        assert response.status_code == 403
        assert "You may not chat; ask an administrator." in response.content.decode()
