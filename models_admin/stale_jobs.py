"""Jobs whose worker is gone: each of them ends (I2), and what it had unloaded comes back."""

from __future__ import annotations

from datetime import timedelta

import redis
import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from gantry.planning.states import ErrorCode, JobState
from gantry.planning.wording import wording
from models_admin import job_locks, job_moves, job_requests, worker_signs
from models_admin.actor import SYSTEM
from models_admin.models import MemoryPool, SwitchJob

log = structlog.get_logger(__name__)

STALE_JOB_SECONDS = 30.0  # more than a writer waits for a locked database (settings.DATABASES)
WAITING_JOB_SECONDS = 5.0  # a waiting job that nobody took by now is sent again
LOST_HOST_SECONDS = 60.0  # a worker that is restarted is back long before


def end_stale(host: str) -> list[SwitchJob]:
    """End the jobs at work on this host that give no sign of life, and have what they unloaded put back."""
    silent = job_moves.stale_working_jobs(host, STALE_JOB_SECONDS)
    working = SwitchJob.objects.working().filter(pool__host=host).select_related("target", "pool")
    left = [job for job in working if job_locks.is_abandoned(job.pk) and job not in silent]
    ended = [job for job in [*silent, *left] if _interrupt(job)]
    for job in ended:
        job_locks.forget(job.pk)
    return ended


def end_jobs_of_lost_hosts() -> list[SwitchJob]:
    """End the jobs, waiting or at work, of hosts whose worker has not been heard of for a minute.

    Any worker may ask, and the web: nobody waits for ever for a machine that is gone. When the broker is away nobody can tell.
    What such a job had unloaded is put back when that host is back (`put_back_owed`).
    """
    unfinished = SwitchJob.objects.unfinished()
    hosts = sorted(set(unfinished.values_list("pool__host", flat=True)))
    try:
        lost = worker_signs.silent_hosts(hosts, LOST_HOST_SECONDS) if hosts else []
    except redis.RedisError as exc:
        log.warning("hosts_unknown", reason=str(exc))
        return []
    return [job for job in _hopeless(lost) if _end_lost(job)]


def put_back_owed(pool: MemoryPool) -> None:
    """Have what the last job of a pool took away put back, if it was ended while the host was gone. Its own worker asks, so it is back.

    Whoever has asked for something else meanwhile did not want that any more.
    """
    last = SwitchJob.objects.filter(pool=pool, started_at__isnull=False).order_by("-id").first()
    is_owed = last is not None and last.state == JobState.INTERRUPTED and last.superseded_by_id is None
    if last is not None and is_owed and last.unloaded:
        job_requests.put_back_after(last)


def resend_waiting(pool: MemoryPool) -> None:
    """A message that was lost with the broker or a worker costs nothing: the row is the truth."""
    limit = timezone.now() - timedelta(seconds=WAITING_JOB_SECONDS)
    if not SwitchJob.objects.working().filter(pool=pool).exists():
        for job in SwitchJob.objects.waiting().filter(pool=pool, created_at__lt=limit).order_by("id")[:1]:
            job_moves.enqueue(job.pk, pool.host)


def _interrupt(job: SwitchJob) -> bool:
    """End a job and owe what it owes, both or neither: a worker killed in between forgets nothing."""
    log.warning("job_interrupted", job=job.pk)
    try:
        with transaction.atomic():
            # The pool first, as every request does: two that take them the other way round wait for each other.
            MemoryPool.objects.select_for_update().get(pk=job.pool_id)
            ended = _finish(job, "The worker ended in the middle of this job", wording(ErrorCode.INTERRUPTED).sentence)
            if ended:
                job_requests.put_back_after(job)
            return ended
    except Exception:  # whatever keeps us from putting back, the job has to end (I2)
        log.exception("not_put_back", job=job.pk)
        return _finish(job, "The worker ended in the middle of this job", wording(ErrorCode.INTERRUPTED).sentence)


def _hopeless(hosts: list[str]) -> list[SwitchJob]:
    now = timezone.now()
    is_stale = Q(heartbeat_at__lt=now - timedelta(seconds=STALE_JOB_SECONDS))
    has_waited = Q(state=JobState.WAITING, created_at__lt=now - timedelta(seconds=LOST_HOST_SECONDS))
    jobs = SwitchJob.objects.unfinished().filter(pool__host__in=hosts)
    return list(jobs.filter(has_waited | (~Q(state=JobState.WAITING) & is_stale)).select_related("target", "pool"))


def _end_lost(job: SwitchJob) -> bool:
    log.warning("job_of_lost_host", job=job.pk, host=job.pool.host)
    began = "could begin" if job.state == JobState.WAITING else "can finish"
    return _finish(
        job,
        f"The worker of {job.pool.host} is gone",
        f"The worker of {job.pool.host} has not been heard of for {LOST_HOST_SECONDS:.0f} s, so nobody {began} this job.",
    )


def _finish(job: SwitchJob, text: str, error_text: str) -> bool:
    return job_moves.finish(
        job,
        JobState.INTERRUPTED,
        text=text,
        error_code=ErrorCode.INTERRUPTED,
        error_text=error_text,
        actor=SYSTEM,
        # One that beats again, or was begun just now, has found its worker.
        if_heartbeat_at=job.heartbeat_at,
    )
