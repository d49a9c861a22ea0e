"""Bad input where something is asked for: switch, unload, restart, pin, delete, in the admin and in the chat, and odd addresses.

Whatever is asked, the answer says why not, nothing is started, nothing is lost, and no page fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from pytest_django.fixtures import Settings

from gantry.chat.models import Conversation
from models_admin import job_moves
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.functional.admin_world import ended_job, load
from tests.functional.bad_input_world import (
    BAD_FILES,
    HTMX,
    change_address,
    definition,
    errors_of,
    model_with_file,
    shows,
    write_bad_files,
)
from tests.functional.chat_world import answer_in, serve, signed_in, talk

DOORS = {"admin": "/admin/models/{pk}/switch/", "chat": "/models/{pk}/switch/"}


@pytest.fixture(autouse=True)
def nothing_starts(db: None) -> Iterator[None]:
    """No request of these tests may lead to a job."""
    with mock.patch.object(job_moves, "enqueue_on_commit") as enqueue:
        yield
    enqueue.assert_not_called()


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    """The folder of models."""
    settings.MODELS_DIR = tmp_path
    return tmp_path


@pytest.fixture
def llama(pool: MemoryPool) -> Runtime:
    """A runtime of this host that starts servers."""
    assert pool.host == django_settings.HOST_NAME
    return Runtime.objects.create(name="llama-server", kind="llama_server", pool=pool, is_healthy=True)


@pytest.fixture
def browser(admin_person: User) -> Client:
    return signed_in(admin_person)


@pytest.fixture(params=[False, True], ids=["plain", "htmx"])
def headers(request: pytest.FixtureRequest) -> dict[str, str]:
    """Of a request without and with script."""
    return HTMX if request.param else {}


@pytest.fixture(params=["get", "post"])
def method(request: pytest.FixtureRequest) -> str:
    """The dialog, and the click in it."""
    return str(request.param)


@pytest.fixture(params=["admin", "chat"])
def door(request: pytest.FixtureRequest) -> str:
    """The address of a switch, by either way in."""
    return DOORS[request.param]


def ask(browser: Client, method: str, address: str, headers: dict[str, str]) -> HttpResponse:
    """The request, as both dialogs send it."""
    data = {"confirmed": "1", "confirm": "1"} if method == "post" else {}
    response: HttpResponse = getattr(browser, method)(address, data, headers=headers)
    return response


def assert_refused(response: HttpResponse, status: int, words: str) -> None:
    assert response.status_code == status
    assert shows(response, words)
    assert not SwitchJob.objects.exists()
    assert not ModelInstance.objects.exists()


# Switches that cannot be


@pytest.mark.parametrize("pk", ["99999", "0", "99999999999999999999", "9" * 5000])
def test_unknown_model_is_no_such_page(
    browser: Client, llama: Runtime, door: str, method: str, headers: dict[str, str], pk: str
) -> None:
    assert_refused(ask(browser, method, door.format(pk=pk), headers), 404, "There is nothing at this address.")


@pytest.mark.parametrize(("name", "reason"), BAD_FILES.items())
def test_file_that_cannot_be_used_is_refused_in_the_dialog(
    browser: Client,
    llama: Runtime,
    folder: Path,
    door: str,
    method: str,
    headers: dict[str, str],
    name: str,
    reason: str,
) -> None:
    write_bad_files(folder)
    model = make_model(llama, name="Bad", path=name)

    response = ask(browser, method, door.format(pk=model.pk), headers)

    assert_refused(response, 409, f"The file of Bad cannot be used: it {reason}")


def test_model_that_is_not_downloaded_is_refused_in_the_dialog(
    browser: Client, llama: Runtime, door: str, method: str, headers: dict[str, str]
) -> None:
    model = make_model(llama, name="Far", is_available=False)

    assert_refused(ask(browser, method, door.format(pk=model.pk), headers), 409, "Far is not downloaded.")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"is_enabled": False}, "The runtime llama-server is switched off."),
        ({"is_healthy": False, "health_text": "There is no llama-server."}, "There is no llama-server."),
    ],
)
def test_runtime_that_cannot_be_used_is_told(
    browser: Client,
    llama: Runtime,
    folder: Path,
    door: str,
    headers: dict[str, str],
    fields: dict[str, Any],
    words: str,
) -> None:
    model = model_with_file(llama, folder)
    Runtime.objects.update(checked_at=model.created_at, **fields)

    assert_refused(ask(browser, "post", door.format(pk=model.pk), headers), 409, words)


def test_model_that_does_not_fit_is_told_with_figures(
    browser: Client, llama: Runtime, folder: Path, door: str, method: str, headers: dict[str, str]
) -> None:
    model = model_with_file(llama, folder)
    MemoryPool.objects.update(total_bytes=1_000_000, free_bytes=1_000)

    assert_refused(ask(browser, method, door.format(pk=model.pk), headers), 409, "0.0 GB are free")


@pytest.mark.parametrize("doing", ["unload", "restart"])
def test_model_that_is_not_loaded_cannot_be_ended(
    browser: Client, llama: Runtime, folder: Path, method: str, headers: dict[str, str], doing: str
) -> None:
    model = model_with_file(llama, folder)

    response = ask(browser, method, f"/admin/models/{model.pk}/{doing}/", headers)

    assert_refused(response, 409, "Good is not loaded.")


# Pins and deletions


@pytest.mark.parametrize("data", [{}, {"is_pinned": ""}, {"is_pinned": "yes"}, {"is_pinned": "2"}])
def test_pin_that_says_neither_leaves_the_pin(
    browser: Client, llama: Runtime, headers: dict[str, str], data: dict[str, str]
) -> None:
    model = make_model(llama, is_pinned=True)

    response = browser.post(f"/admin/models/{model.pk}/pin/", data, headers=headers)

    assert response.status_code == (422 if headers else 302)
    assert ModelDefinition.objects.get().is_pinned


@pytest.mark.parametrize("is_list", [False, True], ids=["one", "several"])
def test_model_that_is_loaded_stays(browser: Client, llama: Runtime, folder: Path, *, is_list: bool) -> None:
    model = model_with_file(llama, folder)
    load(model)
    several = {"action": "delete_selected", "_selected_action": [model.pk], "post": "yes"}
    address = "/admin/models_admin/modeldefinition/"

    response = browser.post(
        address if is_list else f"{address}{model.pk}/delete/", several if is_list else {"post": "yes"}, follow=True
    )

    assert shows(response, "Good is loaded, so it cannot be deleted.")
    assert ModelDefinition.objects.exists()
    assert ModelInstance.objects.exists()


def test_loaded_model_whose_new_file_is_bad_stays_as_it_was(browser: Client, llama: Runtime, folder: Path) -> None:
    write_bad_files(folder)
    model = model_with_file(llama, folder)
    load(model)

    browser.post(change_address(model), {"name": "Good", "model_id": "good", "runtime": llama.pk, "path": "half.gguf"})

    assert ModelDefinition.objects.get().path == "good.gguf"
    assert ModelInstance.objects.get().state == "loaded"


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "awaited"])
@pytest.mark.parametrize("field", ["model_id", "runtime"])
def test_model_in_use_keeps_its_id_and_runtime(
    browser: Client, llama: Runtime, folder: Path, field: str, *, is_held: bool
) -> None:
    model = model_with_file(llama, folder)
    second = Runtime.objects.create(name="second", kind="llama_server", pool=llama.pool)
    if is_held:
        load(model)
    else:
        make_job(llama.pool, model)
    values = {
        **definition(llama, model_id="good", path="good.gguf"),
        field: {"model_id": "new", "runtime": second.pk}[field],
    }

    response = browser.post(change_address(model), values)

    words = "Good is loaded, so it cannot be changed." if is_held else "Good cannot be changed while switch #"
    assert errors_of(response)[field][0].startswith(words)
    model.refresh_from_db()
    assert (model.model_id, model.runtime) == ("good", llama)


# Addresses

POST_ONLY = [
    "/admin/models/import/yaml/",
    "/admin/models/import/folder/",
    "/admin/models/{model}/pin/",
    "/admin/switches/{job}/cancel/",
    "/jobs/{job}/cancel/",
    "/send/",
    "/c/{conversation}/send/",
    "/messages/{answer}/stop/",
    "/messages/{answer}/again/",
]
FORMS = [
    *POST_ONLY,
    "/admin/models/{model}/switch/",
    "/admin/models/{model}/unload/",
    "/admin/models/{model}/restart/",
    "/admin/models_admin/modeldefinition/add/",
    "/admin/models_admin/modeldefinition/{model}/delete/",
    "/models/{model}/switch/",
    "/c/{conversation}/rename/",
    "/c/{conversation}/delete/",
]


@pytest.fixture
def places(llama: Runtime, admin_person: User) -> dict[str, int]:
    """What the addresses name, all of the one who is signed in."""
    model = make_model(llama)
    conversation = talk(admin_person)
    answer = answer_in(conversation, state="failed")
    job = make_job(llama.pool, model, state="loading")
    return {"model": model.pk, "conversation": conversation.pk, "answer": answer.pk, "job": job.pk}


def everything() -> list[Any]:
    """All rows that a request could have changed."""
    return [list(rows.objects.values()) for rows in (ModelDefinition, SwitchJob, Conversation)]


@pytest.mark.parametrize("address", POST_ONLY)
@pytest.mark.parametrize("verb", ["get", "put", "delete"])
def test_address_that_only_takes_forms(
    browser: Client, places: dict[str, int], headers: dict[str, str], address: str, verb: str
) -> None:
    before = everything()

    assert getattr(browser, verb)(address.format(**places), headers=headers).status_code == 405

    assert everything() == before


@pytest.mark.parametrize("address", FORMS)
def test_form_of_another_site_is_refused(
    admin_person: User, places: dict[str, int], headers: dict[str, str], address: str
) -> None:
    before = everything()
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(admin_person)

    response = browser.post(address.format(**places), {"text": "Hi", "post": "yes"}, headers=headers)

    assert response.status_code == 403
    assert shows(response, "This form is out of date")
    assert everything() == before


@pytest.mark.parametrize("address", [address for address in FORMS if "{" in address])
@pytest.mark.parametrize("number", ["0", "99999", "9" * 30, "-1", "1.5", "x", "%00", "%FF", "1%2F2", "..%2F1", "١"])
def test_number_of_nothing_is_no_such_page(browser: Client, llama: Runtime, address: str, number: str) -> None:
    start, _, rest = address.partition("{")
    address = start + number + rest.partition("}")[2]

    response = browser.post(address, {"text": "Hi", "title": "x", "post": "yes"}, follow=True)

    assert response.status_code in {200, 404}
    if address.startswith("/admin/models_admin/"):
        assert shows(response, "doesn’t exist")
    else:
        assert response.status_code == 404


@pytest.mark.parametrize("number", ["0", "x", "%00", "_5C", "9" * 30, "1_00"])
@pytest.mark.parametrize("what", ["modeldefinition", "runtime", "switchjob", "auditentry"])
@pytest.mark.parametrize("doing", ["change", "delete"])
def test_admin_form_of_nothing_leads_back(browser: Client, llama: Runtime, what: str, number: str, doing: str) -> None:
    response = browser.get(f"/admin/models_admin/{what}/{number}/{doing}/")

    assert response.status_code in {302, 403}


@pytest.mark.parametrize(
    "query",
    ["q=%00", "q=" + "x" * 5000, "sort=nothing", "sort=--name", "state=x", "tag=%FF", "sort=", "q=%25_%5C", "?a=&&&"],
)
def test_models_tab_opens_whatever_it_is_asked(browser: Client, llama: Runtime, query: str) -> None:
    make_model(llama, tags=["chat"])

    assert browser.get(f"/admin/models/?{query}").status_code == 200


@pytest.mark.parametrize("what", ["modeldefinition", "switchjob", "auditentry", "runtime"])
@pytest.mark.parametrize(
    "query", ["q=%00", "p=x", "p=99999", "o=99.x", "id__gt=x", "state__exact=x", "e=1", "pool__host=a"]
)
def test_lists_of_the_admin_open_whatever_they_are_asked(
    browser: Client, admin_person: User, llama: Runtime, what: str, query: str
) -> None:
    ended_job(make_model(llama), admin_person, "succeeded")

    assert browser.get(f"/admin/models_admin/{what}/?{query}", follow=True).status_code in {200, 400}


@pytest.mark.parametrize("query", ["q=" + "x" * 5000, "q=%25_%5C", "all=&all", "next=https://evil.example/"])
@pytest.mark.parametrize("address", ["/", "/conversations/"])
def test_chat_opens_whatever_it_is_asked(browser: Client, headers: dict[str, str], address: str, query: str) -> None:
    assert browser.get(f"{address}?{query}", headers=headers).status_code == 200


# The chat's own forms


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
