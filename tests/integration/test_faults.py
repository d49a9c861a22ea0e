"""Faults around a job: of the database, of a runtime, of a worker, of our own. The job still ends as it should."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError
from django.utils import timezone

from gantry.engine.runner import Outcome
from gantry.planning.states import InstanceState, JobState
from gantry.runtimes.null import NullWorld
from models_admin import actions, job_moves, memory, recovery, running
from models_admin.actor import SYSTEM
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model

pytestmark = pytest.mark.django_db(transaction=True)

OWED = {"model_id": "small", "name": "Small", "was_active": True}


def hold(model: ModelDefinition, world: NullWorld) -> ModelInstance:
    """A record that says the model is loaded; the runtime knows nothing of it."""
    return ModelInstance.objects.create(
        instance_id=uuid.uuid4(), model=model, runtime=model.runtime, state=InstanceState.LOADED, is_active=True
    )


def test_heartbeat_goes_on_after_an_error_of_the_database(
    pool: MemoryPool, small: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(pool, small, state=JobState.LOADING, heartbeat_at=timezone.now())
    monkeypatch.setattr(running, "HEARTBEAT_SECONDS", 0.05)
    original = SwitchJob.objects.filter
    calls: list[int] = []

    def fails_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("database is locked")
        return original(*args, **kwargs)

    with mock.patch.object(SwitchJob.objects, "filter", fails_once), running._heartbeat(job.pk):
        time.sleep(0.5)
    assert len(calls) > 2


def test_job_that_was_ended_elsewhere_is_left_as_it_ended(pool: MemoryPool, small: ModelDefinition) -> None:
    job = make_job(pool, small, state=JobState.LOADING)
    late = SwitchJob.objects.get(pk=job.pk)
    job_moves.finish(job, JobState.INTERRUPTED, text="The worker ended")
    job_moves.record_event(late, text="Loading", percent=50.0)
    job.refresh_from_db()
    assert (job.stage_text, job.percent, job.events.count()) == ("The worker ended", 0, 1)


def test_job_that_beats_again_is_not_called_interrupted(pool: MemoryPool, small: ModelDefinition) -> None:
    long_ago = timezone.now() - timedelta(minutes=1)
    job = make_job(pool, small, state=JobState.LOADING, heartbeat_at=long_ago)
    SwitchJob.objects.filter(pk=job.pk).update(heartbeat_at=timezone.now())
    assert not job_moves.finish(job, JobState.INTERRUPTED, text="no", if_heartbeat_at=long_ago)


def test_one_runtime_beyond_help_does_not_stop_recovery(
    null_runtime: Runtime, pool: MemoryPool, world: NullWorld
) -> None:
    Runtime.objects.create(name="a broken one", kind="null", pool=pool, options=[1])
    recovery.reconcile_host("local")
    pool.refresh_from_db()
    null_runtime.refresh_from_db()
    assert pool.checked_at is not None
    assert null_runtime.is_healthy


def test_runtime_that_is_switched_off_is_still_looked_at(small: ModelDefinition, world: NullWorld) -> None:
    hold(small, world)
    Runtime.objects.filter(pk=small.runtime_id).update(is_enabled=False)
    recovery.reconcile_host("local")
    assert not ModelInstance.objects.exists()


def test_model_that_lives_and_does_not_answer_is_not_called_crashed(small: ModelDefinition, world: NullWorld) -> None:
    job = actions.request_switch(small, actor=SYSTEM).job
    assert job is not None
    running.run_job(job.pk)
    [found] = world.instances.values()
    world.put(replace(found, is_ready=False))
    recovery.reconcile_host("local")
    assert ModelInstance.objects.get().state == InstanceState.LOADED


def test_memory_that_fails_after_the_work_does_not_change_how_the_job_ended(
    pool: MemoryPool, small: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_pool: MemoryPool) -> None:
        raise RuntimeError("the driver fell over")

    job = make_job(pool, small)
    monkeypatch.setattr(running, "_carry_out", lambda _job: Outcome(JobState.SUCCEEDED, "done"))
    monkeypatch.setattr(memory, "refresh_pool", broken)
    running.run_job(job.pk)
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED


def test_bug_after_an_unload_is_followed_by_a_job_that_puts_the_model_back(
    pool: MemoryPool, small: ModelDefinition, other: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: SwitchJob) -> Outcome:
        job.unloaded = [OWED]
        job.save(update_fields=["unloaded"])
        raise ZeroDivisionError

    job = make_job(pool, other)
    monkeypatch.setattr(running, "_carry_out", broken)
    running.run_job(job.pk)
    job.refresh_from_db()
    assert job.superseded_by is not None
    assert job.aftermath == f"Small is being put back by job {job.superseded_by.pk}."


def test_what_a_succeeded_job_unloaded_is_not_owed(pool: MemoryPool, small: ModelDefinition) -> None:
    late = make_job(pool, make_model(small.runtime))
    make_job(pool, small, state=JobState.SUCCEEDED, superseded_by=late, unloaded=[OWED])
    assert running._inherit_unloaded(late) == []


def test_debt_outlives_a_worker_that_died_before_taking_it_over(
    pool: MemoryPool, small: ModelDefinition, other: ModelDefinition
) -> None:
    late = make_job(pool, other, state=JobState.PLANNING)
    make_job(pool, other, state=JobState.SUPERSEDED, superseded_by=late, unloaded=[OWED])
    job_moves.finish(late, JobState.INTERRUPTED, text="The worker ended")
    back = actions.put_back_after(late)
    assert back is not None
    assert back.target == small
