"""Proof that somebody works on a job: a lock on a file, which the kernel drops with the process that holds it.

The worker of a host and the recovery of that host share its data directory. Elsewhere, and between a job's claim and its lock, the
heartbeat alone tells.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings


@contextmanager
def held(job_id: int) -> Iterator[None]:
    """Hold the job's lock; the file goes when the job has ended in order."""
    path = _path(job_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_abandoned(job_id: int) -> bool:
    """Whether a worker of this host took the job and is gone. False when nobody can tell."""
    try:
        file = _path(job_id).open("r+")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def forget(job_id: int) -> None:
    """Remove what a worker that is gone left."""
    _path(job_id).unlink(missing_ok=True)


def _path(job_id: int) -> Path:
    return Path(settings.DATA_DIR) / "run" / "jobs" / f"{job_id}.lock"
