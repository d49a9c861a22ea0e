"""When a model was last used, and by whom: for `oldest first`, for unloading when idle, and for people before they unload it."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Q
from django.utils import timezone

from models_admin.models import ModelDefinition, ModelUse

EXACT_SECONDS = 60.0  # both are true to a minute: more is not worth a write for each answer
USING_NOW_SECONDS = 300.0  # somebody who got an answer within this time is still at it


def note_use(model_id: str, user_id: int | None = None) -> None:
    """A model is answering now. A query or two, and writes at most once a minute.

    Args:
        user_id: whom it answers; None when nobody knows.
    """
    now = timezone.now()
    long_ago = now - timedelta(seconds=EXACT_SECONDS)
    is_long_ago = Q(last_used_at=None) | Q(last_used_at__lt=long_ago)
    ModelDefinition.objects.filter(is_long_ago, model_id=model_id).update(last_used_at=now)
    if user_id is None or ModelUse.objects.filter(model__model_id=model_id, user=user_id, at__gte=long_ago).exists():
        return
    model = ModelDefinition.objects.filter(model_id=model_id).first()
    if model is not None:
        ModelUse.objects.update_or_create(model=model, user_id=user_id, defaults={"at": now})


def people_using() -> dict[int, int]:
    """Primary key of a model -> how many people got an answer from it in the last five minutes. One query."""
    since = timezone.now() - timedelta(seconds=USING_NOW_SECONDS)
    counts = ModelUse.objects.filter(at__gte=since).values_list("model").annotate(people=Count("user"))
    return dict(counts.order_by())
