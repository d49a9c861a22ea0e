"""When a model was last used: for `oldest first`, for unloading when idle, and for people."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from models_admin.models import ModelDefinition

EXACT_SECONDS = 60.0  # `last_used_at` is true to a minute: more is not worth a write for each answer


def note_use(model_id: str) -> None:
    """A model is answering now. One query, and a write at most once a minute."""
    now = timezone.now()
    is_long_ago = Q(last_used_at=None) | Q(last_used_at__lt=now - timedelta(seconds=EXACT_SECONDS))
    ModelDefinition.objects.filter(is_long_ago, model_id=model_id).update(last_used_at=now)
