"""Pages of what is more than a switch: unloading all, loading in the background, another context, several devices, expected times."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from gantry.planning.states import JobKind
from models_admin.models import LoadRecord, ModelDefinition, ModelUse, Runtime, SwitchJob, SwitchPolicy
from models_admin.usage import note_use
from tests.factories import make_job, make_model
from tests.functional.admin_world import MB, load, staff

HTMX = {"HX-Request": "true"}


@pytest.fixture
def active(null_runtime: Runtime) -> ModelDefinition:
    """Holds 600 MB of the 1 GiB."""
    model = make_model(null_runtime, model_id="small", name="Small", size_bytes=500 * MB, is_pinned=True)
    load(model, is_active=True, held_bytes=600 * MB)
    pool = null_runtime.pool
    pool.held_bytes, pool.free_bytes = 600 * MB, 470 * MB
    pool.save()
    return model


@pytest.fixture
def tiny(null_runtime: Runtime) -> ModelDefinition:
    """Fits beside anything."""
    return make_model(null_runtime, model_id="tiny", name="Tiny", size_bytes=90 * MB)


def test_unload_all_names_what_goes_and_starts_one_job(signed_in: Client, active: ModelDefinition) -> None:
    url = f"/admin/pools/{active.runtime.pool_id}/unload-all/"
    assert url in signed_in.get("/admin/models/").text
    dialog = signed_in.get(url, headers=HTMX)
    assert "Unload all models?" in dialog.text
    assert "frees 0.6 GB" in dialog.text
    signed_in.post(url, headers=HTMX)
    job = SwitchJob.objects.get()
    assert (job.kind, job.target, job.target_name) == (JobKind.UNLOAD_ALL, None, "all models")
    assert "Unloading all models" in signed_in.get("/admin/models/").text


def test_unload_all_with_nothing_loaded_says_so(signed_in: Client, null_runtime: Runtime) -> None:
    url = f"/admin/pools/{null_runtime.pool_id}/unload-all/"
    assert "No model is loaded" in signed_in.post(url, headers=HTMX).text
    assert SwitchJob.objects.count() == 0


def test_load_in_the_background_leaves_the_active_model_alone(
    signed_in: Client, active: ModelDefinition, tiny: ModelDefinition
) -> None:
    dialog = signed_in.get(f"/admin/models/{tiny.pk}/preload/", headers=HTMX)
    assert "Load Tiny in the background?" in dialog.text
    signed_in.post(f"/admin/models/{tiny.pk}/preload/", headers=HTMX)
    assert SwitchJob.objects.get().kind == JobKind.PRELOAD


def test_plan_says_that_nobody_has_to_wait(signed_in: Client, active: ModelDefinition, tiny: ModelDefinition) -> None:
    dialog = signed_in.get(f"/admin/models/{tiny.pk}/switch/", headers=HTMX)
    assert "Nobody has to wait: Small answers until Tiny does, and stays loaded." in dialog.text


def test_plan_says_for_how_long_chat_waits(signed_in: Client, active: ModelDefinition) -> None:
    active.is_pinned = False
    active.save()
    other = make_model(active.runtime, name="Other", size_bytes=500 * MB)
    dialog = signed_in.get(f"/admin/models/{other.pk}/switch/", headers=HTMX)
    assert "Everybody&#x27;s chat waits for about" in dialog.text


def test_smaller_context_is_planned_and_asked_for(signed_in: Client, tiny: ModelDefinition) -> None:
    dialog = signed_in.get(f"/admin/models/{tiny.pk}/switch/?context=2048", headers=HTMX)
    assert 'name="context" value="2048"' in dialog.text
    signed_in.post(f"/admin/models/{tiny.pk}/switch/", {"context": "2048"}, headers=HTMX)
    assert SwitchJob.objects.get().options == {"context": 2048}


@pytest.mark.parametrize("context", ["many", "-5", "1e9", "٤٠٩٦", "12", "9" * 30])
def test_context_that_is_no_number_of_tokens_is_told(signed_in: Client, tiny: ModelDefinition, context: str) -> None:
    answer = signed_in.post(f"/admin/models/{tiny.pk}/switch/", {"context": context}, headers=HTMX)
    assert answer.status_code == 422
    assert "context" in answer.text
    assert SwitchJob.objects.count() == 0


def test_unpinning_is_offered_only_to_those_who_may(client: Client, active: ModelDefinition) -> None:
    other = make_model(active.runtime, name="Other", size_bytes=500 * MB)
    client.force_login(staff("oli", "view_modeldefinition", "switch_model"))
    assert "unpinned" not in client.get(f"/admin/models/{other.pk}/switch/", headers=HTMX).text
    answer = client.post(f"/admin/models/{other.pk}/switch/", {"unpin": "small"}, headers=HTMX)
    assert answer.status_code == 403
    active.refresh_from_db()
    assert active.is_pinned


def test_where_switches_unload_nothing_the_dialog_says_what_to_unload(
    signed_in: Client, active: ModelDefinition
) -> None:
    SwitchPolicy(auto_unload=False).save()
    active.is_pinned = False
    active.save()
    other = make_model(active.runtime, name="Other", size_bytes=500 * MB)
    dialog = signed_in.get(f"/admin/models/{other.pk}/switch/", headers=HTMX)
    assert "Unload Small first" in dialog.text
    assert f"/admin/models/{active.pk}/unload/" in dialog.text


def test_each_device_has_a_bar_of_its_own(signed_in: Client, active: ModelDefinition) -> None:
    pool = active.runtime.pool
    pool.devices = [
        {"id": "GPU-a", "name": "First card", "total_bytes": 10**9, "free_bytes": 4 * 10**8, "held_bytes": 6 * 10**8},
        {"id": "GPU-b", "name": "Second card", "total_bytes": 2 * 10**9, "free_bytes": 2 * 10**9, "held_bytes": 0},
    ]
    pool.save()
    active.instances.update(held_on={"GPU-a": 600 * MB})
    page = signed_in.get("/admin/models/").text
    assert page.index("First card") < page.index("Small: 0.6 GB") < page.index("Second card")
    assert page.count('class="g-memory-bar"') == 2


def test_expected_times_show_how_far_off_they_were(signed_in: Client, active: ModelDefinition) -> None:
    now = timezone.now()
    for took in (8, 10):
        make_job(
            active.runtime.pool,
            active,
            state="succeeded",
            expected_seconds=10.0,
            started_at=now - timedelta(seconds=took),
            finished_at=now,
        )
    LoadRecord.objects.create(
        model=active,
        host="local",
        held_bytes=1,
        file_bytes=1,
        load_seconds=5,
        expected_seconds=4,
        at_quarter_seconds=5.5,
    )
    page = signed_in.get("/admin/switches/times/").text
    assert "the last 2 jobs" in page
    assert "Small: expected 10 s, took 8 s" in page
    assert "<strong>13 %</strong>" in page  # the median of 25 % and none
    assert "20 %" in page
    assert "10 %" in page


def test_expected_times_without_any_job_say_what_will_be_there(signed_in: Client) -> None:
    assert "After the first switch this page shows" in signed_in.get("/admin/switches/times/").text


def test_expected_times_are_for_those_who_may_see_switches(client: Client, db: None) -> None:
    client.force_login(staff("oli", "view_modeldefinition"))
    assert client.get("/admin/switches/times/").status_code == 403


def test_people_who_use_a_model_are_counted_before_it_is_unloaded(
    signed_in: Client, active: ModelDefinition, admin_person: User, member: User
) -> None:
    for person in (admin_person, member, member):
        note_use(active.model_id, person.pk)
    ModelUse.objects.filter(user=admin_person).update(at=timezone.now() - timedelta(minutes=6))
    dialog = signed_in.get(f"/admin/models/{active.pk}/unload/", headers=HTMX)
    assert "1 person used it in the last 5 minutes." in dialog.text
    note_use(active.model_id, admin_person.pk)
    assert "2 people use it" in " ".join(signed_in.get("/admin/models/").text.split())
