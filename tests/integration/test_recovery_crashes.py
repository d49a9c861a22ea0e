"""Crashes are counted; a model that keeps crashing is paused, for longer each time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.utils import timezone

from gantry.planning.states import InstanceState, JobKind, JobState, ModelState
from gantry.runtimes.null import NullWorld
from models_admin import actions, crashes, overview, recovery, running, upkeep
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.audit_words import audit_sentence
from models_admin.model_list import STATE_GROUPS
from models_admin.models import AuditEntry, ModelDefinition, ModelInstance, SwitchJob, SwitchPolicy

pytestmark = pytest.mark.django_db(transaction=True)

MINUTE = 60.0


def burst(at: float) -> list[float]:
    """Three crashes, the last one at this time."""
    return [at - 20, at - 10, at]


@pytest.mark.parametrize(
    ("times", "minutes"),
    [
        ([], 0),
        ([1000, 1010], 0),
        (burst(1000), 5),
        ([1000, 1200, 1301], 0),  # the first is more than five minutes before the last
        ([*burst(1000), 1010], 0),  # counted anew: somebody started it while it was paused
        ([*burst(1000), *burst(1600)], 10),
        ([*burst(1000), *burst(1600), *burst(2500)], 20),
        ([at for n in range(6) for at in burst(1000 + n * 61 * MINUTE)], 60),  # right after the longest pause
        ([*burst(1000), *burst(1000 + 66 * MINUTE)], 5),  # an hour without trouble after the pause
    ],
)
def test_pause_grows_while_the_trouble_goes_on(times: list[float], minutes: float) -> None:
    assert crashes.pause_seconds(times) == minutes * MINUTE


@pytest.fixture
def restarting(db: None) -> None:
    """Policy has crashed models restarted."""
    SwitchPolicy(restart_crashed=True).save()


def serve(model: ModelDefinition, user: User) -> None:
    job = actions.request_switch(model, actor=Actor(user, "page")).job
    assert job is not None
    running.run_job(job.pk)


def crash(model: ModelDefinition, world: NullWorld) -> None:
    """Its process dies, and the worker looks."""
    world.crash(str(ModelInstance.objects.get(model=model).instance_id))
    recovery.reconcile_host("local")
    model.refresh_from_db()


def row_of(model: ModelDefinition) -> overview.ModelRow:
    [row] = overview.model_rows(None, model_ids=[model.model_id])
    return row


def keep_up() -> SwitchJob | None:
    """What is due is done; the job that did it."""
    jobs = upkeep.keep_up("local")
    for job in jobs:
        running.run_job(job.pk)
        job.refresh_from_db()
    return jobs[0] if jobs else None


def crash_three_times(model: ModelDefinition, world: NullWorld) -> None:
    for _ in range(2):
        crash(model, world)
        keep_up()
    crash(model, world)


@pytest.mark.usefixtures("restarting")
def test_crashed_active_model_is_restarted_by_the_system(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(small, admin_person)
    crash(small, world)
    job = keep_up()
    assert job is not None
    assert (job.kind, job.via, job.state) == (JobKind.RESTART, "system", JobState.SUCCEEDED)
    assert job.events.filter(text__contains="has crashed and is loaded again").exists()
    assert row_of(small).state == ModelState.ACTIVE
    small.refresh_from_db()
    assert len(small.crash_times) == 1  # a restart of our own forgives nothing
    assert keep_up() is None


def test_crashed_model_stays_down_unless_policy_says_otherwise(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(small, admin_person)
    crash(small, world)
    assert keep_up() is None


@pytest.mark.usefixtures("restarting")
def test_model_that_did_not_serve_is_not_restarted(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    world.memory["small"] = 1000
    serve(small, admin_person)
    job = SwitchJob.objects.get()
    SwitchJob.objects.filter(pk=job.pk).update(target=None)  # the one that served is another one, deleted since
    crash(small, world)
    assert keep_up() is None


@pytest.mark.usefixtures("restarting")
def test_third_crash_in_five_minutes_pauses_the_model(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(small, admin_person)
    before = timezone.now()
    crash_three_times(small, world)
    assert small.paused_until is not None
    assert timedelta(minutes=5) <= small.paused_until - before < timedelta(minutes=6)
    assert keep_up() is None
    entry = AuditEntry.objects.get(event=AuditEvent.MODEL_PAUSE)
    assert audit_sentence(entry) == "Gantry paused Small, which keeps crashing"
    row = row_of(small)
    clock = timezone.localtime(small.paused_until).strftime("%H:%M")
    assert (row.state, row.words) == (ModelState.PAUSED, f"Keeps crashing, paused until {clock}")
    assert (row.can_restart, row.can_switch, row.can_unload, row.can_preload) == (True, True, True, False)


@pytest.mark.usefixtures("restarting")
def test_pause_that_is_over_is_followed_by_another_try(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(small, admin_person)
    crash_three_times(small, world)
    ModelDefinition.objects.filter(pk=small.pk).update(paused_until=timezone.now())
    recovery.reconcile_host("local")
    small.refresh_from_db()
    assert small.paused_until is None
    assert row_of(small).state == ModelState.CRASHED
    assert keep_up() is not None
    assert row_of(small).state == ModelState.ACTIVE


@pytest.mark.usefixtures("restarting")
@pytest.mark.parametrize("kind", ["restart", "switch"])
def test_person_who_starts_a_paused_model_ends_the_pause(
    small: ModelDefinition, admin_person: User, world: NullWorld, kind: str
) -> None:
    serve(small, admin_person)
    crash_three_times(small, world)
    ask = {"restart": actions.request_restart, "switch": actions.request_switch}[kind]
    job = ask(small, actor=Actor(admin_person, "page")).job
    assert job is not None
    running.run_job(job.pk)
    small.refresh_from_db()
    assert (small.paused_until, small.crash_times) == (None, [])
    assert row_of(small).state == ModelState.ACTIVE


def test_pause_is_shown_by_sign_and_time_and_found_among_the_failed(small: ModelDefinition) -> None:
    ModelDefinition.objects.filter(pk=small.pk).update(paused_until=timezone.now() + timedelta(minutes=5))
    row = row_of(small)
    html = render_to_string("inc/_state.html", {"row": row})
    assert "g-state--paused" in html
    assert "Keeps crashing, paused until <time datetime=" in html
    assert "data-clock-minutes" in html
    assert row.state in STATE_GROUPS["failed"][1]


def test_crash_of_a_model_is_counted_once(small: ModelDefinition, admin_person: User, world: NullWorld) -> None:
    serve(small, admin_person)
    crash(small, world)
    record = ModelInstance.objects.get()
    assert not crashes.note_crash(record, None)
    recovery.reconcile_host("local")
    small.refresh_from_db()
    assert len(small.crash_times) == 1
    assert ModelInstance.objects.get().state == InstanceState.CRASHED
