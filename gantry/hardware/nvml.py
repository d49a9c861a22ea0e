"""Memory of NVIDIA GPUs: all devices of the machine together, and each by itself.

A GPU that is divided (MIG) counts as its slices: of the whole one the driver tells the memory only to privileged callers, and a
program cannot use it either. In a container the driver shows the devices that the container has, but may know processes by other
numbers than we do: then nothing is known to be held, which is no error.

Source: NVML reference (nvmlDeviceGetMemoryInfo, nvmlDeviceGetUUID, nvmlDeviceGetMigMode, nvmlDeviceGetMigDeviceHandleByIndex,
nvmlDeviceGetGpuInstanceId, nvmlDeviceGetComputeRunningProcesses, nvmlDeviceGetGraphicsRunningProcesses), through the module `pynvml`
of the package nvidia-ml-py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gantry.hardware.base import DeviceReading, MemoryReading, MemoryUnreadable
from gantry.hardware.processes import with_children


class GPUMissingError(MemoryUnreadable):
    """There is no NVIDIA driver, or no device, or the driver does not answer."""


@dataclass(frozen=True, slots=True)
class GPU:
    """A device that a model can be put on."""

    handle: Any
    device_id: str
    index: int
    name: str


def open_nvml(nvml: Any = None) -> NVMLMemory | None:
    """The machine's GPUs; None when it has none that can be used.

    Args:
        nvml: the module `pynvml`, or what stands in for it.
    """
    nvml = nvml or import_module("pynvml")  # on first use: a host without GPU never loads it
    try:
        nvml.nvmlInit()
        devices = list(_usable(nvml))
        return NVMLMemory(nvml, devices) if devices else None
    except nvml.NVMLError:
        return None


def _usable(nvml: Any) -> Iterator[GPU]:
    """All devices of which the driver tells the memory. It does not of GPUs that share the machine's RAM."""
    for index in range(nvml.nvmlDeviceGetCount()):
        for handle in _parts(nvml, index):
            with suppress(nvml.NVMLError):
                nvml.nvmlDeviceGetMemoryInfo(handle)
                name = _text(nvml.nvmlDeviceGetName(handle))
                yield GPU(handle, _text(nvml.nvmlDeviceGetUUID(handle)), index, name)


def _parts(nvml: Any, index: int) -> list[Any]:
    """A GPU that is whole, or the slices of one that is divided; nothing where it has fallen off the bus."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError:
        return []
    try:
        is_divided = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:  # this kind cannot be divided
        is_divided = False
    return _slices(nvml, handle) if is_divided else [handle]


def _slices(nvml: Any, handle: Any) -> list[Any]:
    """Those that have memory of their own. Several compute instances may share one's memory, which must not count twice."""
    found: dict[int, Any] = {}
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(nvml.NVMLError):  # nothing is made at this place
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
            found.setdefault(nvml.nvmlDeviceGetGpuInstanceId(part), part)
    return list(found.values())


class NVMLMemory:
    """The sum over all devices, and each of them."""

    def __init__(self, nvml: Any, devices: Sequence[GPU]) -> None:
        """Take the initialised module and its devices."""
        self._nvml = nvml
        self._devices = devices

    def read(self, held: Mapping[int, int]) -> MemoryReading:
        """Total and free as the driver says, other users' processes included.

        Raises:
            GPUMissingError: the driver stopped answering.
        """
        try:
            devices = tuple(self._read_device(device, held) for device in self._devices)
        except self._nvml.NVMLError as exc:
            raise GPUMissingError(f"the GPU driver does not answer: {exc}") from exc
        total = sum(device.total_bytes for device in devices)
        free = sum(device.free_bytes for device in devices)
        ours = sum(self.held_by(pid) or reported for pid, reported in held.items())
        return MemoryReading(_name(devices), "nvml", total, free, min(ours, total - free), devices)

    def _read_device(self, device: GPU, held: Mapping[int, int]) -> DeviceReading:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(device.handle)
        total, free = int(memory.total), int(memory.free)
        ours = sum(self._held_on(device, pid) for pid in held)
        return DeviceReading(device.device_id, device.index, device.name, total, free, min(ours, total - free))

    def held_by(self, pid: int) -> int:
        """GPU memory of the process with its children.

        0 also when the driver cannot tell: some report no figure per process, and inside a container the
        driver may know processes by other numbers than we do. The runtime's own figure serves then.
        """
        return sum(self._held_on(device, pid) for device in self._devices)

    def held_on(self, pid: int) -> Mapping[str, int]:
        """GPU memory of the process with its children on each device that it uses, as far as the driver can tell."""
        held = {device.device_id: self._held_on(device, pid) for device in self._devices}
        return {device_id: used for device_id, used in held.items() if used}

    def _held_on(self, device: GPU, pid: int) -> int:
        pids = {process.pid for process in with_children(pid)}
        return sum(used for owner, used in self._processes(device).items() if owner in pids)

    def _processes(self, device: GPU) -> dict[int, int]:
        """Bytes on one device, by pid. A process that computes and draws is listed twice with the same figure."""
        found: dict[int, int] = {}
        for process in self._listed(device):
            found[process.pid] = max(found.get(process.pid, 0), process.usedGpuMemory or 0)
        return found

    def _listed(self, device: GPU) -> Iterator[Any]:
        for name in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
            try:
                yield from getattr(self._nvml, name)(device.handle)
            except self._nvml.NVMLError:
                continue


def _name(devices: Sequence[DeviceReading]) -> str:
    first = devices[0].name
    if len(devices) == 1:
        return first
    is_one_kind = all(device.name == first for device in devices)
    return f"{len(devices)} × {first}" if is_one_kind else f"{len(devices)} GPUs"


def _text(value: Any) -> str:
    """Older bindings give bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
