"""The worker's composition: broker, queues, schedule.

Queue `host.NAME` belongs to the worker on that host (GANTRY_HOST); queue `gantry` to any worker.
"""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gantry.settings")

RECONCILE_SECONDS = 5.0  # I3 allows 20 s between an outside change and its showing

app = Celery("gantry")
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
    },
)
app.autodiscover_tasks()
