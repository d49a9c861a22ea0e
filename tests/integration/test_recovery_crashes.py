"""Crashes are counted; a model that keeps crashing is paused, for longer each time."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.template.loader import render_to_string
from django.utils import timezone

from gantry.planning.states import InstanceState, JobKind, JobState, ModelState
from gantry.runtimes.null import Failure, NullWorld, null_world
from models_admin import actions, crashes, overview, recovery, running, upkeep
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.audit_words import audit_sentence
from models_admin.model_list import STATE_GROUPS
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob, SwitchPolicy
from tests.conftest import GIB
from tests.factories import make_model

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


@pytest.fixture
def tiny(null_runtime: Runtime, world: NullWorld) -> ModelDefinition:
    """Fits beside any other."""
    world.memory["tiny"] = 1000
    return make_model(null_runtime, model_id="tiny", name="Tiny", size_bytes=1000)


@pytest.fixture
def elsewhere(world: NullWorld) -> ModelDefinition:
    """A model of another host."""
    pool = MemoryPool.objects.create(host="elsewhere", kind="fixed", total_bytes=GIB, free_bytes=GIB)
    runtime = Runtime.objects.create(name="null elsewhere", kind="null", pool=pool, is_healthy=True)
    return make_model(runtime, model_id="elsewhere", name="Elsewhere", size_bytes=1000)


def run(job: SwitchJob | None) -> SwitchJob:
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    return job


def serve(model: ModelDefinition, user: User) -> None:
    run(actions.request_switch(model, actor=Actor(user, "page")).job)


def fall_back_to(
    default: ModelDefinition, former: ModelDefinition, target: ModelDefinition, user: User, world: NullWorld
) -> None:
    """A switch that fails, and what it had unloaded does not come back: the default model serves, which nobody switched to."""
    SwitchPolicy(restart_crashed=True, default_model=default).save()
    serve(former, user)
    world.failures |= {model.model_id: Failure() for model in (former, target)}
    serve(target, user)
    assert ModelInstance.objects.get(is_active=True).model == default


def crash(model: ModelDefinition, world: NullWorld) -> None:
    """Its process dies, and the worker of its host looks."""
    world.crash(str(ModelInstance.objects.get(model=model).instance_id))
    recovery.reconcile_host(model.runtime.pool.host)
    model.refresh_from_db()


def row_of(model: ModelDefinition) -> overview.ModelRow:
    [row] = overview.model_rows(None, model_ids=[model.model_id])
    return row


def keep_up(host: str = "local") -> SwitchJob | None:
    """What is due is done; the job that did it."""
    jobs = [run(job) for job in upkeep.keep_up(host)]
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
    small: ModelDefinition, tiny: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(tiny, admin_person)
    serve(small, admin_person)  # which leaves the other one loaded beside it
    crash(tiny, world)
    assert keep_up() is None
    run(actions.request_unload(small, actor=Actor(admin_person, "page")).job)
    assert not ModelInstance.objects.filter(is_active=True).exists()
    assert keep_up() is None  # also now that nothing serves: somebody wanted that


@pytest.mark.usefixtures("restarting")
def test_default_model_that_served_instead_of_what_was_lost_is_restarted(
    small: ModelDefinition, other: ModelDefinition, tiny: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    fall_back_to(tiny, small, other, admin_person, world)
    crash(tiny, world)
    job = keep_up()
    assert job is not None
    assert (job.kind, job.target, job.via, job.state) == (JobKind.RESTART, tiny, "system", JobState.SUCCEEDED)
    assert row_of(tiny).state == ModelState.ACTIVE


@pytest.mark.usefixtures("restarting")
def test_default_model_that_keeps_crashing_is_paused_like_any_other(
    small: ModelDefinition, other: ModelDefinition, tiny: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    fall_back_to(tiny, small, other, admin_person, world)
    crash_three_times(tiny, world)
    assert row_of(tiny).state == ModelState.PAUSED
    assert keep_up() is None


@pytest.mark.usefixtures("restarting")
def test_what_served_when_it_died_is_restarted_and_not_what_somebody_last_switched_to(
    small: ModelDefinition, other: ModelDefinition, tiny: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    """The one that was lost is loaded again in the background, beside the default model that serves; then both die."""
    fall_back_to(tiny, small, other, admin_person, world)
    world.failures.clear()
    run(actions.request_preload(small, actor=Actor(admin_person, "page")).job)
    crash(tiny, world)
    crash(small, world)
    job = keep_up()
    assert job is not None
    assert job.target == tiny


@pytest.mark.usefixtures("restarting")
def test_model_is_not_restarted_once_another_one_has_served(
    small: ModelDefinition, elsewhere: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    """Also when that one is gone again because somebody wanted it to be."""
    serve(small, admin_person)
    crash(small, world)
    serve(elsewhere, admin_person)
    run(actions.request_unload(elsewhere, actor=Actor(admin_person, "page")).job)
    assert row_of(small).state == ModelState.CRASHED
    assert (keep_up(), keep_up("elsewhere")) == (None, None)


@pytest.mark.usefixtures("restarting")
def test_only_the_last_of_two_that_died_while_they_served_is_restarted(
    small: ModelDefinition, elsewhere: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(small, admin_person)
    crash(small, world)
    serve(elsewhere, admin_person)
    crash(elsewhere, null_world(settings.RUNTIME_DIR / f"null-{elsewhere.runtime_id}"))
    assert keep_up() is None
    job = keep_up("elsewhere")
    assert job is not None
    assert job.target == elsewhere
    assert row_of(small).state == ModelState.CRASHED


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
