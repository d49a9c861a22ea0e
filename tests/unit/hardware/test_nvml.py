"""GPU memory, with a small driver in the place of NVIDIA's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import chain
from types import SimpleNamespace

import pytest

from gantry.hardware.base import DeviceReading
from gantry.hardware.nvml import GPUMissingError, NVMLMemory, open_nvml

GIB = 1024**3
OWN = os.getpid()
FOREIGN = 2**22 + 1


class NVMLError(Exception):
    """As pynvml names it."""


@dataclass
class Device:
    """One GPU. Processes are (pid, bytes); None where the driver gives no figure."""

    total: int = 16 * GIB
    free: int = 16 * GIB
    name: str = "NVIDIA H200"
    computing: list[tuple[int, int | None]] = field(default_factory=list)
    drawing: list[tuple[int, int | None]] | None = field(default_factory=list)  # None: not supported
    tells_memory: bool = True
    is_lost: bool = False
    slices: list[Device | None] | None = None  # of a divided GPU, None where nothing is made; None: it is whole
    instance: int = 0  # of a slice: those with the same one share its memory


class Driver:
    """The few calls of the module `pynvml` that are used."""

    NVMLError = NVMLError
    NVML_DEVICE_MIG_ENABLE = 1

    def __init__(self, *devices: Device, is_there: bool = True) -> None:
        self.devices = list(devices)
        self.is_there = is_there

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.is_there:
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:  # noqa: N802
        if self.devices[index].is_lost:
            raise NVMLError("GPU is lost")
        return self.devices[index]

    def nvmlDeviceGetMigMode(self, device: Device) -> list[int]:  # noqa: N802
        if device.slices is None and device.drawing is None:
            raise NVMLError("Not Supported")
        return [int(device.slices is not None), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:  # noqa: N802
        return len(device.slices or ())

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, index: int) -> Device:  # noqa: N802
        part = (device.slices or [])[index]
        if part is None:
            raise NVMLError("Not Found")
        return part

    def nvmlDeviceGetGpuInstanceId(self, device: Device) -> int:  # noqa: N802
        return device.instance

    def nvmlDeviceGetUUID(self, device: Device) -> str:  # noqa: N802
        whole = [number for number, one in enumerate(self.devices) if one is device]
        if whole:
            return f"GPU-{whole[0]}"
        parts = chain.from_iterable(one.slices or () for one in self.devices)
        return next(f"MIG-{number}" for number, part in enumerate(parts) if part is device)

    def nvmlDeviceGetName(self, device: Device) -> bytes:  # noqa: N802
        return device.name.encode()

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> SimpleNamespace:  # noqa: N802
        self.nvmlInit()
        if device.slices is not None or not device.tells_memory:
            raise NVMLError("Insufficient Permissions")
        return SimpleNamespace(total=device.total, free=device.free, used=device.total - device.free)

    def nvmlDeviceGetComputeRunningProcesses(self, device: Device) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in device.computing]

    def nvmlDeviceGetGraphicsRunningProcesses(self, device: Device) -> list[SimpleNamespace]:  # noqa: N802
        if device.drawing is None:
            raise NVMLError("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in device.drawing]


def memory(*devices: Device) -> NVMLMemory:
    source = open_nvml(Driver(*devices))
    assert source is not None
    return source


def test_machine_without_a_driver_has_no_gpu() -> None:
    assert open_nvml(Driver(Device(), is_there=False)) is None


def test_driver_without_devices_is_no_gpu() -> None:
    assert open_nvml(Driver()) is None


def test_memory_of_one_device() -> None:
    device = Device(free=6 * GIB, computing=[(OWN, 4 * GIB), (FOREIGN, 6 * GIB)])
    reading = memory(device).read({OWN: 0})
    assert (reading.name, reading.kind) == ("NVIDIA H200", "nvml")
    assert (reading.total_bytes, reading.free_bytes, reading.held_bytes) == (16 * GIB, 6 * GIB, 4 * GIB)
    assert reading.others_bytes == 6 * GIB


def test_devices_are_added_up() -> None:
    source = memory(Device(free=10 * GIB, computing=[(OWN, 6 * GIB)]), Device(free=15 * GIB, computing=[(OWN, GIB)]))
    reading = source.read({OWN: 0})
    assert reading.name == "2 × NVIDIA H200"
    assert (reading.total_bytes, reading.free_bytes, reading.held_bytes) == (32 * GIB, 25 * GIB, 7 * GIB)


def test_process_that_computes_and_draws_counts_once() -> None:
    assert memory(Device(computing=[(OWN, GIB)], drawing=[(OWN, GIB)])).held_by(OWN) == GIB


def test_process_that_only_draws_counts() -> None:
    assert memory(Device(drawing=[(OWN, GIB)])).held_by(OWN) == GIB  # as programs on Vulkan are listed


def test_device_that_lists_no_drawing_processes_is_read_all_the_same() -> None:
    assert memory(Device(computing=[(OWN, GIB)], drawing=None)).held_by(OWN) == GIB


def test_driver_without_figures_per_process_leaves_the_runtimes_own() -> None:
    source = memory(Device(free=10 * GIB, computing=[(OWN, None)]))
    assert source.held_by(OWN) == 0
    assert source.read({OWN: 3 * GIB}).held_bytes == 3 * GIB


def test_no_more_is_held_than_is_used() -> None:
    assert memory(Device(free=15 * GIB)).read({FOREIGN: 3 * GIB}).held_bytes == GIB


def test_driver_that_goes_away_is_told() -> None:
    driver = Driver(Device())
    source = open_nvml(driver)
    assert source is not None
    driver.is_there = False
    with pytest.raises(GPUMissingError, match="does not answer"):
        source.read({})


def test_several_devices_are_told_one_by_one() -> None:
    first = Device(free=10 * GIB, computing=[(OWN, 6 * GIB)])
    second = Device(total=8 * GIB, free=2 * GIB, computing=[(OWN, GIB), (FOREIGN, 5 * GIB)])
    source = memory(first, second)
    reading = source.read({OWN: 0})
    figures = [(one.device_id, one.total_bytes, one.free_bytes, one.held_bytes) for one in reading.devices]
    assert figures == [("GPU-0", 16 * GIB, 10 * GIB, 6 * GIB), ("GPU-1", 8 * GIB, 2 * GIB, GIB)]
    assert sum(one.total_bytes for one in reading.devices) == reading.total_bytes
    assert sum(one.free_bytes for one in reading.devices) == reading.free_bytes
    assert source.held_on(OWN) == {"GPU-0": 6 * GIB, "GPU-1": GIB}


def test_device_that_a_process_does_not_use_is_left_out() -> None:
    assert memory(Device(), Device(computing=[(OWN, GIB)])).held_on(OWN) == {"GPU-1": GIB}


def test_single_gpu_is_one_device() -> None:
    source = memory(Device(free=15 * GIB, computing=[(OWN, GIB)]))
    assert source.read({OWN: 0}).devices == (DeviceReading("GPU-0", 0, "NVIDIA H200", 16 * GIB, 15 * GIB, GIB),)
    assert source.held_on(OWN) == {"GPU-0": GIB}


def test_gpus_of_different_kinds_are_counted() -> None:
    assert memory(Device(), Device(name="NVIDIA L4")).read({}).name == "2 GPUs"


def test_divided_gpu_counts_as_its_slices() -> None:
    small = Device(5 * GIB, 4 * GIB, "NVIDIA A100 MIG 1g.5gb", computing=[(OWN, GIB)], drawing=None, instance=7)
    large = Device(20 * GIB, 20 * GIB, "NVIDIA A100 MIG 3g.20gb", drawing=None, instance=2)
    source = memory(Device(slices=[small, None, large]), Device())
    reading = source.read({OWN: 0})
    assert [(one.device_id, one.index, one.total_bytes) for one in reading.devices] == [
        ("MIG-0", 0, 5 * GIB),
        ("MIG-2", 0, 20 * GIB),
        ("GPU-1", 1, 16 * GIB),
    ]
    assert (reading.total_bytes, reading.held_bytes) == (41 * GIB, GIB)
    assert source.held_on(OWN) == {"MIG-0": GIB}


def test_memory_that_slices_share_counts_once() -> None:
    parts: list[Device | None] = [Device(20 * GIB, instance=1), Device(20 * GIB, instance=1)]
    assert memory(Device(slices=parts)).read({}).total_bytes == 20 * GIB


def test_divided_gpu_without_slices_is_of_no_use() -> None:
    assert open_nvml(Driver(Device(slices=[None, None]))) is None


@pytest.mark.parametrize("other", [Device(is_lost=True), Device(tells_memory=False)])
def test_device_that_tells_nothing_leaves_the_others(other: Device) -> None:
    assert [one.device_id for one in memory(other, Device()).read({}).devices] == ["GPU-1"]
    assert open_nvml(Driver(other)) is None


def test_container_that_knows_processes_by_other_numbers_tells_of_no_device() -> None:
    source = memory(Device(free=10 * GIB, computing=[(FOREIGN, 6 * GIB)]), Device())
    assert source.held_on(OWN) == {}
    assert source.read({OWN: 5 * GIB}).held_bytes == 5 * GIB
