"""The memory of this host's pool, measured now."""

from __future__ import annotations

import uuid
from dataclasses import replace
from functools import cache
from typing import Any

import structlog
from django.conf import settings
from django.utils import timezone

from gantry import live
from gantry.hardware.base import DeviceReading, MemoryReading, MemorySource, MemoryUnreadable
from gantry.hardware.select import select_memory
from gantry.planning.types import DeviceMemory, MemoryBudget
from models_admin.models import MemoryPool, ModelInstance

log = structlog.get_logger(__name__)

_NOTICEABLE_BYTES = 10_000_000


@cache
def memory_source() -> MemorySource:
    """The memory of this host, as GANTRY_MEMORY says. Opened once in each process."""
    return select_memory(settings.MEMORY)


def read_pool(pool: MemoryPool) -> MemoryReading:
    """Look at the pool's memory now. One query.

    Raises MemoryUnreadable. What a runtime holds without a process of ours on this host is taken from its record. On GPUs
    the driver's figure of what is free knows of it already.
    """
    instances = list(ModelInstance.objects.filter(runtime__pool=pool).only("pid", "held_bytes"))
    reading = memory_source().read({row.pid: row.held_bytes for row in instances if row.pid})
    elsewhere = sum(row.held_bytes for row in instances if not row.pid)
    if not elsewhere:
        return reading
    return replace(
        reading,
        held_bytes=reading.held_bytes + elsewhere,
        free_bytes=reading.free_bytes if reading.kind == "nvml" else max(0, reading.free_bytes - elsewhere),
    )


def refresh_pool(pool: MemoryPool) -> None:
    """Look at the pool's memory, keep what was seen in its row, and tell every page when it moved by 10 MB or more."""
    try:
        reading = read_pool(pool)
    except MemoryUnreadable as exc:  # the last reading stands, with its time beside it
        log.warning("memory_unreadable", pool=pool.pk, reason=str(exc))
        return
    before = _rounded(pool)
    pool.name, pool.kind = reading.name, reading.kind
    pool.total_bytes, pool.free_bytes, pool.held_bytes = reading.total_bytes, reading.free_bytes, reading.held_bytes
    pool.devices = [_device(device) for device in reading.devices]
    pool.checked_at = timezone.now()
    pool.save(update_fields=["name", "kind", "total_bytes", "free_bytes", "held_bytes", "devices", "checked_at"])
    if before != _rounded(pool):
        live.publish_memory_changed(event_id=f"memory-{uuid.uuid4()}")


def _rounded(pool: MemoryPool) -> tuple[int, ...]:
    return tuple(size // _NOTICEABLE_BYTES for size in (pool.total_bytes, pool.free_bytes, pool.held_bytes))


def budget_now(pool: MemoryPool) -> MemoryBudget:
    """The pool's memory for a plan, measured now. Raises MemoryUnreadable."""
    reading = read_pool(pool)
    return MemoryBudget(
        total_bytes=reading.total_bytes,
        free_bytes=reading.free_bytes,
        devices=tuple(
            DeviceMemory(device.device_id, device.name, device.total_bytes, device.free_bytes)
            for device in reading.devices
        ),
    )


def _device(device: DeviceReading) -> dict[str, Any]:
    return {
        "id": device.device_id,
        "name": device.name,
        "total_bytes": device.total_bytes,
        "free_bytes": device.free_bytes,
        "held_bytes": device.held_bytes,
    }


def held_on(pid: int | None) -> dict[str, int]:
    """What a process holds on each device, where the pool has several; nothing for one that is not ours to look at."""
    return dict(memory_source().held_on(pid)) if pid else {}


def held_by(pid: int | None, reported_bytes: int | None) -> int:
    """What an instance holds: measured from its process, else what its runtime reports, else 0."""
    measured = memory_source().held_by(pid) if pid else 0
    return measured or reported_bytes or 0
