"""What the tests of limits stand on: people who may switch, a policy, models that failed or serve."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Permission, User
from django.utils import timezone

from gantry.planning.states import JobState
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, ModelInstance, SwitchJob, SwitchPolicy
from tests.factories import make_job


def person(name: str, *permissions: str) -> Actor:
    """Somebody who may switch, and what else is named."""
    user = User.objects.create_user(name)
    user.user_permissions.add(*Permission.objects.filter(codename__in=["switch_model", *permissions]))
    return Actor(user, "rest")


def policy(**fields: Any) -> None:
    """The switch policy with these values."""
    SwitchPolicy(**fields).save()


def fail(model: ModelDefinition, code: str = "load_failed", *, seconds_ago: float = 0.0, **fields: Any) -> SwitchJob:
    """A switch to the model that failed."""
    ended = timezone.now() - timedelta(seconds=seconds_ago)
    pool = model.runtime.pool
    return make_job(pool, model, state=JobState.FAILED, error_code=code, finished_at=ended, **fields)


def serve(model: ModelDefinition) -> None:
    """The model is loaded and active."""
    ModelInstance.objects.filter(is_active=True).update(is_active=False)
    ModelInstance.objects.create(
        instance_id=f"00000000-0000-0000-0000-{model.pk:012d}",
        model=model,
        runtime=model.runtime,
        state="loaded",
        is_active=True,
        loaded_at=timezone.now(),
    )
