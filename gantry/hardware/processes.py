"""What a process holds of the machine's RAM."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil


def with_children(pid: int) -> list[psutil.Process]:
    """A process and everything it started; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        if not _keeps_children():
            return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []
    found = [process]
    for child in _descendants(pid):
        with suppress(psutil.Error):  # gone meanwhile
            found.append(psutil.Process(child))
    return found


@cache
def _keeps_children() -> bool:
    """Whether the kernel lists the children of a process (CONFIG_PROC_CHILDREN)."""
    me = os.getpid()
    return Path(f"/proc/{me}/task/{me}/children").exists()


def _descendants(pid: int) -> list[int]:
    """What a process started, and what that started, by the kernel's own lists.

    psutil looks at every process of the machine for it: milliseconds, many times in a switch. The kernel may leave out a child whose
    sibling ends at that moment (proc(5), `/proc/pid/task/tid/children`); a reading of memory is soon made again.
    """
    children: list[int] = []
    for task in _listed(f"/proc/{pid}/task"):
        with suppress(OSError):  # a thread that has ended meanwhile
            children += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return [*children, *(further for child in children for further in _descendants(child))]


# A server has a hundred threads, and a Path for each takes longer than the reading.


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def resident_bytes(pid: int) -> int:
    """RAM of a process with its children; 0 when it is gone.

    Mapped weights count, as they should. Libraries that several processes share count once for each (a few MB).
    """
    return sum(_resident(process) for process in with_children(pid))


def resident_for(held: Mapping[int, int]) -> int:
    """RAM of several processes together."""
    return sum(resident_bytes(pid) for pid in held)


def mapped_bytes(pids: Iterable[int]) -> int:
    """The part of the processes' RAM that is file contents, which the kernel counts as available to others."""
    return sum(_mapped(process.pid) for pid in pids for process in with_children(pid))


def devices_told(pid: int) -> list[str]:
    """The devices that a process, or the first of its children, was told to use, by their ids; empty when none, or it is gone."""
    for process in with_children(pid):
        try:
            named = process.environ().get("CUDA_VISIBLE_DEVICES", "")
        except psutil.Error:
            continue
        if named:
            return list(dict.fromkeys(name.strip() for name in named.split(",")))
    return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _mapped(pid: int) -> int:
    try:
        with Path(f"/proc/{pid}/status").open(encoding="ascii", errors="replace") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("RssFile:")), 0)
    except (OSError, ValueError):
        return 0
