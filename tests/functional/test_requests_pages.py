"""Asking for a model from the chat and answering on the Models tab, with and without script."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from unittest import mock

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from models_admin import job_moves, switch_requests
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, Runtime, SwitchJob, SwitchPolicy, SwitchRequest
from models_admin.roles import OPERATOR
from tests.factories import make_model
from tests.functional.chat_world import HTMX, serve, signed_in

TAB = "/admin/models/"


@pytest.fixture(autouse=True)
def worker() -> Iterator[None]:
    """Nothing runs jobs here."""
    with mock.patch.object(job_moves, "enqueue_on_commit"):
        yield


@pytest.fixture
def gemma(null_runtime: Runtime) -> ModelDefinition:
    """Not loaded."""
    return make_model(null_runtime, model_id="gemma", name="Gemma 3", size_bytes=250_000_000)


@pytest.fixture
def otto(db: None) -> User:
    """An operator."""
    user = User.objects.create_user("otto", password="pass-otto")
    user.groups.add(Group.objects.get(name=OPERATOR))
    return user


def asked(user: User, model: ModelDefinition, reason: str = "") -> SwitchRequest:
    """A request that is open."""
    return switch_requests.ask(model, actor=Actor(user, "chat"), reason=reason)


def shown(client: Client, address: str) -> str:
    """The page's HTML."""
    return " ".join(client.get(address).content.decode().split())


def part(page: str, begin: str, end: str) -> str:
    """What stands between two places of a page."""
    return page[page.index(begin) :].split(end, maxsplit=1)[0]


def test_menu_offers_to_ask_instead_of_switching(outsider: User, gemma: ModelDefinition) -> None:
    page = shown(signed_in(outsider), "/")
    assert "Choose one to ask for it." in page
    assert f'href="/models/{gemma.pk}/ask/"' in page
    assert "/switch/" not in page


def test_model_that_serves_cannot_be_asked_for(outsider: User, null_runtime: Runtime) -> None:
    smol = serve(null_runtime)
    client = signed_in(outsider)
    assert f"/models/{smol.pk}/ask/" not in shown(client, "/")
    response = client.get(f"/models/{smol.pk}/ask/", headers=HTMX)
    assert response.status_code == 409
    assert "Smol is active already." in response.content.decode()


def test_person_asks_sees_how_it_stands_and_withdraws(outsider: User, gemma: ModelDefinition) -> None:
    client = signed_in(outsider)
    assert "Ask for Gemma 3?" in shown(client, f"/models/{gemma.pk}/ask/")
    response = client.post(f"/models/{gemma.pk}/ask/", {"reason": "A report", "next": "/c/5/"})
    assert response.headers["Location"] == "/c/5/"
    request = SwitchRequest.objects.get()
    assert (request.user, request.model, request.reason) == (outsider, gemma, "A report")
    assert "<strong>Gemma 3:</strong> asked; waiting for an operator" in shown(client, "/")
    dialog = shown(client, f"/models/{gemma.pk}/ask/")
    assert "You have asked for Gemma 3" in dialog
    assert "Asked; waiting for an operator" in dialog
    assert "“A report”" in dialog
    client.post(f"/requests/{request.pk}/withdraw/")
    assert "waiting for an operator" not in shown(client, "/")


def test_answer_is_dated_by_itself_and_not_by_the_question(outsider: User, otto: User, gemma: ModelDefinition) -> None:
    request = asked(outsider, gemma)
    switch_requests.decline(request, actor=Actor(otto, "page"), answer="Tonight")
    long_ago = timezone.now() - timedelta(minutes=50)
    SwitchRequest.objects.update(created_at=long_ago)
    page = part(shown(signed_in(outsider), "/"), 'id="requests"', "</time>")
    assert "declined by otto: Tonight" in page
    assert "50 min ago" not in page


def test_with_htmx_the_dialog_closes(outsider: User, gemma: ModelDefinition) -> None:
    response = signed_in(outsider).post(f"/models/{gemma.pk}/ask/", headers=HTMX)
    assert (response.status_code, "dialogDone" in response.headers["HX-Trigger"]) == (204, True)


def test_who_may_switch_is_not_offered_to_ask(member: User, otto: User, gemma: ModelDefinition) -> None:
    for user in (member, otto):
        client = signed_in(user)
        assert "/ask/" not in shown(client, "/")
        assert client.post(f"/models/{gemma.pk}/ask/", headers=HTMX).status_code == 403
    assert not SwitchRequest.objects.exists()


def test_member_switches_without_asking_while_policy_lets_members(outsider: User, gemma: ModelDefinition) -> None:
    SwitchPolicy(members_may_switch=True).save()
    page = shown(signed_in(outsider), "/")
    assert f'action="/models/{gemma.pk}/switch/"' in page
    assert "/ask/" not in page


def test_nobody_withdraws_for_others(outsider: User, otto: User, gemma: ModelDefinition) -> None:
    request = asked(outsider, gemma)
    assert signed_in(otto).post(f"/requests/{request.pk}/withdraw/").status_code == 404
    request.refresh_from_db()
    assert request.is_open


def test_operator_sees_a_hint_in_the_chat_and_others_do_not(
    outsider: User, otto: User, member: User, gemma: ModelDefinition
) -> None:
    asked(outsider, gemma, "A report")
    page = shown(signed_in(otto), "/")
    assert "<strong>oda</strong> asks for <strong>Gemma 3</strong>" in page
    assert f'href="{TAB}#requests">Answer' in page
    assert "oda" not in shown(signed_in(member), "/")


def test_operator_approves_on_the_models_tab(outsider: User, otto: User, gemma: ModelDefinition) -> None:
    request = asked(outsider, gemma, "A report")
    client = signed_in(otto)
    page = part(shown(client, TAB), 'id="requests"', "</section>")
    assert "<strong>oda</strong> asks for <strong>Gemma 3</strong>" in page
    assert "“A report”" in page
    address = f"/admin/requests/{request.pk}/approve/"
    assert address in page
    dialog = shown(client, address)
    assert "oda asks for it: “A report”" in dialog
    assert f'action="{address}"' in dialog
    assert not SwitchJob.objects.exists()
    assert client.post(address).headers["Location"] == TAB
    job = SwitchJob.objects.get()
    assert (job.target, job.requested_by) == (gemma, otto)
    assert "approved by otto" in shown(signed_in(outsider), "/")
    assert " hidden" in part(shown(client, TAB), 'id="requests"', ">")


def test_approval_with_htmx_shows_the_switch(outsider: User, otto: User, gemma: ModelDefinition) -> None:
    request = asked(outsider, gemma)
    response = signed_in(otto).post(f"/admin/requests/{request.pk}/approve/", headers=HTMX)
    assert 'id="switch-panel"' in response.content.decode()
    assert "gantry:close-dialog" in str(response.headers)


def test_operator_declines_with_a_word(outsider: User, otto: User, gemma: ModelDefinition) -> None:
    request = asked(outsider, gemma)
    client = signed_in(otto)
    address = f"/admin/requests/{request.pk}/decline/"
    assert "Decline Gemma 3 to oda?" in shown(client, address)
    response = client.post(address, {"answer": "Tonight."}, headers=HTMX)
    assert 'id="requests"' in response.content.decode()
    assert "Gemma 3" not in response.content.decode()
    assert "declined by otto: Tonight." in shown(signed_in(outsider), "/")
    assert not SwitchJob.objects.exists()


@pytest.mark.parametrize("verb", ["approve", "decline"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_what_was_withdrawn_meanwhile_says_so(
    verb: str, method: str, outsider: User, otto: User, gemma: ModelDefinition
) -> None:
    request = asked(outsider, gemma)
    switch_requests.withdraw(request, actor=Actor(outsider, "chat"))
    response = getattr(signed_in(otto), method)(f"/admin/requests/{request.pk}/{verb}/", headers=HTMX)
    assert response.status_code == 409
    assert "This is not open any more: withdrawn." in response.content.decode()


@pytest.mark.parametrize("verb", ["approve", "decline"])
def test_who_only_looks_at_models_neither_sees_nor_answers(
    verb: str, outsider: User, otto: User, gemma: ModelDefinition
) -> None:
    request = asked(outsider, gemma)
    rights = Group.objects.get(name=OPERATOR).permissions
    rights.remove(rights.get(codename="switch_model"))
    client = signed_in(otto)
    assert "Gemma 3</strong>" not in part(shown(client, TAB), 'id="requests"', "</section>")
    for method in (client.get, client.post):
        assert method(f"/admin/requests/{request.pk}/{verb}/", headers=HTMX).status_code == 403
    request.refresh_from_db()
    assert request.is_open


def test_reason_is_shown_as_text(outsider: User, otto: User, gemma: ModelDefinition) -> None:
    request = asked(outsider, gemma, "<script>alert(1)</script>")
    client = signed_in(otto)
    for address in ("/", TAB, f"/admin/requests/{request.pk}/approve/"):
        assert "<script>alert" not in shown(client, address)


@pytest.mark.parametrize("address", ["/", TAB])
def test_number_of_queries_does_not_grow_with_requests(
    address: str, otto: User, outsider: User, null_runtime: Runtime
) -> None:
    client = signed_in(otto)
    counts = []
    for number in (1, 4):
        for _ in range(number):
            asked(outsider, make_model(null_runtime))
        client.get(address)
        with CaptureQueriesContext(connection) as captured:
            client.get(address)
        counts.append(len(captured))
    assert counts[0] == counts[1]
