"""A pool of a given size, for machines that are shared with other work, for trying things out, and for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gantry.hardware.base import DeviceReading, MemoryReading
from gantry.hardware.processes import devices_told, resident_bytes, resident_for

_AMOUNT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B?\s*$", re.IGNORECASE)
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


def parse_pool(text: str) -> FixedMemory:
    """A pool as people write it: "8GiB", or "8GiB+8GiB" for one with two devices.

    Raises:
        ValueError: one of them is not an amount, or none at all.
    """
    first, *others = [parse_bytes(part) for part in text.split("+")]
    return FixedMemory(first + sum(others), devices=[first, *others] if others else ())


def parse_bytes(text: str) -> int:
    """An amount as people write it: "8GiB", "1.5 GB", "512MiB", "1000000". GiB is 1024³ bytes, GB is 1000³.

    Raises:
        ValueError: it is not an amount, or none at all.
    """
    match = _AMOUNT.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory such as 8GiB or 500MB")
    number, unit, binary = match.groups()
    factor = (1024 if binary else 1000) ** _POWERS[unit.upper()] if unit else 1
    amount = int(float(number) * factor)
    if amount <= 0:
        raise ValueError(f"{text!r} is no memory at all")
    return amount


class FixedMemory:
    """`total_bytes` for Gantry's models, whatever the machine has. Nobody else's memory is counted.

    Its devices, if there are any, exist in the mind only: "fixed-0", "fixed-1" and so on. A process holds its memory on those that
    it was told to use (CUDA_VISIBLE_DEVICES, as for real ones), evenly; one that was told none holds it on all of them alike.
    """

    def __init__(self, total_bytes: int, devices: Sequence[int] = ()) -> None:
        """Take the size of the pool, and of its devices where it has any: together they are the pool."""
        self._total_bytes = total_bytes
        self._devices = {f"fixed-{number}": size for number, size in enumerate(devices)}

    def read(self, held: Mapping[int, int]) -> MemoryReading:
        """The pool less the RAM of our processes."""
        if self._devices:
            return self._read_devices(held)
        held_bytes = resident_for(held)
        free_bytes = max(0, self._total_bytes - held_bytes)
        return MemoryReading("Fixed pool", "fixed", self._total_bytes, free_bytes, held_bytes)

    def _read_devices(self, held: Mapping[int, int]) -> MemoryReading:
        placed = [self._placed(pid, list(self._devices)) for pid in held]
        devices = []
        for index, (device_id, total) in enumerate(self._devices.items()):
            used = sum(one.get(device_id, 0) for one in placed)
            name = f"Fixed device {index}"
            devices.append(DeviceReading(device_id, index, name, total, max(0, total - used), used))
        free = sum(device.free_bytes for device in devices)
        held_bytes = sum(device.held_bytes for device in devices)
        return MemoryReading("Fixed pool", "fixed", self._total_bytes, free, held_bytes, tuple(devices))

    def held_by(self, pid: int) -> int:
        """RAM of the process with its children."""
        return resident_bytes(pid)

    def held_on(self, pid: int) -> Mapping[str, int]:
        """RAM of the process with its children, on the devices that it was told to use; empty when it was told none."""
        return self._placed(pid, ()) if self._devices else {}

    def _placed(self, pid: int, otherwise: Sequence[str]) -> dict[str, int]:
        told = [device_id for device_id in devices_told(pid) if device_id in self._devices] or otherwise
        used = resident_bytes(pid) if told else 0
        parts = {device_id: (used + number) // len(told) for number, device_id in enumerate(told)}
        return parts if used else {}
