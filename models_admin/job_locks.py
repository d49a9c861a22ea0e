"""Proof that somebody works on a job: a lock on a file, which the kernel drops with the process that holds it.

The worker of a host and the recovery of that host share its data directory. Elsewhere, and between a job's claim and its lock, the
heartbeat alone tells.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings


@contextmanager
def held(job_id: int) -> Iterator[None]:
    """Hold the job's lock; the file goes when the job has ended in order."""
    path, unlocked = _path(job_id), _unlocked_path(job_id)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with unlocked.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under its own name only once it is locked: whoever looks in between would take the job for abandoned.
        unlocked.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_abandoned(job_id: int) -> bool:
    """Whether a worker of this host took the job and is gone. False when nobody can tell."""
    path = _path(job_id)
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that ended in order between the two lines above has removed its file before it let go.
            return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except (FileNotFoundError, BlockingIOError):
        return False


def forget(job_id: int) -> None:
    """Remove what a worker that is gone left."""
    _path(job_id).unlink(missing_ok=True)
    _unlocked_path(job_id).unlink(missing_ok=True)


def _path(job_id: int) -> Path:
    return Path(settings.DATA_DIR) / "run" / "jobs" / f"{job_id}.lock"


def _unlocked_path(job_id: int) -> Path:
    return _path(job_id).with_suffix(".unlocked")
