"""Memory of NVIDIA GPUs, all devices of the machine together.

Source: NVML reference (nvmlDeviceGetMemoryInfo, nvmlDeviceGetComputeRunningProcesses,
nvmlDeviceGetGraphicsRunningProcesses), through the module `pynvml` of the package nvidia-ml-py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from gantry.hardware.base import MemoryReading, MemoryUnreadable
from gantry.hardware.processes import with_children


class GPUMissingError(MemoryUnreadable):
    """There is no NVIDIA driver, or no device, or the driver does not answer."""


def open_nvml(nvml: Any = None) -> NVMLMemory | None:
    """The machine's GPUs; None when it has none that can be used.

    Args:
        nvml: the module `pynvml`, or what stands in for it.
    """
    nvml = nvml or import_module("pynvml")  # on first use: a host without GPU never loads it
    try:
        nvml.nvmlInit()
        devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return NVMLMemory(nvml, devices) if devices else None
    except nvml.NVMLError:
        return None


class NVMLMemory:
    """The sum over all devices. A model that must fit on one of several devices may need more than this shows."""

    def __init__(self, nvml: Any, devices: list[Any]) -> None:
        """Take the initialised module and its device handles."""
        self._nvml = nvml
        self._devices = devices

    def read(self, held: Mapping[int, int]) -> MemoryReading:
        """Total and free as the driver says, other users' processes included.

        Raises:
            GPUMissingError: the driver stopped answering.
        """
        try:
            readings = [self._nvml.nvmlDeviceGetMemoryInfo(device) for device in self._devices]
            name = self._name()
        except self._nvml.NVMLError as exc:
            raise GPUMissingError(f"the GPU driver does not answer: {exc}") from exc
        total = sum(int(reading.total) for reading in readings)
        free = sum(int(reading.free) for reading in readings)
        ours = sum(self.held_by(pid) or reported for pid, reported in held.items())
        return MemoryReading(name, "nvml", total, free, min(ours, total - free))

    def held_by(self, pid: int) -> int:
        """GPU memory of the process with its children.

        0 also when the driver cannot tell: some report no figure per process, and inside a container the
        driver may know processes by other numbers than we do. The runtime's own figure serves then.
        """
        pids = {process.pid for process in with_children(pid)}
        return sum(used for device in self._devices for owner, used in self._processes(device).items() if owner in pids)

    def _processes(self, device: Any) -> dict[int, int]:
        """Bytes on one device, by pid. A process that computes and draws is listed twice with the same figure."""
        found: dict[int, int] = {}
        for process in self._listed(device):
            found[process.pid] = max(found.get(process.pid, 0), process.usedGpuMemory or 0)
        return found

    def _listed(self, device: Any) -> Iterator[Any]:
        for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            try:
                yield from getattr(self._nvml, name)(device)
            except self._nvml.NVMLError:
                continue

    def _name(self) -> str:
        first = self._nvml.nvmlDeviceGetName(self._devices[0])
        text = first.decode() if isinstance(first, bytes) else str(first)
        return text if len(self._devices) == 1 else f"{len(self._devices)} × {text}"
