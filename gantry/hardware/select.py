"""Which memory Gantry plans with, from one setting."""

from __future__ import annotations

from collections.abc import Callable

from gantry.hardware.base import MemorySource
from gantry.hardware.fixed import parse_pool
from gantry.hardware.nvml import GPUMissingError, open_nvml
from gantry.hardware.ram import RAMMemory


def select_memory(setting: str, open_gpu: Callable[[], MemorySource | None] = open_nvml) -> MemorySource:
    """The memory that GANTRY_MEMORY names.

    Args:
        setting: `auto` (the GPUs if there are any, else RAM), `nvml`, `ram`, or `fixed:` and an amount; several
            amounts with a + between them are a pool of so many devices.

    Raises:
        GPUMissingError: `nvml`, and there is no GPU.
        ValueError: any other text, or an amount that is none.
    """
    kind, _, amount = setting.strip().partition(":")
    match kind.lower():
        case "fixed":
            return parse_pool(amount)
        case "ram":
            return RAMMemory()
        case "auto":
            return open_gpu() or RAMMemory()
        case "nvml":
            return _require(open_gpu())
    raise ValueError(f"{setting!r} is no memory: use auto, ram, nvml, or a fixed amount such as fixed:8GiB")


def _require(source: MemorySource | None) -> MemorySource:
    if source is None:
        raise GPUMissingError("no NVIDIA GPU can be used here; set GANTRY_MEMORY to auto, ram or a fixed amount")
    return source
