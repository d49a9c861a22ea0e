"""Crashes: noted, counted, and answered with a pause when a model keeps crashing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import Case, When
from django.utils import timezone

from gantry import live
from gantry.planning.states import ErrorCode, InstanceState
from gantry.planning.wording import wording
from gantry.runtimes.base import RunningInstance
from models_admin import audit
from models_admin.actor import SYSTEM
from models_admin.models import ModelDefinition, ModelInstance

log = structlog.get_logger(__name__)

CRASHES = 3  # so many within WINDOW_SECONDS are a loop
WINDOW_SECONDS = 300.0
FIRST_PAUSE_SECONDS = 300.0
LONGEST_PAUSE_SECONDS = 3600.0
AGAIN_SECONDS = 3600.0  # a loop that begins so soon after a pause is the same trouble: the next pause is twice as long
KEPT = 30  # crashes of a model; the longest pause is reached after 15


def note_crash(record: ModelInstance, instance: RunningInstance | None) -> bool:
    """Note that a loaded model has died, and pause it when it keeps doing that. False when that was noted before.

    Args:
        instance: what the runtime knows of its end.
    """
    code = instance.exit_code if instance and instance.exit_code else ErrorCode.KILLED
    exit_text = instance.exit_text if instance and instance.exit_text else "its process is gone"
    with transaction.atomic():
        noted = ModelInstance.objects.filter(pk=record.pk, state=InstanceState.LOADED).update(
            state=InstanceState.CRASHED,
            is_active=False,
            served_until=Case(When(is_active=True, then=timezone.now())),
            held_bytes=0,
            held_on={},
            busy_count=0,
            exit_text=exit_text,
            error_code=code,
        )
        if not noted:
            return False
        audit.write(
            audit.AuditEvent.MODEL_CRASH,
            actor=SYSTEM,
            object_text=record.model.name,
            after={"exit": exit_text},
            outcome=code,
        )
        _count(record.model_id, code, exit_text)
        live.publish_models_changed([record.model.model_id], event_id=f"crash-{record.instance_id}")
    log.warning("model_crashed", model=record.model.model_id, exit=exit_text)
    return True


def _count(model_pk: int, code: ErrorCode, exit_text: str) -> None:
    model = ModelDefinition.objects.select_for_update().get(pk=model_pk)
    now = timezone.now()
    model.crash_times = [*model.crash_times, now.timestamp()][-KEPT:]
    model.last_error_code, model.last_failed_at = code, now
    model.last_error_text = f"{wording(code).sentence} ({exit_text})"
    model.save(update_fields=["crash_times", "last_error_code", "last_error_text", "last_failed_at"])
    seconds = pause_seconds(model.crash_times)
    if seconds:
        _pause(model, now + timedelta(seconds=seconds))


def _pause(model: ModelDefinition, until: datetime) -> None:
    model.paused_until = until
    model.save(update_fields=["paused_until"])
    audit.write(
        audit.AuditEvent.MODEL_PAUSE,
        actor=SYSTEM,
        object_text=model.name,
        after={"until": until.isoformat(timespec="seconds"), "crashes": CRASHES},
    )
    log.warning("model_paused", model=model.model_id, until=until.isoformat())


def pause_seconds(crash_times: Iterable[float]) -> float:
    """How long a model is paused after the last of these crashes (seconds since the epoch); 0.0 when it is not.

    Three crashes within five minutes make a pause of five minutes, twice as long each time it happens again within an hour of
    the pause's end, up to an hour.
    """
    pause, until = 0.0, 0.0
    burst: list[float] = []
    for at in sorted(crash_times):
        burst = [*(earlier for earlier in burst if at - earlier < WINDOW_SECONDS), at]
        if len(burst) == CRASHES:
            is_again = at - until < AGAIN_SECONDS
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause) if pause and is_again else FIRST_PAUSE_SECONDS
            until, burst = at + pause, []
    return 0.0 if burst else pause


def is_paused(model: ModelDefinition, now: datetime | None = None) -> bool:
    """Whether it is not to be restarted by itself now."""
    return model.paused_until is not None and model.paused_until > (now or timezone.now())


def end_pauses() -> None:
    """Let pauses that are over go, so that nobody is shown a time that has passed."""
    for model in ModelDefinition.objects.filter(paused_until__lte=timezone.now()):
        over = ModelDefinition.objects.filter(pk=model.pk, paused_until=model.paused_until)
        with transaction.atomic():
            if over.update(paused_until=None):
                live.publish_models_changed([model.model_id], event_id=f"pause-{model.pk}-{model.paused_until}-end")
