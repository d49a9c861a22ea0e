"""Memory and the state of everything at a glance."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Schema
from pydantic import Field

from gantry.api.v1.bodies import Strict
from gantry.api.v1.bodies_jobs import Job
from gantry.api.v1.bodies_models import Model, model_body
from models_admin.overview import DeviceView, Overview, PoolView, Segment


class Part(Schema):
    """What a part of the memory is used by."""

    name: str = Field(description="A model's name, “Loading”, “Other programs” or “Free”.")
    kind: Literal["model", "others", "free"]
    size_bytes: int
    percent: float = Field(description="Of the whole.")


class Device(Schema):
    """One device of several, such as a GPU."""

    name: str
    total_bytes: int
    used_bytes: int
    parts: list[Part]


class Pool(Schema):
    """The memory of one host, as last read: a few seconds ago at most."""

    host: str
    name: str
    kind: str = Field(description="nvml (GPUs), ram or fixed.")
    total_bytes: int
    free_bytes: int
    used_bytes: int
    held_bytes: int = Field(description="Of that, by models that Gantry holds.")
    checked_at: datetime | None
    parts: list[Part]
    devices: list[Device] = Field(description="Where there are several.")


class MemoryAnswer(Schema):
    """The memory of all hosts."""

    pools: list[Pool]


class RuntimeHealth(Schema):
    """How a runtime is."""

    id: int
    name: str
    kind: str
    is_enabled: bool
    is_healthy: bool
    health_text: str


class StatusAnswer(Schema):
    """Everything at a glance."""

    active: str | None = Field(description="Id of the model that serves; null: none does.")
    models: list[Model]
    job: Job | None = Field(description="The job that is at work or waits.")
    last_job: Job | None = Field(description="When none does: the last one that ended.")
    pools: list[Pool]
    runtimes: list[RuntimeHealth]


class RecoverIn(Strict):
    """Which hosts are to be looked at."""

    hosts: list[str] = Field(default_factory=list, max_length=100, description="Empty: all of them.")


class RecoverAnswer(Schema):
    """Who was asked."""

    hosts: list[str]
    sent: bool


def pool_body(view: PoolView) -> dict[str, Any]:
    """Pool of a view."""
    names = ("host", "name", "kind", "total_bytes", "free_bytes", "held_bytes", "checked_at")
    return {
        **{name: getattr(view.pool, name) for name in names},
        "used_bytes": view.used_bytes,
        "parts": [_part(part) for part in view.segments],
        "devices": [_device(device) for device in view.devices],
    }


def status_body(now: Overview) -> dict[str, Any]:
    """StatusAnswer of the overview."""
    names = RuntimeHealth.model_fields
    return {
        "active": now.active.model.model_id if now.active else None,
        "models": [model_body(row) for row in now.rows],
        "job": now.job,
        "last_job": now.last_job,
        "pools": [pool_body(view) for view in now.pools],
        "runtimes": [{name: getattr(runtime, name) for name in names} for runtime in now.runtimes],
    }


def _device(view: DeviceView) -> dict[str, Any]:
    return {
        "name": view.name,
        "total_bytes": view.total_bytes,
        "used_bytes": view.used_bytes,
        "parts": [_part(part) for part in view.segments],
    }


def _part(part: Segment) -> dict[str, Any]:
    return {name: getattr(part, name) for name in Part.model_fields}
