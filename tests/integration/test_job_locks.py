"""A worker that is gone is noticed by the lock that the kernel took away with it, long before its heartbeat is missed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.utils import timezone

from gantry.planning.states import JobState
from models_admin import job_locks, recovery
from models_admin.models import MemoryPool, ModelDefinition
from tests.factories import make_job

pytestmark = pytest.mark.django_db(transaction=True)

TURNS = 5_000
_HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def quick_threads() -> Iterator[None]:
    """Threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_threads")
def test_job_is_not_taken_for_abandoned_in_the_moment_in_which_its_lock_comes_or_goes() -> None:
    is_over, wrong, looks = threading.Event(), 0, 0

    def look() -> None:
        nonlocal wrong, looks
        while not is_over.is_set():
            wrong += job_locks.is_abandoned(1)
            looks += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(TURNS):
            with job_locks.held(1):
                pass
    finally:
        is_over.set()
        watcher.join()
    assert looks > TURNS / 10
    assert wrong == 0


def test_job_that_somebody_works_on_is_left_alone(small: ModelDefinition, pool: MemoryPool) -> None:
    job = make_job(pool, small, state=JobState.LOADING, heartbeat_at=timezone.now())
    with job_locks.held(job.pk):
        recovery.reconcile_host(pool.host)
    job.refresh_from_db()
    assert job.state == JobState.LOADING


def test_job_without_a_lock_waits_for_its_heartbeat(small: ModelDefinition, pool: MemoryPool) -> None:
    job = make_job(pool, small, state=JobState.LOADING, heartbeat_at=timezone.now())
    recovery.reconcile_host(pool.host)
    job.refresh_from_db()
    assert job.state == JobState.LOADING


def test_job_of_a_killed_worker_is_interrupted_at_the_next_look(small: ModelDefinition, pool: MemoryPool) -> None:
    job = make_job(pool, small, state=JobState.LOADING, heartbeat_at=timezone.now())
    path = settings.DATA_DIR / "run" / "jobs" / f"{job.pk}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdout
        assert worker.stdout.readline() == b"held\n"
        assert not job_locks.is_abandoned(job.pk)
        worker.kill()
    recovery.reconcile_host(pool.host)
    job.refresh_from_db()
    assert job.state == JobState.INTERRUPTED
    assert not path.exists()
