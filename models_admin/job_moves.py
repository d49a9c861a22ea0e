"""The only code that moves a job from state to state. Every move is a conditional UPDATE, so two that race cannot both win."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import structlog
from celery import current_app
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone
from kombu.exceptions import OperationalError

from gantry import live
from gantry.planning.states import TERMINAL_STATES, ErrorCode, JobKind, JobState, can_move
from models_admin import audit
from models_admin.actor import SYSTEM, Actor
from models_admin.models import ModelDefinition, ModelInstance, SwitchEvent, SwitchJob
from models_admin.snapshots import job_snapshot
from models_admin.step_times import record_steps

log = structlog.get_logger(__name__)

_FAILURES = {JobState.FAILED, JobState.INTERRUPTED}


def enqueue_on_commit(job: SwitchJob) -> None:
    """Send the job to its host's worker once the running transaction has committed."""
    transaction.on_commit(lambda: enqueue(job.pk, job.pool.host))


def enqueue(job_id: int, host: str) -> bool:
    """Send a job to a host's worker. When the broker is away the job waits; recovery sends it again."""
    try:
        current_app.send_task("models_admin.tasks.run_job", args=[job_id], queue=f"host.{host}", retry=False)
    except (OperationalError, OSError) as exc:
        log.warning("job_not_sent", job=job_id, reason=str(exc))
        return False
    return True


def claim(job_id: int) -> SwitchJob | None:
    """Take a waiting job to work on. None when it is not waiting any more or another one is at work on its pool."""
    now = timezone.now()
    try:
        with transaction.atomic():
            taken = SwitchJob.objects.filter(pk=job_id, state=JobState.WAITING).update(
                state=JobState.PLANNING, started_at=now, heartbeat_at=now, seq=F("seq") + 1, stage_text="Planning"
            )
            if not taken:
                return None
            job = SwitchJob.objects.select_related("target__runtime", "pool", "requested_by").get(pk=job_id)
            _tell(job, text="Planning")
    except IntegrityError:  # one_working_job_per_pool
        return None
    return job


def record_event(
    job: SwitchJob, *, text: str, state: JobState | None = None, step_kind: str = "", **fields: Any
) -> None:
    """Store the job's present figures as its next event and tell every page. `fields` are saved with the job.

    A job that was ended elsewhere meanwhile is left as it ended.

    Args:
        state: the state that it goes into with this, if it may from where it is.
    """
    seq, stage_text = job.seq + 1, text[:300]
    if state is not None and can_move(JobState(job.state), state):
        fields["state"] = state
    with transaction.atomic():
        same = SwitchJob.objects.filter(pk=job.pk, state=job.state)
        if not same.update(seq=seq, stage_text=stage_text, **fields):
            return
        job.seq, job.stage_text = seq, stage_text
        for name, value in fields.items():
            setattr(job, name, value)
        _tell(job, text=text, step_kind=step_kind)


def _tell(job: SwitchJob, *, text: str, step_kind: str = "") -> None:
    """The job's present figures as an event, kept and told to every page. Inside a transaction."""
    SwitchEvent.objects.create(
        job=job,
        seq=job.seq,
        state=job.state,
        step_kind=step_kind,
        percent=job.percent,
        bytes_done=job.bytes_done,
        bytes_total=job.bytes_total,
        eta_seconds=job.eta_seconds,
        text=text[:500],
    )
    live.publish_job(job_snapshot(job))


def finish(
    job: SwitchJob,
    state: JobState,
    *,
    text: str,
    error_code: ErrorCode | None = None,
    error_text: str = "",
    log_tail: str = "",
    rolled_back: bool | None = None,
    aftermath: str = "",
    downtime_seconds: float | None = None,
    actor: Actor | None = None,
    if_heartbeat_at: datetime | None = None,
) -> bool:
    """End a job, once (I2). False when it had ended before.

    Args:
        if_heartbeat_at: only when this is still its last sign of life.

    Raises:
        ValueError: `state` is no end.
    """
    if state not in TERMINAL_STATES:
        raise ValueError(f"{state} is not an end")
    fields: dict[str, Any] = {
        "state": state,
        "finished_at": timezone.now(),
        "error_code": error_code or "",
        "error_text": error_text,
        "log_tail": log_tail,
        "rolled_back": rolled_back,
        "aftermath": aftermath[:500],
        "downtime_seconds": downtime_seconds,
        "eta_seconds": None,
    }
    if state == JobState.SUCCEEDED:
        fields["percent"] = 100.0
    with transaction.atomic():
        unfinished = SwitchJob.objects.filter(pk=job.pk).exclude(state__in=TERMINAL_STATES)
        if if_heartbeat_at is not None:
            unfinished = unfinished.filter(heartbeat_at=if_heartbeat_at)
        if not unfinished.update(**fields):
            return False
        _read_again(job)
        _close_steps(job)
        record_event(job, text=text, steps=job.steps)
        _remember_on_model(job)
        _audit_rollback(job)
        _audit_end(job, actor)
        live.publish_models_changed([], event_id=f"job-{job.pk}-end")
    wake_next(job.pool_id)
    record_steps(job)  # nobody waits for what is learned from it
    return True


def wake_next(pool_id: int) -> None:
    """Send the job that has waited longest for a pool, if there is one."""
    waiting = SwitchJob.objects.waiting().filter(pool=pool_id).select_related("pool").order_by("id").first()
    if waiting:
        enqueue_on_commit(waiting)


def stale_working_jobs(host: str, older_than_seconds: float) -> list[SwitchJob]:
    """Jobs at work on this host whose worker has given no sign of life for so long."""
    limit = timezone.now() - timedelta(seconds=older_than_seconds)
    return list(
        SwitchJob.objects.working().filter(pool__host=host, heartbeat_at__lt=limit).select_related("target", "pool")
    )


def _read_again(job: SwitchJob) -> None:
    """Take over what the row holds by now. What it points to and is the same as before stays read."""
    names = [field.attname for field in SwitchJob._meta.concrete_fields]  # noqa: SLF001 - Django's documented Model._meta API
    for name, value in SwitchJob.objects.values(*names).get(pk=job.pk).items():
        setattr(job, name, value)


def _close_steps(job: SwitchJob) -> None:
    """No step of a job that has ended is still running or pending."""
    for step in job.steps:
        if step["state"] in {"running", "pending"}:
            step["state"] = "failed" if step["state"] == "running" and job.state in _FAILURES else "skipped"


def _remember_on_model(job: SwitchJob) -> None:
    """A model's last failure stays with it until it loads again."""
    if job.target_id is None or job.kind in {JobKind.UNLOAD, JobKind.UNLOAD_ALL}:
        return
    if job.state in _FAILURES:
        ModelDefinition.objects.filter(pk=job.target_id).update(
            last_error_code=job.error_code, last_error_text=job.error_text, last_failed_at=job.finished_at
        )
    elif job.state == JobState.SUCCEEDED:
        # Somebody wants it all the same: what it did before does not count any more. Gantry's own loads forgive nothing.
        forgiven: dict[str, Any] = {"crash_times": [], "paused_until": None} if _is_a_persons_switch(job) else {}
        ModelDefinition.objects.filter(pk=job.target_id).update(
            last_error_code="", last_error_text="", last_used_at=job.finished_at, **forgiven
        )


def _is_a_persons_switch(job: SwitchJob) -> bool:
    return job.kind == JobKind.SWITCH and job.via != SYSTEM.via


def _audit_rollback(job: SwitchJob) -> None:
    if job.rolled_back is not None:
        audit.write(
            audit.AuditEvent.JOB_ROLLBACK,
            actor=SYSTEM,
            object_text=job.target_name,
            job=job,
            after={"kind": job.kind, "aftermath": job.aftermath},
            outcome="succeeded" if job.rolled_back else "failed",
        )


def _audit_end(job: SwitchJob, actor: Actor | None) -> None:
    active = ModelInstance.objects.filter(is_active=True).values_list("model__name", flat=True).first()
    audit.write(
        audit.AuditEvent.JOB_END,
        actor=actor or Actor(job.requested_by, job.via),
        object_text=job.target_name,
        job=job,
        before={"active": job.from_name},
        after={
            "kind": job.kind,
            "seconds": round((job.finished_at - job.created_at).total_seconds(), 1) if job.finished_at else None,
            "error": job.error_code,
            "aftermath": job.aftermath,
            "downtime": job.downtime_seconds,
            "stages": audit.stages(job),
            "active": active or "",
        },
        outcome=job.state,
    )
