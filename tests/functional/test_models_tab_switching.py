"""Asking, confirming, refusing, cancelling: with and without script."""

from __future__ import annotations

import re
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_admin.models import AuditEntry, ModelDefinition, Runtime, SwitchJob
from tests.factories import make_model
from tests.functional.admin_world import MB, load, loading_job, staff, step

HTMX = {"HX-Request": "true"}


@pytest.fixture
def small(null_runtime: Runtime) -> ModelDefinition:
    """Active; holds 600 MB of the 1 GiB."""
    model = make_model(null_runtime, model_id="small", name="Small", size_bytes=500 * MB)
    load(model, is_active=True, held_bytes=600 * MB, busy_count=2)
    pool = null_runtime.pool
    pool.held_bytes, pool.free_bytes = 600 * MB, 450 * MB
    pool.save()
    return model


@pytest.fixture
def other(null_runtime: Runtime) -> ModelDefinition:
    """Does not fit beside the small one."""
    return make_model(null_runtime, model_id="other", name="Other", size_bytes=500 * MB)


def test_dialog_tells_the_plan_and_its_button_what_it_does(
    signed_in: Client, small: ModelDefinition, other: ModelDefinition
) -> None:
    response = signed_in.get(f"/admin/models/{other.pk}/switch/", headers=HTMX)

    html = response.content.decode()
    assert response.headers["Gantry-Partial"]
    assert "<html" not in html
    for words in ("Unload Small and load Other", "2 answers running", "frees 0.6 GB", "first load: estimated"):
        assert words in html


def test_plan_is_a_page_of_its_own_without_script(
    signed_in: Client, small: ModelDefinition, other: ModelDefinition
) -> None:
    html = signed_in.get(f"/admin/models/{other.pk}/switch/").content.decode()

    assert "<html" in html
    assert "Unload Small and load Other" in html
    assert "csrfmiddlewaretoken" in html


def test_confirming_without_script_starts_the_job_and_returns_to_the_tab(
    signed_in: Client, small: ModelDefinition, other: ModelDefinition
) -> None:
    response = signed_in.post(f"/admin/models/{other.pk}/switch/")

    assert response.headers["Location"] == "/admin/models/"
    job = SwitchJob.objects.get()
    assert (job.target, job.kind, job.via) == (other, "switch", "page")
    assert AuditEntry.objects.filter(job=job, event="model:switch:request").exists()


def test_confirming_in_the_dialog_closes_it_and_brings_the_panel(
    signed_in: Client, small: ModelDefinition, other: ModelDefinition
) -> None:
    response = signed_in.post(f"/admin/models/{other.pk}/switch/", headers=HTMX)

    html = response.content.decode()
    assert "gantry:close-dialog" in response.headers["HX-Trigger"]
    assert 'id="switch-panel"' in html
    assert 'hx-swap-oob="true"' in html
    assert "Switching from Small to Other" in html


def test_while_the_former_model_is_put_back_page_and_chat_say_so(
    signed_in: Client, admin_person: User, other: ModelDefinition
) -> None:
    back = [step("load", "Small", "running", percent=20), step("verify", "Small", "pending")]
    loading_job(other, admin_person, steps=[step("load", "Other", "failed"), *back])

    tab, chat = (" ".join(signed_in.get(page).content.decode().split()) for page in ("/admin/models/", "/"))
    assert "The switch to Other failed: putting Small back" in tab
    assert "The switch to Other failed: putting Small back…" in chat
    assert "Switching from Small" not in tab + chat
    assert "Loading 52 %" not in tab + chat


def test_asking_twice_joins_the_first(signed_in: Client, small: ModelDefinition, other: ModelDefinition) -> None:
    signed_in.post(f"/admin/models/{other.pk}/switch/")
    response = signed_in.post(f"/admin/models/{other.pk}/switch/", headers=HTMX)

    assert SwitchJob.objects.count() == 1
    assert "ann has asked for this already." in response.content.decode()


def test_switching_to_the_active_model_does_nothing(signed_in: Client, small: ModelDefinition) -> None:
    response = signed_in.post(f"/admin/models/{small.pk}/switch/", headers=HTMX)

    assert SwitchJob.objects.count() == 0
    assert "Small is active already." in response.content.decode()


def test_another_job_is_told_and_linked(
    signed_in: Client, admin_person: User, small: ModelDefinition, other: ModelDefinition
) -> None:
    job = loading_job(other, admin_person)

    response = signed_in.post(f"/admin/models/{small.pk}/restart/", headers=HTMX)

    assert response.status_code == 409
    assert "Switching to Other is under way" in response.content.decode()
    assert job.get_absolute_url() in response.content.decode()


def test_shortfall_is_told_in_figures_with_ways_out(
    signed_in: Client, small: ModelDefinition, null_runtime: Runtime
) -> None:
    small.is_pinned = True
    small.save()
    big = make_model(null_runtime, name="Big", size_bytes=600 * MB)
    make_model(null_runtime, model_id="lesser", name="Lesser", size_bytes=100 * MB)

    response = signed_in.get(f"/admin/models/{big.pk}/switch/", headers=HTMX)

    html = response.content.decode()
    assert response.status_code == 409
    assert "Big cannot be loaded now" in html
    assert "too little" in html
    assert "Plan it with Small unpinned" in html
    assert "Plan Lesser instead" in html
    [url] = re.findall(r'hx-get="([^"]+unpin=[^"]+)"', html)
    again = signed_in.get(unescape(url), headers=HTMX).content.decode()
    assert "Unload Small and load Big" in again
    assert f'name="unpin" value="{small.model_id}"' in again


def test_model_without_its_file_is_refused_in_the_dialog(signed_in: Client, null_runtime: Runtime) -> None:
    gone = make_model(null_runtime, name="Gone", is_available=False)

    response = signed_in.get(f"/admin/models/{gone.pk}/switch/", headers=HTMX)

    assert response.status_code == 409
    assert "Gone cannot be loaded now" in response.content.decode()


def test_unload_of_what_is_not_loaded_is_refused(signed_in: Client, other: ModelDefinition) -> None:
    response = signed_in.get(f"/admin/models/{other.pk}/unload/")

    assert response.status_code == 409
    assert "Other is not loaded." in response.content.decode()


@pytest.mark.parametrize(("kind", "words"), [("unload", "Unload Small"), ("restart", "Restart Small")])
def test_unload_and_restart_ask_and_start(signed_in: Client, small: ModelDefinition, kind: str, words: str) -> None:
    address = f"/admin/models/{small.pk}/{kind}/"
    assert words in signed_in.get(address, headers=HTMX).content.decode()

    signed_in.post(address)

    assert SwitchJob.objects.get().kind == kind


def test_somebody_who_may_not_switch_is_refused(client: Client, small: ModelDefinition, other: ModelDefinition) -> None:
    client.force_login(staff("eve", "view_modeldefinition"))

    response = client.post(f"/admin/models/{other.pk}/switch/", headers=HTMX)

    assert response.status_code == 403
    assert "You may not switch models." in response.content.decode()
    assert SwitchJob.objects.count() == 0


def test_unknown_model_is_a_404(signed_in: Client, db: None) -> None:
    assert signed_in.get("/admin/models/999/switch/").status_code == 404


def test_post_without_a_token_is_refused(admin_person: User, small: ModelDefinition) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(admin_person)

    assert strict.post(f"/admin/models/{small.pk}/unload/").status_code == 403


def test_own_job_can_be_cancelled(client: Client, other: ModelDefinition) -> None:
    eve = staff("eve", "view_modeldefinition", "switch_model")
    client.force_login(eve)
    job = loading_job(other, eve)

    response = client.post(f"/admin/switches/{job.pk}/cancel/", headers=HTMX)

    job.refresh_from_db()
    assert job.cancel_requested_at is not None
    assert "Cancelling" in response.content.decode()


def test_job_of_somebody_else_cannot_be_cancelled(client: Client, admin_person: User, other: ModelDefinition) -> None:
    client.force_login(staff("eve", "view_modeldefinition", "switch_model"))
    job = loading_job(other, admin_person)

    answer = client.post(f"/admin/switches/{job.pk}/cancel/", headers=HTMX)
    plain = client.post(f"/admin/switches/{job.pk}/cancel/", follow=True)

    job.refresh_from_db()
    assert job.cancel_requested_at is None
    assert answer.status_code == 403
    assert answer.headers["HX-Retarget"] == "#panel-note"
    assert "Only the one who asked" in plain.content.decode()


def test_pin_and_unpin(signed_in: Client, small: ModelDefinition) -> None:
    answer = signed_in.post(f"/admin/models/{small.pk}/pin/", {"is_pinned": "1"}, headers=HTMX)
    small.refresh_from_db()
    assert small.is_pinned
    assert answer.content.decode().lstrip().startswith("<tr")

    signed_in.post(f"/admin/models/{small.pk}/pin/", {"is_pinned": "0"})
    small.refresh_from_db()
    assert not small.is_pinned


def test_pin_without_the_right_is_told_in_the_row(client: Client, small: ModelDefinition) -> None:
    client.force_login(staff("eve", "view_modeldefinition"))

    answer = client.post(f"/admin/models/{small.pk}/pin/", {"is_pinned": "1"}, headers=HTMX)

    assert answer.status_code == 403
    assert answer.headers["HX-Retarget"] == f"#model-note-{small.pk}"


def test_dialog_says_which_running_switch_it_would_take_over_from(
    signed_in: Client, small: ModelDefinition, other: ModelDefinition, null_runtime: Runtime, admin_person: User
) -> None:
    third = make_model(null_runtime, model_id="third", name="Third")
    running = loading_job(other, admin_person)

    html = signed_in.get(f"/admin/models/{third.pk}/switch/", headers=HTMX).content.decode()
    assert "Switching to Other is 52 % done" in html
    assert "Cancel it and switch to Third" in html

    # A click that had not seen it is asked first: it is half done.
    html = signed_in.post(f"/admin/models/{third.pk}/switch/", headers=HTMX).content.decode()
    assert "Switching to Other is 52 % done" in html
    assert SwitchJob.objects.count() == 1

    signed_in.post(f"/admin/models/{third.pk}/switch/", {"confirm": "1"}, headers=HTMX)
    running.refresh_from_db()
    assert running.superseded_by is not None
    assert running.superseded_by.target == third


def test_of_a_model_without_a_size_nothing_is_foretold_before_its_first_load(
    signed_in: Client, small: ModelDefinition, null_runtime: Runtime
) -> None:
    nameless = make_model(null_runtime, model_id="remote", name="Remote", size_bytes=0)

    html = signed_in.get(f"/admin/models/{nameless.pk}/switch/", headers=HTMX).content.decode()
    assert "how much memory it needs is not known before its first load" in html
    assert "How long it takes is not known before its first load." in html
    assert "Takes <strong>" not in html

    signed_in.post(f"/admin/models/{nameless.pk}/switch/", headers=HTMX)
    job = SwitchJob.objects.get(target=nameless)
    assert (job.expected_seconds, job.eta_seconds) == (0, None)
