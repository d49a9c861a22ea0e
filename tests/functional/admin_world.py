"""What the tests of the admin pages stand on: two models, one of them active, and people with and without rights."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Permission, User
from django.utils import timezone

from models_admin.models import ModelDefinition, ModelInstance, SwitchJob
from tests.factories import make_job

MB = 1_000_000


def staff(name: str, *permissions: str) -> User:
    """Somebody who may sign in to the admin, with these permissions of models_admin."""
    user = User.objects.create_user(name, password=f"pass-{name}", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=permissions, content_type__app_label="models_admin")
    )
    return user


def load(model: ModelDefinition, **fields: Any) -> ModelInstance:
    """A record that says the model is loaded."""
    defaults = {"state": "loaded", "held_bytes": model.size_bytes, "runtime": model.runtime, "is_active": False}
    return ModelInstance.objects.create(instance_id=uuid.uuid4(), model=model, **{**defaults, **fields})


def step(kind: str, name: str, state: str, **fields: Any) -> dict[str, Any]:
    """A step of a job, as `live.StepSnapshot`."""
    defaults = {"percent": 0, "expected_seconds": 1.5, "started_at": None, "seconds": None, "bytes_done": None}
    return {"kind": kind, "model_name": name, "state": state, "bytes_total": None, **defaults, **fields}


def loading_job(target: ModelDefinition, user: User, **fields: Any) -> SwitchJob:
    """A switch in the middle of its load, asked for three seconds ago."""
    now = timezone.now()
    steps = [
        step("unload", "Small", "done", percent=100, started_at=now.isoformat(), seconds=0.7),
        step("load", target.name, "running", percent=42, seconds=0.6, bytes_done=106 * MB, bytes_total=253 * MB),
        step("verify", target.name, "pending"),
    ]
    defaults = {
        "state": "loading",
        "from_name": "Small",
        "requested_by": user,
        "requested_by_name": user.username,
        "steps": steps,
        "percent": 52.0,
        "expected_seconds": 12.0,
        "eta_seconds": 7.4,
        "stage_text": f"Loading {target.name}",
        "seq": 4,
    }
    return aged(make_job(target.runtime.pool, target, **{**defaults, **fields}), seconds=3)


def ended_job(target: ModelDefinition, user: User, state: str, *, seconds_ago: float = 5, **fields: Any) -> SwitchJob:
    """A switch that took four seconds."""
    ended = timezone.now() - timedelta(seconds=seconds_ago)
    defaults = {"requested_by_name": user.username, "finished_at": ended, "expected_seconds": 3.0, "state": state}
    job = make_job(target.runtime.pool, target, **{**defaults, **fields})
    return aged(job, seconds=seconds_ago + 4)


def aged(job: SwitchJob, *, seconds: float) -> SwitchJob:
    """The job as if it had been asked for so long ago."""
    SwitchJob.objects.filter(pk=job.pk).update(created_at=timezone.now() - timedelta(seconds=seconds))
    job.refresh_from_db()
    return job
