"""The one way to ask for memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One device of a pool: total = held by models + used by others + free, in bytes."""

    device_id: str  # stable across restarts: the GPU's UUID
    index: int  # as nvidia-smi counts; slices of a divided GPU have its index
    name: str
    total_bytes: int
    free_bytes: int
    held_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """One look at a pool. total = held by models + used by others + free, in bytes.

    `devices` are its parts where it has any that a model can be put on; their sums are the pool's figures.
    """

    name: str  # what people see: "NVIDIA H200", "RAM", "Fixed pool"
    kind: str  # nvml, ram, fixed
    total_bytes: int
    free_bytes: int
    held_bytes: int  # by Gantry's own models
    devices: tuple[DeviceReading, ...] = ()

    @property
    def others_bytes(self) -> int:
        """Used by programs that are not Gantry's models."""
        return max(0, self.total_bytes - self.free_bytes - self.held_bytes)


class MemoryUnreadable(Exception):
    """The memory cannot be looked at now: no driver, no device, no answer. The text says which."""


class MemorySource(Protocol):
    """Something that has memory for models."""

    def read(self, held: Mapping[int, int]) -> MemoryReading:
        """Look now.

        Args:
            held: pid of each model process of ours -> bytes that its runtime measured (0 if unknown).

        Raises:
            MemoryUnreadable: it cannot be looked at now.
        """
        ...

    def held_by(self, pid: int) -> int:
        """Bytes of this pool that the process (with its children) holds now; 0 when it is gone."""
        ...

    def held_on(self, pid: int) -> Mapping[str, int]:
        """The same by device id; empty where the pool has no devices, or nobody can tell."""
        ...
