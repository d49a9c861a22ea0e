"""Recovery: records are compared with what the runtime really holds."""

from __future__ import annotations

import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from gantry.planning.states import ErrorCode, InstanceState, JobState, ModelState
from gantry.runtimes.base import LoadRequest
from gantry.runtimes.null import NullWorld
from models_admin import actions, overview, recovery, running
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, ModelInstance, Runtime
from models_admin.runtime_access import runtime_for
from tests.factories import make_job

pytestmark = pytest.mark.django_db(transaction=True)


def load(model: ModelDefinition, user: User) -> ModelInstance:
    job = actions.request_switch(model, actor=Actor(user, "page")).job
    assert job is not None
    running.run_job(job.pk)
    return ModelInstance.objects.get(model=model)


def start_unknown(runtime: Runtime, model_id: str) -> str:
    """A model that the runtime holds and no record tells of."""
    request = LoadRequest(str(uuid.uuid4()), model_id, Path("x.gguf"), 1000)
    list(runtime_for(runtime).load(request, lambda: False))
    return request.instance_id


def test_process_that_died_is_shown_as_crashed_and_can_be_restarted(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    instance = load(small, admin_person)
    world.crash(str(instance.instance_id))
    recovery.reconcile_host("local")
    instance.refresh_from_db()
    assert (instance.state, instance.is_active, instance.error_code) == (InstanceState.CRASHED, False, ErrorCode.KILLED)
    row = overview.overview().rows[0]
    assert (row.state, row.words, row.can_restart) == (ModelState.CRASHED, "Crashed: killed", True)
    assert AuditEntry.objects.filter(event=AuditEvent.MODEL_CRASH).count() == 1
    recovery.reconcile_host("local")
    assert AuditEntry.objects.filter(event=AuditEvent.MODEL_CRASH).count() == 1

    job = actions.request_restart(small, actor=Actor(admin_person, "page")).job
    assert job is not None
    running.run_job(job.pk)
    assert overview.overview().active is not None


def test_crashed_model_can_be_cleared_away_by_unload(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    world.crash(str(load(small, admin_person).instance_id))
    recovery.reconcile_host("local")
    job = actions.request_unload(small, actor=Actor(admin_person, "page")).job
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert not ModelInstance.objects.exists()


def test_living_model_without_a_record_is_adopted(small: ModelDefinition, null_runtime: Runtime) -> None:
    instance_id = start_unknown(null_runtime, "small")
    recovery.reconcile_host("local")
    row = ModelInstance.objects.get()
    assert (str(row.instance_id), row.state, row.is_active) == (instance_id, InstanceState.LOADED, True)


def test_living_process_of_an_unknown_model_is_ended(null_runtime: Runtime, world: NullWorld) -> None:
    start_unknown(null_runtime, "nobody-knows-me")
    recovery.reconcile_host("local")
    assert world.instances == {}


def test_job_whose_worker_died_is_ended_and_its_half_loaded_model_cleared(
    small: ModelDefinition, pool: MemoryPool, null_runtime: Runtime, world: NullWorld
) -> None:
    job = make_job(pool, small, state=JobState.LOADING, heartbeat_at=timezone.now() - timedelta(minutes=1))
    instance_id = start_unknown(null_runtime, "small")
    ModelInstance.objects.create(
        instance_id=instance_id, model=small, runtime=null_runtime, state=InstanceState.LOADING
    )
    recovery.reconcile_host("local")
    job.refresh_from_db()
    assert (job.state, job.error_code) == (JobState.INTERRUPTED, ErrorCode.INTERRUPTED)
    recovery.reconcile_host("local")  # the first pass left the records alone: a job had just ended
    assert world.instances == {}
    assert not ModelInstance.objects.exists()


def test_job_at_work_is_left_alone(
    small: ModelDefinition, pool: MemoryPool, null_runtime: Runtime, world: NullWorld
) -> None:
    job = make_job(pool, small, state=JobState.LOADING, heartbeat_at=timezone.now())
    start_unknown(null_runtime, "small")
    recovery.reconcile_host("local")
    job.refresh_from_db()
    assert job.state == JobState.LOADING
    assert len(world.instances) == 1


def test_memory_and_health_are_read(null_runtime: Runtime, pool: MemoryPool, world: NullWorld) -> None:
    recovery.reconcile_host("local")
    pool.refresh_from_db()
    null_runtime.refresh_from_db()
    assert pool.total_bytes == 1024**3
    assert pool.checked_at is not None
    assert null_runtime.is_healthy
    world.is_away = True
    recovery.reconcile_host("local")
    null_runtime.refresh_from_db()
    assert not null_runtime.is_healthy


def test_waiting_job_that_nobody_took_is_sent_again(
    small: ModelDefinition, pool: MemoryPool, monkeypatch: pytest.MonkeyPatch, world: NullWorld
) -> None:
    job = make_job(pool, small)
    type(job).objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(seconds=30))
    sent: list[int] = []
    monkeypatch.setattr("models_admin.job_moves.enqueue", lambda job_id, _host: sent.append(job_id))
    recovery.reconcile_host("local")
    assert sent == [job.pk]
