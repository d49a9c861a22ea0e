"""Whose turn it is to change what is loaded on one server."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from gantry.runtimes.exceptions import RuntimeRefused


class Turn:
    """The right to load and unload on one server, held by one thread of one process at a time.

    Calls that cross on the wire fail in odd ways with TabbyAPI, and a router that is let go by one must not be just starting for another.
    The kernel takes the right back from a process that dies.
    """

    def __init__(self, folder: Path) -> None:
        """Take nothing yet."""
        self._path = folder / "turn.lock"
        self._handle: int | None = None

    def take(self) -> bool:
        """Take it, if nobody has it.

        Raises:
            RuntimeRefused: the folder cannot be used.
        """
        return self._lock(fcntl.LOCK_EX)

    def is_taken(self) -> bool:
        """Whether anybody has it now. Those who ask do not see each other.

        Raises:
            RuntimeRefused: the folder cannot be used.
        """
        is_free = self._lock(fcntl.LOCK_SH)
        self.give_back()
        return not is_free

    def give_back(self) -> None:
        """Let the next one have it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _lock(self, way: int) -> bool:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise RuntimeRefused(f"{self._path} cannot be written: {exc.strerror}.") from exc
        try:
            fcntl.flock(handle, way | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._handle = handle
        return True
