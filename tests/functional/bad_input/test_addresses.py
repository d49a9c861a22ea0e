"""Odd addresses, methods and queries: no page fails, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from gantry.chat.models import Conversation
from models_admin.models import ModelDefinition, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.functional.admin_world import ended_job
from tests.functional.bad_input.helpers import shows
from tests.functional.chat_world import answer_in, talk

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
