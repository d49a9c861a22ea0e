"""Waiting until nothing is left to be done, and saying what still is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import httpx
import redis
from django.conf import settings

from gantry.chat.models import Message
from models_admin import worker_signs
from models_admin.models import ModelInstance, SwitchJob
from tests.chaos.reality import (
    PARTS,
    ModelProcess,
    instance_of,
    model_processes,
    part_of,
    processes_in,
    serving_problems,
)
from tests.chaos.world import World

# A job without a sign of life is ended after 30 s, a look comes every 5 s, and a process that died again within a minute
# is started again after up to 30 s; then what was unloaded is loaded again, perhaps after a drain.
QUIET_SECONDS = 120.0
LOOK_SECONDS = 0.25


class NotQuiet(Exception):
    """Something is still to be done after QUIET_SECONDS: `reasons` says what."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


def wait_quiet(world: World, since: float) -> None:
    """Return when all is quiet, seen twice.

    Args:
        since: the worker has to have been heard of after this moment, seconds since the epoch.

    Raises:
        NotQuiet: it did not become so in time.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    times_seen = 0
    while times_seen < 2:
        reasons = list(unrest(world, since))
        times_seen = 0 if reasons else times_seen + 1
        if reasons and time.monotonic() > deadline:
            raise NotQuiet(reasons)
        time.sleep(LOOK_SECONDS)


def unrest(world: World, since: float) -> Iterator[str]:
    """What is still to be done, or what does not agree with what is there."""
    if world.stack.process.poll() is not None:
        yield "I2: `up` itself has ended"
    yield from (f"I2: the {name} is down" for name in PARTS if part_of(world.stack, name) is None)
    yield from _not_ready(world, since)
    for job in SwitchJob.objects.unfinished():
        yield f"I2: job {job.pk} ({job.kind} {job.target_name}) has not ended: {job.state}, {job.stage_text}"
    for answer in Message.objects.being_written():
        yield f"I4: answer {answer.pk} by {answer.model_id} has not ended"
    yield from differences(world)


def _not_ready(world: World, since: float) -> Iterator[str]:
    try:
        response = httpx.get(f"{world.stack.url}readyz", timeout=5)
    except httpx.HTTPError as exc:
        yield f"I2: the web server does not answer: {type(exc).__name__}"
        return
    if response.status_code != httpx.codes.OK:
        yield f"I2: not ready: {response.text}"
    elif _heard_of_worker_at() < since:
        yield "I2: the worker was not heard of"


def _heard_of_worker_at() -> float:
    """When the worker gave its last sign of life, seconds since the epoch."""
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2) as client:
        try:
            return float(client.zscore(worker_signs.KEY, settings.HOST_NAME) or 0)
        except redis.RedisError:
            return 0.0


def differences(world: World) -> Iterator[str]:
    """Where the records of what is loaded and the processes that are there do not agree (I3, I7)."""
    rows = {str(row.instance_id): row for row in ModelInstance.objects.select_related("model")}
    found = {process.instance_id: process for process in model_processes(world.runtime_dir)}
    for instance_id, row in rows.items():
        name = f"{row.model.model_id} ({instance_id[:8]})"
        yield from (f"I3: {name} {problem}" for problem in _wrong_with(row, found.get(instance_id)))
    if any(row.is_active and row.state != "loaded" for row in rows.values()):
        yield "I3: the active model is not loaded"
    yield from _left_over(world, rows)


def _wrong_with(row: ModelInstance, process: ModelProcess | None) -> Iterator[str]:
    """Where one record does not say what is there."""
    if row.state == "crashed":
        return
    if row.state != "loaded":
        yield f"is left {row.state}"
    elif process is None or not process.child.is_alive:
        yield "is recorded as loaded, and its process is gone"
    elif process.child.pid != row.pid:
        yield f"is recorded as process {row.pid} and runs as {process.child.pid}"
    else:
        yield from serving_problems(row.base_url, row.api_key, settings.MODELS_DIR / row.model.path)


def _left_over(world: World, rows: Mapping[str, ModelInstance]) -> Iterator[str]:
    """Processes and folders of ours that no record knows."""
    loaded = {instance_id for instance_id, row in rows.items() if row.state == "loaded"}
    for process in processes_in(world.runtime_dir):
        instance_id = instance_of(process, world.runtime_dir)
        if instance_id not in loaded:
            yield f"I7: process {process.pid} of instance {instance_id[:8]} runs without a record"
    for folder in world.runtime_dir.glob("*/*"):
        if folder.name != "logs" and folder.name not in rows:
            yield f"I7: the folder of instance {folder.name[:8]} is left"
