"""The Models tab as people see it."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from models_admin.models import LoadRecord, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_model
from tests.functional.admin_world import MB, ended_job, load, loading_job, staff

TAB = "/admin/models/"


@pytest.fixture
def small(null_runtime: Runtime) -> ModelDefinition:
    """Active."""
    model = make_model(null_runtime, model_id="small", name="Small", size_bytes=500 * MB, tags=["chat", "fast"])
    load(model, is_active=True, busy_count=2)
    return model


@pytest.fixture
def other(null_runtime: Runtime) -> ModelDefinition:
    """Idle."""
    return make_model(
        null_runtime,
        model_id="other",
        name="Other",
        size_bytes=4_700 * MB,
        quantization="Q4_K_M",
        parameter_label="7B",
        context_length=32768,
        description="Writes code.",
        tags=["coding"],
        last_used_at=timezone.now() - timedelta(minutes=5),
    )


def row(page: str, model: ModelDefinition) -> str:
    """The HTML of a model's row."""
    match = re.search(rf'<tr id="model-row-{model.pk}".*?</tr>', page, re.DOTALL)
    assert match, f"no row for {model}"
    return match[0]


def names(page: str) -> list[str]:
    """Ids of the models that are shown, in order."""
    rows = re.findall(r'<tr id="model-row-.*?>', page, re.DOTALL)
    return [re.search(r'data-model="([^"]+)"', tag)[1] for tag in rows if not re.search(r"\shidden\b", tag)]  # type: ignore[index]


def get(client: Client, user: User, address: str = TAB) -> str:
    client.force_login(user)
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def test_admin_index_leads_to_the_tab(client: Client, admin_person: User) -> None:
    client.force_login(admin_person)

    assert client.get("/admin/").headers["Location"] == TAB


def test_model_of_unknown_memory_is_named_beside_the_bar(
    client: Client, admin_person: User, other: ModelDefinition
) -> None:
    load(other, held_bytes=0)
    words = f"Without {other.name}: how much memory that takes is not known."

    assert words in get(client, admin_person)
    ModelInstance.objects.update(held_bytes=5_000_000)
    assert words not in get(client, admin_person)


def test_people_who_are_not_staff_are_sent_to_sign_in(client: Client, member: User) -> None:
    client.force_login(member)

    assert client.get(TAB).headers["Location"].startswith("/admin/login/")


def test_staff_without_the_permission_are_refused_and_keep_the_index(client: Client, db: None) -> None:
    client.force_login(staff("eve"))

    assert client.get(TAB).status_code == 403
    assert client.get("/admin/").status_code == 200


def test_each_model_stands_with_its_facts(client: Client, admin_person: User, other: ModelDefinition) -> None:
    LoadRecord.objects.create(model=other, held_bytes=1, file_bytes=1, load_seconds=12.0, expected_seconds=10.0)

    html = row(get(client, admin_person), other)

    for fact in ("Other", "Writes code.", "4.7 GB", "Q4_K_M", "7B", "32k", "coding", "12 s", "5 min ago"):
        assert fact in html


def test_active_model_is_marked_with_sign_and_word_and_its_answers(
    client: Client, admin_person: User, small: ModelDefinition
) -> None:
    html = row(get(client, admin_person), small)

    assert "g-row--active" in html
    assert "Active" in html
    assert "2 answers running" in html
    assert f"/admin/models/{small.pk}/unload/" in html
    assert f"/admin/models/{small.pk}/restart/" in html
    assert f"/admin/models/{small.pk}/switch/" not in html


def test_idle_model_has_no_state_word_and_can_be_switched_to(
    client: Client, admin_person: User, other: ModelDefinition
) -> None:
    html = row(get(client, admin_person), other)

    assert "g-state" not in html
    assert f"/admin/models/{other.pk}/switch/" in html


def test_model_without_its_file_is_told_so_and_offers_no_switch(
    client: Client, admin_person: User, null_runtime: Runtime
) -> None:
    gone = make_model(null_runtime, is_available=False)

    html = row(get(client, admin_person), gone)

    assert "Not downloaded" in html
    assert f"/admin/models/{gone.pk}/switch/" not in html


def test_failed_model_tells_its_cause_on_a_click(client: Client, admin_person: User, null_runtime: Runtime) -> None:
    failed = make_model(null_runtime, last_error_code="out_of_memory", last_error_text="It ran out of memory at 3 GB.")

    html = row(get(client, admin_person), failed)

    assert "Failed: out of memory" in html
    assert "It ran out of memory at 3 GB." in html


def test_crashed_model_offers_restart(client: Client, admin_person: User, null_runtime: Runtime) -> None:
    crashed = make_model(null_runtime)
    load(crashed, state="crashed", error_code="killed", exit_text="killed by signal 9")

    html = row(get(client, admin_person), crashed)

    assert "Crashed: killed" in html
    assert "killed by signal 9" in html
    assert f"/admin/models/{crashed.pk}/restart/" in html


def test_somebody_who_may_only_look_gets_no_buttons(client: Client, small: ModelDefinition) -> None:
    page = get(client, staff("eve", "view_modeldefinition"))

    assert "/unload/" not in page
    assert "/pin/" not in page
    assert "/change/" not in page


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ["other", "small"]),
        ("?q=WRITES+code", ["other"]),
        ("?q=nothing", []),
        ("?tag=fast", ["small"]),
        ("?state=loaded", ["small"]),
        ("?state=idle", ["other"]),
        ("?state=bogus&sort=bogus", ["other", "small"]),
        ("?sort=size", ["small", "other"]),
        ("?sort=-size", ["other", "small"]),
        ("?sort=-name", ["small", "other"]),
    ],
)
def test_list_narrows_and_sorts_without_script(
    client: Client, admin_person: User, small: ModelDefinition, other: ModelDefinition, query: str, shown: list[str]
) -> None:
    assert names(get(client, admin_person, TAB + query)) == shown


def test_memory_and_runtime_are_told_in_figures(client: Client, admin_person: User, small: ModelDefinition) -> None:
    pool = small.runtime.pool
    pool.held_bytes, pool.free_bytes, pool.checked_at = 500 * MB, 400 * MB, timezone.now()
    pool.save()

    page = get(client, admin_person)

    memory = page[page.index('id="memory"') : page.index('id="switch-panel"')]
    for words in ("Small", "0.5 GB", "Other programs", "0.2 GB", "Free", "0.4 GB", "1.1 GB used", "null"):
        assert words in memory


def test_without_models_the_three_ways_in_are_shown(client: Client, admin_person: User, null_runtime: Runtime) -> None:
    page = get(client, admin_person)

    assert "There are no models yet" in page
    for address in ("/admin/models/import/folder/", "/admin/models/import/", "/modeldefinition/add/"):
        assert address in page


def test_running_job_shows_steps_bytes_and_time_left(
    client: Client, admin_person: User, small: ModelDefinition, other: ModelDefinition
) -> None:
    loading_job(other, admin_person)

    page = get(client, admin_person)

    for words in ("Switching from Small to Other", "52 %", "106 of 253 MB", "about 7 s left", "Load Other", "Cancel"):
        assert words in page
    assert "Loading 52 %" in row(page, other)


def test_running_job_past_its_estimate_says_so(client: Client, admin_person: User, other: ModelDefinition) -> None:
    loading_job(other, admin_person, expected_seconds=2.0)

    assert "taking longer than usual (usually 2 s)" in get(client, admin_person)


def test_only_the_one_who_asked_or_may_cancel_any_sees_cancel(
    client: Client, admin_person: User, other: ModelDefinition
) -> None:
    eve = staff("eve", "view_modeldefinition", "switch_model")
    job = loading_job(other, admin_person)

    assert f"cancel-job-{job.pk}" not in get(client, eve)

    SwitchJob.objects.filter(pk=job.pk).update(requested_by=eve, requested_by_name="eve")
    assert f"cancel-job-{job.pk}" in get(client, eve)


def test_good_end_leaves_a_quiet_line_for_an_hour(client: Client, admin_person: User, small: ModelDefinition) -> None:
    job = ended_job(small, admin_person, "succeeded")
    assert "Small is active. Took 4 s (expected 3 s)." in get(client, admin_person)

    job.delete()
    ended_job(small, admin_person, "succeeded", seconds_ago=7200)
    assert "Small is active. Took" not in get(client, admin_person)


def test_failure_tells_cause_aftermath_and_next_steps(
    client: Client, admin_person: User, other: ModelDefinition
) -> None:
    job = ended_job(other, admin_person, "failed", error_code="out_of_memory", aftermath="Small was put back.")

    page = get(client, admin_person)

    for words in ("The switch to Other failed after 4 s.", "ran out of memory", "Small was put back.", "Try again"):
        assert words in page
    assert f'href="/admin/switches/{job.pk}/"' in page


def test_names_are_escaped_everywhere(client: Client, admin_person: User, null_runtime: Runtime) -> None:
    bad = make_model(null_runtime, name="<script>alert(1)</script>", description='"><img src=x>', tags=["<b>"])
    loading_job(bad, admin_person)

    page = get(client, admin_person)

    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<b>" not in page
