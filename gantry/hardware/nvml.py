"""Memory of NVIDIA GPUs: all devices of the machine together, and each by itself.

Source: NVML reference (nvmlDeviceGetMemoryInfo, nvmlDeviceGetUUID, nvmlDeviceGetComputeRunningProcesses,
nvmlDeviceGetGraphicsRunningProcesses), through the module `pynvml` of the package nvidia-ml-py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from gantry.hardware.base import DeviceReading, MemoryReading, MemoryUnreadable
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
    """The sum over all devices, and where there are several, each of them."""

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
            devices = [self._read_device(device, held) for device in self._devices]
        except self._nvml.NVMLError as exc:
            raise GPUMissingError(f"the GPU driver does not answer: {exc}") from exc
        total = sum(device.total_bytes for device in devices)
        free = sum(device.free_bytes for device in devices)
        ours = sum(self.held_by(pid) or reported for pid, reported in held.items())
        several = tuple(devices) if len(devices) > 1 else ()
        return MemoryReading(_name(devices), "nvml", total, free, min(ours, total - free), several)

    def _read_device(self, device: Any, held: Mapping[int, int]) -> DeviceReading:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
        total, free = int(memory.total), int(memory.free)
        ours = sum(self._held_on(device, pid) for pid in held)
        name = _text(self._nvml.nvmlDeviceGetName(device))
        return DeviceReading(self._id(device), name, total, free, min(ours, total - free))

    def held_by(self, pid: int) -> int:
        """GPU memory of the process with its children.

        0 also when the driver cannot tell: some report no figure per process, and inside a container the
        driver may know processes by other numbers than we do. The runtime's own figure serves then.
        """
        return sum(self._held_on(device, pid) for device in self._devices)

    def held_on(self, pid: int) -> Mapping[str, int]:
        """GPU memory of the process with its children on each of several devices, as far as the driver can tell."""
        if len(self._devices) < 2:
            return {}
        held = {self._id(device): self._held_on(device, pid) for device in self._devices}
        return {device_id: used for device_id, used in held.items() if used}

    def _held_on(self, device: Any, pid: int) -> int:
        pids = {process.pid for process in with_children(pid)}
        return sum(used for owner, used in self._processes(device).items() if owner in pids)

    def _id(self, device: Any) -> str:
        return _text(self._nvml.nvmlDeviceGetUUID(device))

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


def _name(devices: list[DeviceReading]) -> str:
    first = devices[0].name
    return first if len(devices) == 1 else f"{len(devices)} × {first}"


def _text(value: Any) -> str:
    """Older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
