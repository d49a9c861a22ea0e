"""The worker's tasks: an id comes in, the work is done one layer down."""

from __future__ import annotations

from celery import current_app, shared_task
from celery.signals import worker_ready
from django.conf import settings
from django.core.cache import cache

from models_admin import audit_chain, recovery, running, server_models, stale_jobs, switch_requests, upkeep
from models_admin.models import MemoryPool, Runtime

REPORT_SECONDS = 300.0  # a report that nobody has fetched by then is dropped
START_SECONDS = 60.0  # a start that comes later than this is none any more


@shared_task(name="models_admin.tasks.run_job")
def run_job(job_id: int) -> None:
    """Run one job to its end, on the worker of the host that owns its pool."""
    running.run_job(job_id)


@shared_task(name="models_admin.tasks.reconcile_hosts")
def reconcile_hosts() -> None:
    """Ask the worker of each host to compare records with reality; end what nobody works on or answers any more."""
    for host in MemoryPool.objects.values_list("host", flat=True):
        # A worker that is away finds one request when it comes back, not a heap of them.
        current_app.send_task("models_admin.tasks.reconcile_host", args=[host], queue=f"host.{host}", expires=5.0)
    stale_jobs.end_jobs_of_lost_hosts()
    switch_requests.expire_outdated()


@shared_task(name="models_admin.tasks.reconcile_host")
def reconcile_host(host: str, token: str = "") -> None:
    """Compare the records of this host with reality, and begin what is due.

    Args:
        token: of somebody who waits for the report, which is kept in the cache (`report_key`).
    """
    report = recovery.reconcile_host(host, waits=bool(token))
    if report is None:
        return
    if token:
        cache.set(recovery.report_key(token, host), report.as_dict(), REPORT_SECONDS)
    upkeep.keep_up(host)


@shared_task(name="models_admin.tasks.start_host")
def start_host(host: str) -> None:
    """Put right what a worker finds when it starts, then load what policy wants at start."""
    recovery.reconcile_host(host, waits=True)
    upkeep.keep_up(host)
    upkeep.load_at_start(host)


@shared_task(name="models_admin.tasks.refresh_models")
def refresh_models(runtime_id: int) -> None:
    """Compare the models that a server offers with their definitions now. A runtime that was deleted is none."""
    row = Runtime.objects.select_related("pool").filter(pk=runtime_id).first()
    if row:
        server_models.refresh_safely(row)


@shared_task(name="models_admin.tasks.verify_audit")
def verify_audit() -> None:
    """Verify the audit log's chain, and note the result for the review page."""
    audit_chain.verify_and_note()


@worker_ready.connect
def start_at_once(**_kwargs: object) -> None:
    """A worker that starts puts things right at once: it adopts what still serves and ends what was left half done."""
    host = settings.HOST_NAME
    current_app.send_task("models_admin.tasks.start_host", args=[host], queue=f"host.{host}", expires=START_SECONDS)
