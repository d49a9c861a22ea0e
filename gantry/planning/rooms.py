"""Where a model can be put: the whole pool, or some of its devices.

What a split assumes: llama.cpp places whole layers (`--split-mode layer`, its default), in proportion to what is free on each
device, and a layer's part of the KV cache with it. So the free memory of several devices counts together, less a margin for each
further one: up to a layer stays empty on it, and it holds a context and compute buffers of its own. The margin is a rule of thumb,
not a measurement: a model with few, large layers may still not fit where the sum says that it does. Its load then fails for want of
memory, and what was unloaded for it is put back.
Source: llama.cpp, tools/server/README.md (`--split-mode`, `--tensor-split`, `--main-gpu`), src/llama-model.cpp (`load_tensors`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from gantry.planning.exceptions import DeviceUnknown
from gantry.planning.types import DeviceMemory, LoadedModel, MemoryBudget

MIB = 1024**2
SPLIT_BYTES = 512 * MIB  # for each further device: CUDA's context there, and compute buffers
SPLIT_SHARE = 0.03  # of the need, for each further device: one of 32 layers
MOST_SETS_OF = 8  # devices: 255 sets; of more, only some are tried
# A process can use one slice of a divided GPU and no other device beside it, so nothing is split over slices.
# Source: NVIDIA Multi-Instance GPU User Guide, "CUDA Device Enumeration".
SLICE_PREFIX = "MIG-"


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

    def free_without(self, models: Iterable[LoadedModel]) -> int:
        """What is free here once these models are gone."""
        return self.free_bytes + sum(map(self.freed_by, models))

    def need(self, need_bytes: int) -> int:
        """What a model that needs so much in one place needs here."""
        further = max(0, len(self.device_ids) - 1)
        return need_bytes + further * (SPLIT_BYTES + int(SPLIT_SHARE * need_bytes))


def rooms(budget: MemoryBudget, wanted: Sequence[str]) -> list[Room]:
    """The places to try: the devices that are wanted together; else each single one, each pair, and so on up to all.

    Raises:
        DeviceUnknown: the pool has no such device.
    """
    known = {device.device_id: device for device in budget.devices}
    for device_id in wanted:
        if device_id not in known:
            raise DeviceUnknown(device_id, tuple(known))
    if not known:
        return [Room((), budget.free_bytes, budget.total_bytes, is_whole=True)]
    if wanted:
        named = tuple(known[device_id] for device_id in dict.fromkeys(wanted))
        sets: Iterable[tuple[DeviceMemory, ...]] = [named] if _can_be_joined(named) else combinations(named, 1)
    else:
        sets = filter(_can_be_joined, _sets(budget.devices))
    return [_room(devices, budget) for devices in sets]


def _can_be_joined(devices: Sequence[DeviceMemory]) -> bool:
    return len(devices) == 1 or not any(device.device_id.startswith(SLICE_PREFIX) for device in devices)


def _sets(devices: Sequence[DeviceMemory]) -> Iterator[tuple[DeviceMemory, ...]]:
    """All sets, the small ones first; of many devices each single one, and the emptiest two, three and so on."""
    if len(devices) <= MOST_SETS_OF:
        for size in range(1, len(devices) + 1):
            yield from combinations(devices, size)
        return
    yield from combinations(devices, 1)
    emptiest = sorted(devices, key=lambda device: (-device.free_bytes, device.device_id))
    for size in range(2, len(devices) + 1):
        yield tuple(device for device in devices if device in emptiest[:size])


def _room(devices: Sequence[DeviceMemory], budget: MemoryBudget) -> Room:
    # Where the pool has less free than its devices say, something is held of which nobody knows where: it may be here.
    hidden = max(0, sum(device.free_bytes for device in budget.devices) - budget.free_bytes)
    return Room(
        device_ids=tuple(device.device_id for device in devices),
        free_bytes=max(0, sum(device.free_bytes for device in devices) - hidden),
        total_bytes=sum(device.total_bytes for device in devices),
        is_whole=len(devices) == len(budget.devices),
    )
