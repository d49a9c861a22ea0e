"""The machine's RAM, or the part of it that a container leaves us."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import psutil

from gantry.hardware.base import MemoryReading
from gantry.hardware.cgroup import Limit, memory_limits
from gantry.hardware.processes import mapped_bytes, resident_bytes, resident_for


class RAMMemory:
    """RAM, shared with every other program on the machine."""

    def __init__(self, limits: Callable[[], Sequence[Limit]] = memory_limits) -> None:
        """`limits` tells what a container allows at this moment."""
        self._limits = limits

    def read(self, held: Mapping[int, int]) -> MemoryReading:
        """Total and free RAM as the machine and every limit above us allow.

        Weights that our models have mapped are file contents to the kernel, which counts them as available.
        They are in use all the same, so they are taken off.
        """
        machine = psutil.virtual_memory()
        limits = self._limits()
        total = min([machine.total, *(limit.limit_bytes for limit in limits)])
        available = min([machine.available, *(limit.limit_bytes - limit.used_bytes for limit in limits)])
        free = min(total, max(0, available - mapped_bytes(held)))
        return MemoryReading("RAM", "ram", total, free, resident_for(held))

    def held_by(self, pid: int) -> int:
        """RAM of the process with its children."""
        return resident_bytes(pid)

    def held_on(self, pid: int) -> Mapping[str, int]:
        """Nothing: it has no devices."""
        return {}
