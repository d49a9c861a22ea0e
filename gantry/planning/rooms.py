"""Where a model can be put: the whole pool, or some of its devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from gantry.planning.exceptions import DeviceUnknown
from gantry.planning.types import DeviceMemory, LoadedModel, MemoryBudget

MIB = 1024**2
# A model that is split over devices takes more in all: each further one holds a context of its own (llama.cpp, CUDA: about
# 512 MiB), and layers are placed whole, so that a part of each device stays empty.
SPLIT_BYTES = 512 * MIB
SPLIT_SHARE = 0.02  # of the need, for each further device
MOST_SETS_OF = 8  # devices; with more, single ones and all of them together are tried


@dataclass(frozen=True, slots=True)
class Room:
    """A place for a model. `device_ids` is empty for a pool without devices; bytes."""

    device_ids: tuple[str, ...]
    free_bytes: int
    total_bytes: int
    is_whole: bool  # all of the pool

    def freed_by(self, model: LoadedModel) -> int:
        """What evicting a model frees here. One of which nobody knows where it is counts for the pool as a whole only."""
        if not model.held_on:
            return model.held_bytes if self.is_whole else 0
        if not self.device_ids:
            return model.held_bytes
        return sum(size for device, size in model.held_on.items() if device in self.device_ids)

    def need(self, need_bytes: int) -> int:
        """What a model that needs so much in one place needs here."""
        further = max(0, len(self.device_ids) - 1)
        return need_bytes + further * (SPLIT_BYTES + int(SPLIT_SHARE * need_bytes))


def rooms(budget: MemoryBudget, wanted: Sequence[str]) -> list[Room]:
    """The places to try: the devices that are wanted together; else each single one, each pair, and so on up to all.

    Raises:
        DeviceUnknown: the pool has no such device.
    """
    if not budget.devices:
        if wanted:
            raise DeviceUnknown(wanted[0], ())
        return [Room((), budget.free_bytes, budget.total_bytes, is_whole=True)]
    known = {device.device_id: device for device in budget.devices}
    for device_id in wanted:
        if device_id not in known:
            raise DeviceUnknown(device_id, tuple(known))
    if wanted:
        return [_room([known[device_id] for device_id in dict.fromkeys(wanted)], budget)]
    return [_room(devices, budget) for devices in _sets(budget.devices)]


def _sets(devices: Sequence[DeviceMemory]) -> Iterator[Sequence[DeviceMemory]]:
    sizes = range(1, len(devices) + 1) if len(devices) <= MOST_SETS_OF else (1, len(devices))
    for size in sizes:
        yield from combinations(devices, size)


def _room(devices: Sequence[DeviceMemory], budget: MemoryBudget) -> Room:
    return Room(
        device_ids=tuple(device.device_id for device in devices),
        free_bytes=sum(device.free_bytes for device in devices),
        total_bytes=sum(device.total_bytes for device in devices),
        is_whole=len(devices) == len(budget.devices),
    )
