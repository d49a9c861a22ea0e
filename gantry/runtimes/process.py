"""Processes that are proven to be the ones we started, before anything is done to them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gantry.runtimes.llama_shim import read_boot_id, read_start

POLL_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """A process by number and start time: the number alone may belong to another process by now."""

    pid: int
    start: int  # clock ticks since boot, /proc/<pid>/stat field 22

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs. One that has ended but was not collected yet does not."""
        return read_start(self.pid) == self.start and not _is_zombie(self.pid)

    def send(self, number: int) -> bool:
        """Signal it; False when it is gone.

        The handle is opened before the proof and the signal goes through it, so that a number that changes
        hands in between is never hit.
        """
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if read_start(self.pid) != self.start:
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)


def mark_from(record: Mapping[str, Any], name: str) -> ProcessMark | None:
    """A mark as the keeper wrote it; None when it cannot be proven, as after a reboot."""
    process = record.get(name) or {}
    pid, start = process.get("pid"), process.get("start")
    if record.get("boot_id") != read_boot_id() or not isinstance(pid, int) or not isinstance(start, int):
        return None
    return ProcessMark(pid, start)


def group_of(leader: ProcessMark) -> list[ProcessMark]:
    """All processes in the group that `leader` leads, itself included; empty when it is gone."""
    # The group first: that is one system call, while a mark is a file to read, and most processes are somebody else's.
    members = [mark for pid in _pids() if _group(pid) == leader.pid and (mark := _mark(pid)) is not None]
    # Alive after the look: then the group was its own during the look.
    return members if leader.is_alive else []


def listens_on(pid: int, port: int) -> bool:
    """Whether a process listens on a TCP port; False when it is gone."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(entry.status == psutil.CONN_LISTEN and entry.laddr.port == port for entry in connections if entry.laddr)


def choose_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_taken(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection's wait is no listener
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def wait_gone(marks: Iterable[ProcessMark], seconds: float) -> bool:
    """Whether all of them ended within the time."""
    deadline = time.monotonic() + seconds
    left = list(marks)
    while left := [mark for mark in left if mark.is_alive]:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - a Path for each takes longer


def _mark(pid: int) -> ProcessMark | None:
    start = read_start(pid)
    return None if start is None else ProcessMark(pid, start)


def _group(pid: int) -> int:
    with contextlib.suppress(OSError):
        return os.getpgid(pid)
    return 0


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True
