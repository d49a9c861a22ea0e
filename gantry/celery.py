"""The worker's composition: broker, queues, schedule.

Queue `host.NAME` belongs to the worker on that host (GANTRY_HOST); queue `gantry` to any worker.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

from celery import Celery
from celery.schedules import crontab
from celery.signals import heartbeat_sent, task_postrun, task_prerun, worker_init, worker_shutdown

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gantry.settings")

RECONCILE_SECONDS = 5.0  # I3 allows 20 s between an outside change and its showing
ORPHANS_SECONDS = 10.0  # answers whose web process has gone are ended at most 25 s after its last sign

# Running as root is the choice of whoever runs the machine; messages are JSON, so nobody gets code run through the broker.
warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")

app = Celery("gantry")
app.set_default()  # for all threads: a view that enqueues runs in another one than this import
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_default_queue="gantry",
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # A message that is lost costs nothing: the row is the truth, and recovery sends waiting jobs again.
    task_acks_late=False,
    beat_schedule={
        "reconcile": {
            "task": "models_admin.tasks.reconcile_hosts",
            "schedule": RECONCILE_SECONDS,
            "options": {"expires": RECONCILE_SECONDS},
        },
        "verify_audit": {"task": "models_admin.tasks.verify_audit", "schedule": crontab(hour="4", minute="0")},
        "end_orphans": {
            "task": "gantry.chat.tasks.end_orphans",
            "schedule": ORPHANS_SECONDS,
            "options": {"expires": ORPHANS_SECONDS},
        },
    },
)
app.autodiscover_tasks()


@task_prerun.connect
@task_postrun.connect
def drop_old_connections(**_signal: Any) -> None:
    """The threads of a worker keep their connections to the database, but none that is old or broken."""
    from django.db import close_old_connections

    close_old_connections()


@worker_init.connect
def tell_in_background(**_signal: Any) -> None:
    """A switch does not stand still while pages are told of it."""
    from gantry import live

    live.send_in_background()


@heartbeat_sent.connect
def note_alive(**_signal: Any) -> None:
    """A sign of life every two seconds, for /readyz."""
    from django.conf import settings

    from models_admin import worker_signs

    worker_signs.note_alive(settings.HOST_NAME)


@worker_shutdown.connect
def note_ended(**_signal: Any) -> None:
    """The last sign of a worker that ends in order; one that is killed falls silent."""
    from django.conf import settings

    from gantry import live
    from models_admin import worker_signs

    live.send_in_background().flush(1.0)
    worker_signs.note_ended(settings.HOST_NAME)
