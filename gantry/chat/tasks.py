"""The chat's periodic work."""

from __future__ import annotations

from celery import shared_task

from gantry.chat import recovery


@shared_task(name="gantry.chat.tasks.end_orphans")
def end_orphans() -> None:
    """End answers whose web process has gone."""
    recovery.end_orphans()
