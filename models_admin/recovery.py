"""Compares the records of one host with what its runtimes really hold, and mends the records (I2, I3, I7).

Runs every few seconds on the worker of the host, and when that worker starts. Reality wins; processes are only ended when
the runtime itself proves them ours and no record wants them.
"""

from __future__ import annotations

import threading
import uuid
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from gantry import live
from gantry.planning.states import ACTIVE_STATES, ErrorCode, InstanceState, JobState
from gantry.planning.wording import wording
from gantry.runtimes.base import RunningInstance
from gantry.runtimes.base import Runtime as Adapter
from gantry.runtimes.exceptions import RuntimeFault
from models_admin import actions, audit, catalog, job_moves, memory
from models_admin.actor import SYSTEM
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from models_admin.runtime_access import runtime_for

log = structlog.get_logger(__name__)

STALE_JOB_SECONDS = 30.0  # more than a writer waits for a locked database (settings.DATABASES)
WAITING_JOB_SECONDS = 5.0  # a waiting job that nobody took by now is sent again
_one_at_a_time = threading.Lock()


def reconcile_host(host: str) -> None:
    """Put the records of a host right. Runs once at a time in a process; a second call meanwhile does nothing."""
    if not _one_at_a_time.acquire(blocking=False):
        return
    try:
        for pool in MemoryPool.objects.filter(host=host):
            _end_stale_jobs(pool)
            # One that is switched off may still hold models.
            runtimes = Runtime.objects.filter(Q(is_enabled=True) | Q(instances__isnull=False), pool=pool)
            for runtime in runtimes.select_related("pool").distinct():
                _reconcile_safely(runtime)
            memory.refresh_pool(pool)
            _resend_waiting(pool)
        catalog.refresh_availability()
    finally:
        _one_at_a_time.release()


def _reconcile_safely(row: Runtime) -> None:
    try:
        _reconcile_runtime(row)
    except Exception:  # one runtime that is beyond help must not keep the others from being looked at
        log.exception("runtime_not_reconciled", runtime=row.name)


def _end_stale_jobs(pool: MemoryPool) -> None:
    for job in job_moves.stale_working_jobs(pool.host, STALE_JOB_SECONDS):
        log.warning("job_interrupted", job=job.pk)
        ended = job_moves.finish(
            job,
            JobState.INTERRUPTED,
            text="The worker ended in the middle of this job",
            error_code=ErrorCode.INTERRUPTED,
            error_text=wording(ErrorCode.INTERRUPTED).sentence,
            actor=SYSTEM,
            if_heartbeat_at=job.heartbeat_at,
        )
        if ended:
            actions.put_back_after(job)


def _resend_waiting(pool: MemoryPool) -> None:
    """A message that was lost with the broker or a worker costs nothing: the row is the truth."""
    limit = timezone.now() - timedelta(seconds=WAITING_JOB_SECONDS)
    if not SwitchJob.objects.working().filter(pool=pool).exists():
        for job in SwitchJob.objects.waiting().filter(pool=pool, created_at__lt=limit).order_by("id")[:1]:
            job_moves.enqueue(job.pk, pool.host)


def _reconcile_runtime(row: Runtime) -> None:
    adapter = runtime_for(row)
    _check_health(row, adapter)
    began_at = timezone.now()
    known = {str(instance.instance_id): instance for instance in row.instances.select_related("model")}
    try:
        found = {instance.instance_id: instance for instance in adapter.running()}
    except RuntimeFault as exc:
        log.warning("runtime_unreadable", runtime=row.name, reason=str(exc))
        return
    if _was_disturbed(row.pool, began_at):
        return
    for instance_id, record in known.items():
        _mend_record(record, found.get(instance_id), adapter)
    for instance_id, instance in found.items():
        if instance_id not in known:
            _meet_unknown(row, instance, adapter)


def _was_disturbed(pool: MemoryPool, since: datetime) -> bool:
    """Whether a job changed (or is changing) what is loaded while we looked: then the two views do not belong together.

    Asked after both were taken: a job is at work before it changes anything, so none can be missed.
    """
    jobs = SwitchJob.objects.filter(pool=pool)
    return jobs.filter(Q(state__in=ACTIVE_STATES) | Q(finished_at__gte=since)).exists()


def _check_health(row: Runtime, adapter: Adapter) -> None:
    health = adapter.check()
    changed = (row.is_healthy, row.version, row.health_text) != (health.is_ok, health.version, health.detail)
    row.is_healthy, row.version, row.health_text = health.is_ok, health.version, health.detail[:500]
    row.checked_at = timezone.now()
    row.save(update_fields=["is_healthy", "version", "health_text", "checked_at"])
    if changed:
        live.publish_memory_changed(event_id=f"health-{uuid.uuid4()}")


def _mend_record(record: ModelInstance, instance: RunningInstance | None, adapter: Adapter) -> None:
    if record.state == InstanceState.CRASHED:
        return
    if instance is not None and instance.is_alive and instance.is_ready and record.state == InstanceState.LOADED:
        _refresh(record, instance, adapter)
    elif record.state == InstanceState.LOADED and instance is not None and instance.is_alive:
        return  # it lives and does not answer at this moment: busy is not dead
    elif record.state == InstanceState.LOADED:
        _note_crash(record, instance)
    else:  # half loaded or half unloaded, and no job is at work on it: whoever did it is gone
        _clear(record, adapter)


def _refresh(record: ModelInstance, instance: RunningInstance, adapter: Adapter) -> None:
    try:
        busy = adapter.busy_count(instance.instance_id)
    except RuntimeFault:
        busy = record.busy_count
    held = memory.held_by(instance.pid, instance.memory_bytes) or record.held_bytes
    ModelInstance.objects.filter(pk=record.pk).update(
        pid=instance.pid,
        process_started_at=instance.started_at,
        base_url=instance.base_url,
        held_bytes=held,
        busy_count=busy,
    )
    if busy != record.busy_count:
        live.publish_models_changed([record.model.model_id], event_id=f"busy-{uuid.uuid4()}")


def _note_crash(record: ModelInstance, instance: RunningInstance | None) -> None:
    code = instance.exit_code if instance and instance.exit_code else ErrorCode.KILLED
    exit_text = instance.exit_text if instance and instance.exit_text else "its process is gone"
    with transaction.atomic():
        noted = ModelInstance.objects.filter(pk=record.pk, state=InstanceState.LOADED).update(
            state=InstanceState.CRASHED,
            is_active=False,
            held_bytes=0,
            busy_count=0,
            exit_text=exit_text,
            error_code=code,
        )
        if not noted:
            return
        ModelDefinition.objects.filter(pk=record.model_id).update(
            last_error_code=code,
            last_error_text=f"{wording(code).sentence} ({exit_text})",
            last_failed_at=timezone.now(),
        )
        audit.write(
            audit.AuditEvent.MODEL_CRASH,
            actor=SYSTEM,
            object_text=record.model.name,
            after={"exit": exit_text},
            outcome=code,
        )
        live.publish_models_changed([record.model.model_id], event_id=f"crash-{record.instance_id}")
    log.warning("model_crashed", model=record.model.model_id, exit=exit_text)


def _clear(record: ModelInstance, adapter: Adapter) -> None:
    """End what is left of a half-done load or unload, then drop the record."""
    try:
        adapter.unload(str(record.instance_id))
        adapter.forget(str(record.instance_id))
    except RuntimeFault as exc:
        log.warning("leftover_not_ended", model=record.model.model_id, reason=str(exc))
        return
    with transaction.atomic():
        record.delete()
        live.publish_models_changed([record.model.model_id], event_id=f"clear-{record.instance_id}")


def _meet_unknown(row: Runtime, instance: RunningInstance, adapter: Adapter) -> None:
    """Something of ours without a record: a living model that we know is adopted, anything else ended."""
    model = ModelDefinition.objects.filter(model_id=instance.model_id, runtime=row).first()
    if not instance.is_alive:
        adapter.forget(instance.instance_id)
    elif model and instance.is_ready and not ModelInstance.objects.filter(model=model).exists():
        _adopt(row, model, instance)
    else:
        log.warning("orphan_ended", model=instance.model_id, pid=instance.pid)
        try:
            adapter.unload(instance.instance_id)
            adapter.forget(instance.instance_id)
        except RuntimeFault as exc:
            log.warning("leftover_not_ended", model=instance.model_id, reason=str(exc))


def _adopt(row: Runtime, model: ModelDefinition, instance: RunningInstance) -> None:
    with transaction.atomic():
        ModelInstance.objects.create(
            instance_id=instance.instance_id,
            model=model,
            runtime=row,
            state=InstanceState.LOADED,
            is_active=not ModelInstance.objects.filter(is_active=True).exists(),
            base_url=instance.base_url,
            api_key=instance.api_key,
            pid=instance.pid,
            process_started_at=instance.started_at,
            held_bytes=memory.held_by(instance.pid, instance.memory_bytes),
            loaded_at=timezone.now(),
        )
        audit.write(audit.AuditEvent.MODEL_ADOPT, actor=SYSTEM, object_text=model.name, after={"pid": instance.pid})
        live.publish_models_changed([model.model_id], event_id=f"adopt-{instance.instance_id}")
    log.info("model_adopted", model=model.model_id, pid=instance.pid)
