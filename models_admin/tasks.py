"""The worker's tasks: an id comes in, the work is done one layer down."""

from __future__ import annotations

from celery import current_app, shared_task
from celery.signals import worker_ready

from models_admin import recovery, running
from models_admin.models import MemoryPool


@shared_task(name="models_admin.tasks.run_job")
def run_job(job_id: int) -> None:
    """Run one job to its end, on the worker of the host that owns its pool."""
    running.run_job(job_id)


@shared_task(name="models_admin.tasks.reconcile_hosts")
def reconcile_hosts() -> None:
    """Ask the worker of each host to compare records with reality."""
    for host in MemoryPool.objects.values_list("host", flat=True):
        # A worker that is away finds one request when it comes back, not a heap of them.
        current_app.send_task("models_admin.tasks.reconcile_host", args=[host], queue=f"host.{host}", expires=5.0)


@shared_task(name="models_admin.tasks.reconcile_host")
def reconcile_host(host: str) -> None:
    """Compare the records of this host with reality."""
    recovery.reconcile_host(host)


@worker_ready.connect
def reconcile_at_start(**_kwargs: object) -> None:
    """A worker that starts puts things right at once: it adopts what still serves and ends what was left half done."""
    reconcile_hosts.delay()
