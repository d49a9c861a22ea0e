"""Choosing a model in the chat: who may, what is asked first, what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from unittest import mock

import pytest
from django.contrib.auth.models import User

from models_admin import job_moves
from models_admin.models import ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.functional.admin_world import loading_job
from tests.functional.chat_world import HTMX, serve, signed_in


@pytest.fixture
def gemma(null_runtime: Runtime) -> ModelDefinition:
    """Not loaded."""
    return make_model(null_runtime, model_id="gemma", name="Gemma 3", size_bytes=250_000_000)


@pytest.fixture(autouse=True)
def worker() -> Iterator[mock.Mock]:
    """Nothing runs jobs here."""
    with mock.patch.object(job_moves, "enqueue_on_commit") as enqueue:
        yield enqueue


def test_menu_groups_models_by_state(member: User, null_runtime: Runtime, gemma: ModelDefinition) -> None:
    serve(null_runtime)
    make_model(null_runtime, name="Far away", is_available=False)

    page = signed_in(member).get("/").content.decode()
    menu = page[page.index('id="model-menu-items"') :]

    order = ["Loaded", "Smol", "Active", "Ready to load", "Gemma 3", "Not downloaded", "Far away"]
    places = [menu.index(words) for words in order]
    assert places == sorted(places)
    assert f'action="/models/{gemma.pk}/switch/"' in menu


def test_size_that_is_not_known_is_left_out(member: User, null_runtime: Runtime) -> None:
    make_model(null_runtime, name="Far away", size_bytes=0)
    assert "0 MB" not in signed_in(member).get("/").content.decode()


def test_somebody_who_may_not_switch_is_told_so(outsider: User, gemma: ModelDefinition) -> None:
    client = signed_in(outsider)

    assert "You may not switch models yourself. Choose one to ask for it." in client.get("/").content.decode()
    assert "/switch/" not in client.get("/").content.decode()
    response = client.post(f"/models/{gemma.pk}/switch/", {"confirmed": "1"}, headers=HTMX)
    assert response.status_code == 403
    assert "You may not switch models. Ask an administrator." in response.content.decode()
    assert not SwitchJob.objects.exists()


@pytest.mark.parametrize("method", ["get", "post"])
def test_choosing_a_model_that_is_not_loaded_asks_first(
    method: str, member: User, null_runtime: Runtime, gemma: ModelDefinition
) -> None:
    smol = serve(null_runtime)
    ModelInstance.objects.filter(model=smol).update(held_bytes=900_000_000)
    null_runtime.pool.free_bytes = 100_000_000
    null_runtime.pool.save()

    response = getattr(signed_in(member), method)(f"/models/{gemma.pk}/switch/", headers=HTMX)

    assert "Switch to Gemma 3?" in response.content.decode()
    assert "Unload Smol and load Gemma 3" in response.content.decode()
    assert not SwitchJob.objects.exists()


def test_confirmed_choice_switches(member: User, gemma: ModelDefinition) -> None:
    response = signed_in(member).post(f"/models/{gemma.pk}/switch/", {"confirmed": "1"}, headers=HTMX)

    assert (response.status_code, response.headers["HX-Trigger"]) == (204, "dialogDone") or "dialogDone" in str(
        response.headers["HX-Trigger"]
    )
    job = SwitchJob.objects.get()
    assert (job.target, job.via, job.requested_by) == (gemma, "chat", member)


def test_without_htmx_a_confirmed_choice_leads_back(member: User, gemma: ModelDefinition) -> None:
    response = signed_in(member).post(f"/models/{gemma.pk}/switch/", {"confirmed": "1", "next": "/c/5/"})

    assert response.headers["Location"] == "/c/5/"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "javascript:alert(1)"])
def test_way_back_stays_on_this_site(target: str, member: User, gemma: ModelDefinition) -> None:
    response = signed_in(member).post(f"/models/{gemma.pk}/switch/", {"confirmed": "1", "next": target})

    assert response.headers["Location"] == "/"


def test_choosing_a_loaded_model_needs_no_dialog(member: User, null_runtime: Runtime, gemma: ModelDefinition) -> None:
    serve(null_runtime)
    ModelInstance.objects.create(
        instance_id=uuid.uuid4(), model=gemma, runtime=null_runtime, state="loaded", held_bytes=1
    )

    response = signed_in(member).post(f"/models/{gemma.pk}/switch/", headers=HTMX)

    assert response.status_code == 204
    assert SwitchJob.objects.get().target == gemma


def test_missing_model_and_missing_file_say_so(member: User, null_runtime: Runtime) -> None:
    client = signed_in(member)
    away = make_model(null_runtime, name="Far away", is_available=False)

    assert client.get("/models/99999/switch/").status_code == 404
    response = client.get(f"/models/{away.pk}/switch/", headers=HTMX)
    assert response.status_code == 409
    assert "Far away is not downloaded" in response.content.decode()


def test_only_the_one_who_asked_can_cancel(
    member: User, outsider: User, null_runtime: Runtime, gemma: ModelDefinition
) -> None:
    job = make_job(null_runtime.pool, gemma, requested_by_name=member.username, requested_by=member)

    assert f"/jobs/{job.pk}/cancel/" not in signed_in(outsider).get("/").content.decode()
    assert signed_in(outsider).post(f"/jobs/{job.pk}/cancel/", headers=HTMX).status_code == 403
    assert f"/jobs/{job.pk}/cancel/" in signed_in(member).get("/").content.decode()
    assert signed_in(member).post(f"/jobs/{job.pk}/cancel/", headers=HTMX).status_code == 204
    job.refresh_from_db()
    assert job.state == "cancelled"


def test_choice_during_a_switch_says_what_it_takes_over_from(
    null_runtime: Runtime, admin_person: User, member: User
) -> None:
    serve(null_runtime)
    running = loading_job(make_model(null_runtime, name="Gemma"), admin_person)
    third = make_model(null_runtime, name="Third")
    client = signed_in(member)

    page = client.post(f"/models/{third.pk}/switch/", headers=HTMX).content.decode()
    assert "Switching to Gemma is 52 % done" in page
    assert "Cancel it and switch to Third" in page
    assert f'action="/models/{third.pk}/switch/"' in client.get("/").content.decode()

    client.post(f"/models/{third.pk}/switch/", {"confirmed": "1", "confirm": "1"}, headers=HTMX)
    running.refresh_from_db()
    assert running.superseded_by is not None
    assert running.superseded_by.target == third
