"""A second switch while one runs; what a job that ends early owes, and who pays it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from gantry.planning.states import ErrorCode, InstanceState, JobState
from gantry.runtimes.null import Failure, NullWorld
from models_admin import actions, recovery, running
from models_admin.actor import Actor
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.functional.stack import wait_until
from tests.integration.conftest import MB

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def third(null_runtime: Runtime, world: NullWorld) -> ModelDefinition:
    """Takes 650 MB: fits beside neither of the two."""
    world.memory["third"] = 650 * MB
    return make_model(null_runtime, model_id="third", name="Third", size_bytes=520 * MB)


def ask(model: ModelDefinition, user: User, *, confirm: bool = False) -> SwitchJob:
    job = actions.request_switch(model, actor=Actor(user, "page"), confirm=confirm).job
    assert job is not None
    return job


def run(job: SwitchJob) -> SwitchJob:
    running.run_job(job.pk)
    job.refresh_from_db()
    return job


def active() -> str:
    return str(ModelInstance.objects.filter(is_active=True).values_list("model__model_id", flat=True).first() or "")


@contextmanager
def at_work(job: SwitchJob, until: Callable[[SwitchJob], bool]) -> Iterator[None]:
    """The job runs in a thread, as on a worker, and has come as far as `until` says."""

    def work() -> None:
        try:
            running.run_job(job.pk)
        finally:
            connection.close()

    def has_come() -> bool:
        job.refresh_from_db()
        return until(job)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(has_come, 10)
        yield
    finally:
        thread.join(20)


@pytest.fixture
def taken_over(
    small: ModelDefinition, other: ModelDefinition, third: ModelDefinition, admin_person: User, world: NullWorld
) -> tuple[SwitchJob, SwitchJob]:
    """Small was active; the switch to other was at work when the one to third took over. The first has ended, the second waits."""
    run(ask(small, admin_person))
    world.stalls["other"] = 0.1
    world.load_seconds = 0.1
    first = ask(other, admin_person)
    with at_work(first, lambda job: job.state == JobState.LOADING):
        SwitchJob.objects.filter(pk=first.pk).update(percent=30)
        second = ask(third, admin_person)
    world.load_seconds = 0
    first.refresh_from_db()
    return first, second


def test_switch_under_half_done_is_superseded_and_the_new_target_serves(
    taken_over: tuple[SwitchJob, SwitchJob], world: NullWorld
) -> None:
    first, second = taken_over
    assert (first.state, first.superseded_by) == (JobState.SUPERSEDED, second)
    assert run(second).state == JobState.SUCCEEDED
    assert active() == "third"
    assert [instance.model_id for instance in world.instances.values()] == ["third"]


def test_switch_past_half_needs_a_confirmation(
    pool: MemoryPool, small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    job = make_job(pool, small, state=JobState.LOADING, percent=50, heartbeat_at=timezone.now())
    decision = actions.request_switch(other, actor=Actor(admin_person, "page"))
    assert (decision.status, decision.job) == ("needs_confirmation", job)
    assert SwitchJob.objects.count() == 1
    second = ask(other, admin_person, confirm=True)
    job.refresh_from_db()
    assert job.superseded_by == second
    assert job.cancel_requested_at is not None


def test_new_switch_that_fails_puts_back_what_the_superseded_one_had_unloaded(
    taken_over: tuple[SwitchJob, SwitchJob], world: NullWorld
) -> None:
    _, second = taken_over
    world.failures["third"] = Failure(ErrorCode.OUT_OF_MEMORY)
    run(second)
    assert (second.state, second.aftermath) == (JobState.FAILED, "Small was put back.")
    assert active() == "small"


def test_cancelled_successor_still_puts_back_what_it_owes(
    taken_over: tuple[SwitchJob, SwitchJob], admin_person: User
) -> None:
    _, second = taken_over
    actions.cancel_job(second, actor=Actor(admin_person, "page"))
    run(second)
    assert (second.state, second.aftermath) == (JobState.CANCELLED, "Small was put back.")
    assert active() == "small"


def test_three_people_clicking_end_in_one_model_and_all_jobs_ended(
    small: ModelDefinition,
    other: ModelDefinition,
    third: ModelDefinition,
    admin_person: User,
    member: User,
    world: NullWorld,
) -> None:
    jobs = [
        ask(model, user) for model, user in zip([small, other, third, small], [admin_person, member] * 2, strict=True)
    ]
    for job in jobs:
        run(job)
    assert [job.state for job in jobs] == [JobState.SUPERSEDED] * 3 + [JobState.SUCCEEDED]
    assert active() == "small"
    assert len(world.instances) == 1


def test_model_of_an_interrupted_job_comes_back_by_itself(
    small: ModelDefinition, other: ModelDefinition, pool: MemoryPool, null_runtime: Runtime, world: NullWorld
) -> None:
    entry = {"model_id": "small", "name": "Small", "was_active": True}
    dead = make_job(
        pool, other, state=JobState.LOADING, unloaded=[entry], heartbeat_at=timezone.now() - timedelta(minutes=1)
    )
    ModelInstance.objects.create(
        instance_id="00000000-0000-0000-0000-000000000001",
        model=other,
        runtime=null_runtime,
        state=InstanceState.LOADING,
    )
    recovery.reconcile_host("local")
    dead.refresh_from_db()
    assert dead.state == JobState.INTERRUPTED
    back = dead.superseded_by
    assert back is not None
    assert (back.via, back.target_name, run(back).state) == ("system", "Small", JobState.SUCCEEDED)
    assert dead.aftermath == f"Small is being put back by job {back.pk}."
    assert active() == "small"


def test_return_that_is_interrupted_itself_is_not_tried_again(
    small: ModelDefinition, pool: MemoryPool, world: NullWorld
) -> None:
    entry = {"model_id": "small", "name": "Small", "was_active": True}
    make_job(
        pool,
        small,
        state=JobState.LOADING,
        via="system",
        unloaded=[entry],
        heartbeat_at=timezone.now() - timedelta(minutes=1),
    )
    recovery.reconcile_host("local")
    assert SwitchJob.objects.unfinished().count() == 0
