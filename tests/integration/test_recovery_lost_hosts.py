"""A host whose worker is gone for good: nobody waits for it for ever."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from gantry.bringup.broker import answers, embedded_command
from gantry.planning.states import ErrorCode, JobState
from models_admin import stale_jobs, worker_signs
from models_admin.models import MemoryPool, ModelDefinition, SwitchJob
from tests.factories import make_job
from tests.functional.stack import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = timedelta(minutes=5)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real broker of this module's own; its address."""
    folder = tmp_path_factory.mktemp("valkey")
    socket = folder / "v.sock"
    process = subprocess.Popen(embedded_command(socket, folder / "data", folder / "valkey.log"))
    try:
        wait_until(lambda: answers(f"unix://{socket}"), 10)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def broker(valkey: str, settings: object) -> Iterator[None]:
    """It answers, and knows no worker yet."""
    settings.REDIS_URL = valkey  # type: ignore[attr-defined]
    worker_signs._client.cache_clear()
    worker_signs._client().flushall()
    yield
    worker_signs._client().close()
    worker_signs._client.cache_clear()


def old_job(pool: MemoryPool, model: ModelDefinition, **fields: object) -> SwitchJob:
    """A job that was asked for five minutes ago."""
    long_ago = timezone.now() - LONG_AGO
    job = make_job(pool, model, **{"heartbeat_at": long_ago, **fields})
    SwitchJob.objects.filter(pk=job.pk).update(created_at=long_ago)
    return job


def silent_for(host: str, seconds: float) -> None:
    """The worker of a host was last heard of so long ago."""
    worker_signs._client().zadd(worker_signs.KEY, {host: time.time() - seconds})


def ended() -> list[SwitchJob]:
    jobs = stale_jobs.end_jobs_of_lost_hosts()
    for job in jobs:
        job.refresh_from_db()
    return jobs


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize("state", [JobState.WAITING, JobState.LOADING])
def test_job_of_a_lost_host_ends_in_words(small: ModelDefinition, pool: MemoryPool, state: JobState) -> None:
    job = old_job(pool, small, state=state)
    silent_for("local", 61)
    assert ended() == [job]
    job.refresh_from_db()
    assert (job.state, job.error_code) == (JobState.INTERRUPTED, ErrorCode.INTERRUPTED)
    assert "The worker of local has not been heard of for 60 s" in job.error_text
    assert ended() == []


@pytest.mark.usefixtures("broker")
def test_worker_that_is_silent_for_a_moment_keeps_its_jobs(small: ModelDefinition, pool: MemoryPool) -> None:
    old_job(pool, small)
    silent_for("local", 30)
    assert ended() == []
    worker_signs.note_alive("local")
    assert ended() == []


@pytest.mark.usefixtures("broker")
def test_worker_that_has_just_ended_in_order_keeps_its_jobs(small: ModelDefinition, pool: MemoryPool) -> None:
    old_job(pool, small)
    worker_signs.note_alive("local")
    worker_signs.note_ended("local")
    assert ended() == []


@pytest.mark.usefixtures("broker")
def test_host_never_heard_of_is_given_its_minute_first(small: ModelDefinition, pool: MemoryPool) -> None:
    job = old_job(pool, small)
    assert ended() == []
    worker_signs._client().zadd(worker_signs.GONE_KEY, {"local": time.time() - 61})
    assert ended() == [job]


@pytest.mark.usefixtures("broker")
def test_new_job_and_job_that_still_beats_are_left_alone(small: ModelDefinition, pool: MemoryPool) -> None:
    make_job(pool, small, heartbeat_at=timezone.now())
    old_job(pool, small, state=JobState.LOADING, heartbeat_at=timezone.now())
    silent_for("local", 61)
    assert ended() == []


def test_without_a_broker_nobody_is_taken_for_lost(small: ModelDefinition, pool: MemoryPool, tmp_path: Path) -> None:
    old_job(pool, small)
    assert ended() == []
