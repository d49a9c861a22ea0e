"""What Gantry does by itself: unload what nobody uses, load at start."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.utils import timezone

from gantry.chat import sending
from gantry.chat.generation import Writer
from gantry.chat.models import Message
from gantry.planning.states import JobKind, JobState
from gantry.runtimes.null import NullWorld
from models_admin import actions, recovery, running, tasks, upkeep, usage
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob, SwitchPolicy
from tests.factories import make_job, make_model
from tests.fakes.openai_server import OpenAIServer, openai_server
from tests.functional import chat_world

pytestmark = pytest.mark.django_db(transaction=True)

HOUR_AGO = timedelta(hours=1)


@pytest.fixture
def idle(small: ModelDefinition, admin_person: User, world: NullWorld) -> ModelDefinition:
    """Active, and for an hour nobody has used it, of the half that it may be idle."""
    serve(small, admin_person)
    long_ago = timezone.now() - HOUR_AGO
    ModelDefinition.objects.filter(pk=small.pk).update(idle_minutes=30, last_used_at=long_ago)
    ModelInstance.objects.update(loaded_at=long_ago)
    small.refresh_from_db()
    return small


def serve(model: ModelDefinition, user: User) -> None:
    job = actions.request_switch(model, actor=Actor(user, "page")).job
    assert job is not None
    running.run_job(job.pk)


def run(job: SwitchJob | None) -> SwitchJob:
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    return job


def at_start(value: SwitchPolicy.AtStart, default: ModelDefinition | None = None) -> None:
    SwitchPolicy(load_at_start=value, default_model=default).save()


# Idle


def test_idle_model_is_unloaded_by_the_system(idle: ModelDefinition) -> None:
    [job] = upkeep.keep_up("local")
    assert (run(job).kind, job.via, job.state) == (JobKind.UNLOAD, "system", JobState.SUCCEEDED)
    assert not ModelInstance.objects.exists()
    assert job.events.filter(text="Small was not used for 30 min and is unloaded").exists()
    entries = AuditEntry.objects.filter(job=job).order_by("id")
    assert [(entry.event, entry.actor_name) for entry in entries] == [
        (AuditEvent.UNLOAD_REQUEST, "system"),
        (AuditEvent.JOB_END, "system"),
    ]
    assert upkeep.keep_up("local") == []


@pytest.mark.parametrize(
    "changes",
    [
        {"idle_minutes": None},
        {"idle_minutes": 90},
        {"is_pinned": True},
    ],
)
def test_model_that_may_stay_stays(idle: ModelDefinition, changes: dict[str, object]) -> None:
    ModelDefinition.objects.filter(pk=idle.pk).update(**changes)
    assert upkeep.keep_up("local") == []


def test_model_that_was_used_lately_stays(idle: ModelDefinition) -> None:
    usage.note_use(idle.model_id)
    assert upkeep.keep_up("local") == []


def test_model_that_was_loaded_lately_stays(idle: ModelDefinition) -> None:
    ModelInstance.objects.update(loaded_at=timezone.now())
    assert upkeep.keep_up("local") == []


def test_model_that_answers_now_is_in_use(idle: ModelDefinition, world: NullWorld) -> None:
    """Whoever asks it, also past Gantry."""
    world.busy["small"] = 1
    recovery.reconcile_host("local")
    assert upkeep.keep_up("local") == []
    world.busy["small"] = 0
    recovery.reconcile_host("local")
    idle.refresh_from_db()
    assert idle.last_used_at is not None
    assert timezone.now() - idle.last_used_at < HOUR_AGO / 2
    assert upkeep.keep_up("local") == []


def test_nothing_is_begun_while_a_job_is_unfinished(
    idle: ModelDefinition, other: ModelDefinition, pool: MemoryPool
) -> None:
    make_job(pool, other)
    assert upkeep.keep_up("local") == []


def test_idle_models_go_one_after_the_other_the_longest_idle_first(
    idle: ModelDefinition, null_runtime: Runtime, admin_person: User, world: NullWorld
) -> None:
    world.memory["tiny"] = 1000
    tiny = make_model(null_runtime, model_id="tiny", size_bytes=1000, idle_minutes=1)
    serve(tiny, admin_person)
    long_ago = timezone.now() - 2 * HOUR_AGO
    ModelDefinition.objects.filter(pk=tiny.pk).update(last_used_at=long_ago)
    ModelInstance.objects.filter(model=tiny).update(loaded_at=long_ago, created_at=long_ago)
    [first] = upkeep.keep_up("local")
    assert run(first).target == tiny
    [second] = upkeep.keep_up("local")
    assert second.target == idle


async def test_answer_in_the_chat_counts_as_use(null_runtime: Runtime, outsider: User) -> None:
    async with openai_server() as fake:
        answer = await sync_to_async(_ask)(null_runtime, outsider, fake)
        model = await ModelDefinition.objects.aget(model_id=answer.model_id)
        assert model.last_used_at is None
        await Writer(answer).run()
    await model.arefresh_from_db()
    assert model.last_used_at is not None


def _ask(runtime: Runtime, user: User, fake: OpenAIServer) -> Message:
    chat_world.serve(runtime, fake.base_url)
    return sending.ask(user, None, "Say hello")


def test_use_is_written_at_most_once_a_minute(small: ModelDefinition) -> None:
    usage.note_use("small")
    small.refresh_from_db()
    first = small.last_used_at
    usage.note_use("small")
    small.refresh_from_db()
    assert first is not None
    assert small.last_used_at == first


# At start


def test_model_that_served_last_is_loaded_at_start(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(other, admin_person)
    serve(small, admin_person)
    run(actions.request_unload(small, actor=Actor(admin_person, "page")).job)
    at_start(SwitchPolicy.AtStart.LAST)
    job = run(upkeep.load_at_start("local"))
    assert (job.kind, job.target, job.via, job.state) == (JobKind.SWITCH, small, "system", JobState.SUCCEEDED)
    assert job.events.filter(text="Gantry has started: Small is loaded, as the policy says").exists()
    assert upkeep.load_at_start("local") is None


def test_default_model_is_loaded_at_start(small: ModelDefinition, other: ModelDefinition) -> None:
    at_start(SwitchPolicy.AtStart.DEFAULT, other)
    assert run(upkeep.load_at_start("local")).target == other


def test_models_that_a_reboot_ended_make_way(small: ModelDefinition, admin_person: User, world: NullWorld) -> None:
    """After a reboot the records tell of processes that are gone."""
    serve(small, admin_person)
    [instance] = world.instances
    world.crash(instance)
    recovery.reconcile_host("local")
    at_start(SwitchPolicy.AtStart.LAST)
    assert run(upkeep.load_at_start("local")).state == JobState.SUCCEEDED


def test_nothing_is_loaded_at_start_unless_policy_says_so(small: ModelDefinition, admin_person: User) -> None:
    make_job(small.runtime.pool, small, state=JobState.SUCCEEDED, finished_at=timezone.now())
    assert upkeep.load_at_start("local") is None


def test_nothing_is_loaded_at_start_when_nothing_ever_served(small: ModelDefinition) -> None:
    at_start(SwitchPolicy.AtStart.LAST)
    assert upkeep.load_at_start("local") is None
    at_start(SwitchPolicy.AtStart.DEFAULT)
    assert upkeep.load_at_start("local") is None


def test_nothing_is_loaded_at_start_beside_what_is_there(
    small: ModelDefinition, other: ModelDefinition, pool: MemoryPool, admin_person: User, world: NullWorld
) -> None:
    at_start(SwitchPolicy.AtStart.DEFAULT, other)
    waiting = make_job(pool, small)
    assert upkeep.load_at_start("local") is None
    run(waiting)
    assert upkeep.load_at_start("local") is None


def test_worker_that_starts_looks_first_and_loads_nothing_beside_what_still_runs(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(small, admin_person)
    ModelInstance.objects.all().delete()  # the record is lost, the model runs on
    at_start(SwitchPolicy.AtStart.DEFAULT, other)
    tasks.start_host("local")
    assert ModelInstance.objects.get(is_active=True).model == small
    assert not SwitchJob.objects.unfinished().exists()


def test_worker_that_starts_with_nothing_loaded_loads_what_policy_says(other: ModelDefinition) -> None:
    at_start(SwitchPolicy.AtStart.DEFAULT, other)
    tasks.start_host("local")
    assert run(SwitchJob.objects.unfinished().get()).state == JobState.SUCCEEDED


def test_start_of_another_host_loads_nothing(other: ModelDefinition) -> None:
    at_start(SwitchPolicy.AtStart.DEFAULT, other)
    assert upkeep.load_at_start("elsewhere") is None


def test_paused_model_is_not_loaded_at_start(other: ModelDefinition) -> None:
    at_start(SwitchPolicy.AtStart.DEFAULT, other)
    ModelDefinition.objects.update(paused_until=timezone.now() + timedelta(minutes=1))
    assert upkeep.load_at_start("local") is None


def test_model_that_cannot_be_loaded_at_start_is_left(other: ModelDefinition) -> None:
    at_start(SwitchPolicy.AtStart.DEFAULT, other)
    ModelDefinition.objects.update(is_available=False)
    assert upkeep.load_at_start("local") is None
    assert not SwitchJob.objects.exists()
