"""What an interrupted job had taken away comes back: all of it, once."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from gantry.planning.states import InstanceState, JobKind, JobState
from gantry.runtimes.null import NullWorld
from models_admin import actions, job_requests, recovery, running
from models_admin.actor import Actor
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.integration.conftest import MB

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tiny(null_runtime: Runtime, world: NullWorld) -> ModelDefinition:
    """Takes 50 MB: fits beside any."""
    world.memory["tiny"] = 50 * MB
    return make_model(null_runtime, model_id="tiny", name="Tiny", size_bytes=40 * MB)


def entry(model: ModelDefinition, *, was_active: bool = False) -> dict[str, object]:
    return {"model_id": model.model_id, "name": model.name, "was_active": was_active}


def dead_job(pool: MemoryPool, target: ModelDefinition | None, *owed: dict[str, object], **fields: object) -> SwitchJob:
    """A job whose worker died after it had unloaded these."""
    long_ago = timezone.now() - timedelta(minutes=1)
    return make_job(
        pool, target, **{"state": JobState.LOADING, "unloaded": list(owed), "heartbeat_at": long_ago, **fields}
    )


def hold(model: ModelDefinition, world: NullWorld, *, is_active: bool) -> ModelInstance:
    """The model is loaded, in the records and in reality."""
    job = actions.request_switch(model, actor=Actor(None, "command")).job
    assert job is not None
    running.run_job(job.pk)
    ModelInstance.objects.filter(model=model).update(is_active=is_active)
    return ModelInstance.objects.get(model=model)


def run_all() -> list[SwitchJob]:
    """Run the jobs that wait, in their order, as the worker would."""
    jobs = list(SwitchJob.objects.waiting().order_by("id"))
    for job in jobs:
        running.run_job(job.pk)
        job.refresh_from_db()
    return jobs


def active() -> str:
    return str(ModelInstance.objects.filter(is_active=True).values_list("model__model_id", flat=True).first() or "")


def test_all_models_of_an_interrupted_job_come_back(
    small: ModelDefinition, tiny: ModelDefinition, other: ModelDefinition, pool: MemoryPool, world: NullWorld
) -> None:
    dead = dead_job(pool, other, entry(tiny), entry(small, was_active=True))
    report = recovery.reconcile_host("local")
    assert report is not None
    assert report.jobs_ended == [f"switch Other #{dead.pk}"]
    jobs = run_all()
    assert [(job.kind, job.target, job.via) for job in jobs] == [
        (JobKind.SWITCH, small, "system"),
        (JobKind.PRELOAD, tiny, "system"),
    ]
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}
    assert (active(), ModelInstance.objects.count()) == ("small", 2)
    dead.refresh_from_db()
    assert dead.state == JobState.INTERRUPTED
    assert dead.aftermath == f"Small and Tiny are being put back by jobs {jobs[0].pk} and {jobs[1].pk}."


def test_model_that_did_not_serve_comes_back_in_the_background(
    small: ModelDefinition, tiny: ModelDefinition, other: ModelDefinition, pool: MemoryPool, world: NullWorld
) -> None:
    hold(small, world, is_active=True)
    dead_job(pool, other, entry(tiny))
    recovery.reconcile_host("local")
    [job] = run_all()
    assert (job.kind, job.target, job.state) == (JobKind.PRELOAD, tiny, JobState.SUCCEEDED)
    assert active() == "small"


def test_nothing_comes_back_when_the_target_serves_already(
    small: ModelDefinition, tiny: ModelDefinition, pool: MemoryPool, world: NullWorld
) -> None:
    hold(tiny, world, is_active=True)
    dead_job(pool, tiny, entry(small, was_active=True), state=JobState.WARMING)
    recovery.reconcile_host("local")
    assert run_all() == []
    assert active() == "tiny"


def test_what_was_to_be_unloaded_stays_so(small: ModelDefinition, pool: MemoryPool, world: NullWorld) -> None:
    dead_job(pool, None, entry(small, was_active=True), kind=JobKind.UNLOAD_ALL, state=JobState.UNLOADING)
    recovery.reconcile_host("local")
    assert run_all() == []


def test_interrupted_restart_is_finished(small: ModelDefinition, pool: MemoryPool, world: NullWorld) -> None:
    """Its target is what it took away itself."""
    dead_job(pool, small, kind=JobKind.RESTART)
    ModelInstance.objects.create(
        instance_id=uuid.uuid4(), model=small, runtime=small.runtime, state=InstanceState.LOADING
    )
    recovery.reconcile_host("local")
    [job] = run_all()
    assert (job.kind, job.state, active()) == (JobKind.SWITCH, JobState.SUCCEEDED, "small")


def test_person_who_asks_meanwhile_takes_over_what_is_owed(
    small: ModelDefinition,
    tiny: ModelDefinition,
    other: ModelDefinition,
    pool: MemoryPool,
    admin_person: User,
    world: NullWorld,
) -> None:
    dead_job(pool, other, entry(tiny), entry(small, was_active=True))
    recovery.reconcile_host("local")
    back, beside = SwitchJob.objects.waiting().order_by("id")
    asked = actions.request_switch(other, actor=Actor(admin_person, "page")).job
    for job in (back, beside):
        job.refresh_from_db()
        assert (job.state, job.superseded_by) == (JobState.SUPERSEDED, asked)
    assert asked is not None
    assert {entry["model_id"] for earlier in asked.supersedes.all() for entry in earlier.unloaded} == {"small", "tiny"}


def test_job_ends_and_owes_or_neither(
    small: ModelDefinition, other: ModelDefinition, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch, world: NullWorld
) -> None:
    """A worker that is killed between the two leaves the job as it was, for the next look."""
    dead = dead_job(pool, other, entry(small, was_active=True))

    class Killed(BaseException):
        pass

    def killed(_job: SwitchJob) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(job_requests, "put_back_after", killed)
        with pytest.raises(Killed):
            recovery.reconcile_host("local")
    dead.refresh_from_db()
    assert dead.state == JobState.LOADING
    recovery.reconcile_host("local")
    assert [job.target for job in run_all()] == [small]


def test_job_ends_even_when_nothing_can_be_put_back(
    small: ModelDefinition, other: ModelDefinition, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch, world: NullWorld
) -> None:
    dead = dead_job(pool, other, entry(small, was_active=True))

    def broken(_job: SwitchJob) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(job_requests, "put_back_after", broken)
    recovery.reconcile_host("local")
    dead.refresh_from_db()
    assert dead.state == JobState.INTERRUPTED


def test_look_that_is_under_way_is_not_doubled(small: ModelDefinition, world: NullWorld) -> None:
    assert recovery._one_at_a_time.acquire(blocking=False)
    try:
        assert recovery.reconcile_host("local") is None
    finally:
        recovery._one_at_a_time.release()
    assert recovery.reconcile_host("local", waits=True) is not None


def lost_job(pool: MemoryPool, target: ModelDefinition, *owed: dict[str, object]) -> SwitchJob:
    """A job that was ended while its host was gone: nobody there could put back what it had unloaded."""
    started = timezone.now() - timedelta(minutes=5)
    return dead_job(pool, target, *owed, state=JobState.INTERRUPTED, started_at=started, finished_at=timezone.now())


def test_host_that_comes_back_puts_back_what_its_lost_job_had_unloaded(
    small: ModelDefinition, other: ModelDefinition, pool: MemoryPool, world: NullWorld
) -> None:
    lost_job(pool, other, entry(small, was_active=True))
    make_job(pool, other, state=JobState.INTERRUPTED, finished_at=timezone.now())  # waited behind it, and never began
    recovery.reconcile_host("local")
    assert [job.target for job in run_all()] == [small]
    assert active() == "small"
    recovery.reconcile_host("local")  # once only
    assert run_all() == []


def test_host_that_comes_back_leaves_what_somebody_has_asked_for_since(
    small: ModelDefinition, tiny: ModelDefinition, other: ModelDefinition, pool: MemoryPool, world: NullWorld
) -> None:
    lost_job(pool, other, entry(small, was_active=True))
    hold(tiny, world, is_active=True)
    recovery.reconcile_host("local")
    assert run_all() == []
    assert active() == "tiny"
