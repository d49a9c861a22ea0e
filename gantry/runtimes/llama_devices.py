"""From GPUs as NVML names them to the names that llama-server gives them.

A server of its own is told by its environment which GPUs there are. The models of a router share the router's environment, so for them
it is said with `--device`, in llama.cpp's own names: CUDA0, CUDA1 … in the order of the bus, which is NVML's order too.
Source: `llama-server --list-devices`; NVML reference, nvmlDeviceGetHandleByUUID and nvmlDeviceGetIndex.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from gantry.planning.states import ErrorCode
from gantry.runtimes.exceptions import RuntimeRefused

BUS_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def device_arguments(devices: Sequence[str], nvml: Any = None) -> list[str]:
    """The flag that puts a model on these GPUs; nothing when it may use all.

    Args:
        devices: ids (UUIDs) as NVML gives them.
        nvml: the module `pynvml`, or what stands in for it.

    Raises:
        RuntimeRefused: one of them is not there.
    """
    if not devices:
        return []
    nvml = nvml or import_module("pynvml")
    return ["--device", ",".join(f"CUDA{_index(nvml, device)}" for device in devices)]


def _index(nvml: Any, device: str) -> int:
    try:
        nvml.nvmlInit()
        return int(nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(device)))
    except nvml.NVMLError as exc:
        raise RuntimeRefused(f"There is no GPU {device} here.", code=ErrorCode.BAD_PARAMETER) from exc
