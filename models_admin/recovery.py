"""Compares the records of one host with what is really there, and mends the records (I2, I3, I7).

Runs every few seconds on the worker of the host, when that worker starts, and whenever somebody asks (`request_recovery`).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Collection, Sequence
from typing import Any

import structlog
from celery import current_app
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from kombu.exceptions import OperationalError

from gantry import live
from gantry.runtimes.base import Runtime as Adapter
from models_admin import audit, catalog, crashes, memory, server_models, stale_jobs
from models_admin.actor import Actor
from models_admin.exceptions import InvalidRequest, NotAllowed, Unavailable
from models_admin.models import MemoryPool, Runtime
from models_admin.reconciling import RuntimeReconciler
from models_admin.recovery_report import RecoveryReport
from models_admin.runtime_access import runtime_for

log = structlog.get_logger(__name__)

REQUEST_SECONDS = 60.0  # a request that no worker took by then is forgotten: the worker looks by itself when it starts
_one_at_a_time = threading.Lock()


def reconcile_host(host: str, *, waits: bool = False) -> RecoveryReport | None:
    """Put the records of a host right, and tell what was found. Runs once at a time in a process.

    Args:
        waits: until a look that is under way has ended. Without it a second call does nothing and gives None.
    """
    if not _one_at_a_time.acquire(blocking=waits):
        return None
    try:
        report = RecoveryReport(host)
        report.jobs_ended += [str(job) for job in stale_jobs.end_stale(host)]
        for pool in MemoryPool.objects.filter(host=host):
            # One that is switched off may still hold models.
            runtimes = Runtime.objects.filter(Q(is_enabled=True) | Q(instances__isnull=False), pool=pool)
            for row in runtimes.select_related("pool").distinct():
                _reconcile_safely(row, report)
            memory.refresh_pool(pool)
            stale_jobs.put_back_owed(pool)
            stale_jobs.resend_waiting(pool)
        crashes.end_pauses()
        catalog.refresh_availability()
    finally:
        _one_at_a_time.release()
    if report.found:
        log.info("host_mended", **report.as_dict())
    return report


def request_recovery(hosts: Collection[str] = (), *, actor: Actor, token: str = "") -> list[str]:
    """Have the workers of these hosts compare records with reality now, of all when none is named. Jobs of hosts that are gone end.

    Args:
        token: under which each worker keeps its report in the cache (`report_key`).

    Returns:
        The hosts, by name.

    Raises:
        NotAllowed: the actor may not cancel jobs of others and is no staff.
        InvalidRequest: there is no such host.
        Unavailable: the broker does not answer; nothing was asked.
    """
    _check_may(actor)
    asked = hosts_named(hosts)
    with transaction.atomic():
        audit.write(audit.AuditEvent.RECOVERY, actor=actor, object_text=", ".join(asked) or "no host")
        for host in asked:
            send_to_host(host, "models_admin.tasks.reconcile_host", [host, token])
    stale_jobs.end_jobs_of_lost_hosts()
    return asked


def report_key(token: str, host: str) -> str:
    """Where in the cache a worker leaves its report for whoever asked with a token."""
    return f"recovery-{token}-{host}"


def hosts_named(hosts: Collection[str]) -> list[str]:
    """These hosts, or all of them when none is named.

    Raises:
        InvalidRequest: there is no such host.
    """
    known = sorted(set(MemoryPool.objects.values_list("host", flat=True)))
    unknown = sorted(set(hosts) - set(known))
    if unknown:
        words = f"There is no host {unknown[0]}. Known: {', '.join(known) or 'none'}."
        raise InvalidRequest(words, [("host", "is not known")])
    return [host for host in known if not hosts or host in hosts]


def _check_may(actor: Actor) -> None:
    is_staff = actor.user is not None and actor.user.is_active and actor.user.is_staff
    if not ((is_staff and actor.has_scope("admin")) or actor.may("cancel_any_job")):
        raise NotAllowed("You may not ask for a recovery.", "Ask an administrator.")


def send_to_host(host: str, task: str, arguments: Sequence[Any]) -> None:
    """Send somebody's request to the worker of a host; one that nobody takes in time is forgotten.

    Raises:
        Unavailable: the broker does not answer.
    """
    try:
        current_app.send_task(task, args=list(arguments), queue=f"host.{host}", expires=REQUEST_SECONDS, retry=False)
    except (OperationalError, OSError) as exc:
        raise Unavailable(
            "The message broker does not answer, so no worker can be asked.",
            "Try again when it is back; workers then look by themselves, too.",
        ) from exc


def _reconcile_safely(row: Runtime, report: RecoveryReport) -> None:
    try:
        adapter = runtime_for(row)
        _check_health(row, adapter)
        if row.is_healthy:
            server_models.refresh_when_due(row)
        RuntimeReconciler(row, adapter, report).run()
    except Exception:  # one runtime that is beyond help must not keep the others from being looked at
        log.exception("runtime_not_reconciled", runtime=row.name)


def _check_health(row: Runtime, adapter: Adapter) -> None:
    health = adapter.check()
    # One that does not answer has its limit all the same.
    limit = health.max_models if health.is_ok else row.max_models
    seen = health.is_ok, health.version, health.detail[:500], limit
    changed = (row.is_healthy, row.version, row.health_text, row.max_models) != seen
    row.is_healthy, row.version, row.health_text, row.max_models = seen
    row.checked_at = timezone.now()
    row.save(update_fields=["is_healthy", "version", "health_text", "max_models", "checked_at"])
    if changed:
        live.publish_memory_changed(event_id=f"health-{uuid.uuid4()}")
