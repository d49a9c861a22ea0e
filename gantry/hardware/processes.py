"""What a process holds of the machine's RAM."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil


def with_children(pid: int) -> list[psutil.Process]:
    """A process and everything it started; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


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
