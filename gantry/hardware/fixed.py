"""A pool of a given size, for machines that are shared with other work, and for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gantry.hardware.base import MemoryReading
from gantry.hardware.processes import resident_bytes, resident_for

_AMOUNT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?))?B?\s*$", re.IGNORECASE)
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


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
    """`total_bytes` for Gantry's models, whatever the machine has. Nobody else's memory is counted."""

    def __init__(self, total_bytes: int) -> None:
        """Take the size of the pool."""
        self._total_bytes = total_bytes

    def read(self, held: Mapping[int, int]) -> MemoryReading:
        """The pool less the RAM of our processes."""
        held_bytes = resident_for(held)
        free_bytes = max(0, self._total_bytes - held_bytes)
        return MemoryReading("Fixed pool", "fixed", self._total_bytes, free_bytes, held_bytes)

    def held_by(self, pid: int) -> int:
        """RAM of the process with its children."""
        return resident_bytes(pid)

    def held_on(self, pid: int) -> Mapping[str, int]:
        """Nothing: it has no devices."""
        return {}
