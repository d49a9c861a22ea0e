"""Fixed pools and RAM, and which memory a setting names."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gantry.env import Environment
from gantry.hardware import processes
from gantry.hardware.base import MemoryReading
from gantry.hardware.cgroup import Limit, memory_limits
from gantry.hardware.fixed import FixedMemory, parse_bytes, parse_pool
from gantry.hardware.nvml import GPUMissingError
from gantry.hardware.processes import mapped_bytes, resident_bytes
from gantry.hardware.ram import RAMMemory
from gantry.hardware.select import select_memory

MIB = 1024**2
GIB = 1024**3
NOBODY = 2**22 + 1  # above the highest number a process can have
HOLD = "import sys; block = b'x' * (64 << 20); print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def holder() -> Iterator[int]:
    """A shell whose child holds 64 MiB."""
    command = ["/bin/sh", "-c", f'{sys.executable} -S -c "$0"; exit', HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("8GiB", 8 * GIB),
        ("8 gib", 8 * GIB),
        ("1.5GB", 1_500_000_000),
        ("512MiB", 512 * MIB),
        ("500M", 500_000_000),
        ("2Ti", 2 * 1024 * GIB),
        ("64KiB", 65536),
        ("1000000", 1_000_000),
        ("1000B", 1000),
    ],
)
def test_amount_of_memory(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "8 apples", "8GiBiB", "0", "0.0001", "1e9", "8,5GiB"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        parse_bytes(text)


def test_memory_of_children_counts(holder: int) -> None:
    assert 64 * MIB < resident_bytes(holder) < 128 * MIB


@pytest.mark.parametrize("keeps_children", [True, False])
def test_whole_family_is_found_with_and_without_the_kernels_lists(
    keeps_children: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_keeps_children", lambda: keeps_children)
    family = (
        "import subprocess, sys; print('up', flush=True); subprocess.run([sys.executable, '-S', '-c', sys.argv[1]])"
    )
    command = [sys.executable, "-S", "-c", family, "print('up', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == [b"up\n"] * 2
        found = [one.pid for one in processes.with_children(process.pid)]
        (child,) = psutil.Process(process.pid).children()
        assert found == [process.pid, child.pid]
        process.communicate(b"\n", timeout=10)
    assert processes.with_children(NOBODY) == []


def test_process_that_is_gone_holds_nothing() -> None:
    assert resident_bytes(NOBODY) == 0
    assert mapped_bytes([NOBODY]) == 0


def test_fixed_pool_loses_what_our_processes_hold(holder: int) -> None:
    reading = FixedMemory(GIB).read({holder: 0, NOBODY: 123})
    assert (reading.name, reading.kind, reading.total_bytes) == ("Fixed pool", "fixed", GIB)
    assert reading.held_bytes > 64 * MIB
    assert reading.free_bytes == GIB - reading.held_bytes
    assert reading.others_bytes == 0
    assert FixedMemory(GIB).held_by(holder) == pytest.approx(reading.held_bytes, rel=0.1)


def test_fixed_pool_that_is_overfull_has_nothing_free(holder: int) -> None:
    assert FixedMemory(MIB).read({holder: 0}).free_bytes == 0


@pytest.fixture
def placed_holder() -> Iterator[int]:
    """As `holder`, told to use the second of two devices."""
    command = ["/bin/sh", "-c", f'{sys.executable} -S -c "$0"; exit', HOLD]
    told = {**os.environ, "CUDA_VISIBLE_DEVICES": "fixed-1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=told) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def test_fixed_pool_may_have_devices() -> None:
    reading = parse_pool("8GiB + 4GiB").read({})
    assert (reading.total_bytes, reading.free_bytes, reading.kind) == (12 * GIB, 12 * GIB, "fixed")
    assert [(one.device_id, one.index, one.total_bytes) for one in reading.devices] == [
        ("fixed-0", 0, 8 * GIB),
        ("fixed-1", 1, 4 * GIB),
    ]
    assert parse_pool("8GiB").read({}).devices == ()


def test_process_holds_its_memory_on_the_devices_that_it_was_told_to_use(placed_holder: int) -> None:
    pool = parse_pool("1GiB+1GiB")
    first, second = pool.read({placed_holder: 0}).devices
    assert (first.held_bytes, first.free_bytes) == (0, GIB)
    assert second.held_bytes > 64 * MIB
    assert second.free_bytes == GIB - second.held_bytes
    assert list(pool.held_on(placed_holder)) == ["fixed-1"]


def test_process_that_was_told_no_device_holds_its_memory_on_all_alike(holder: int) -> None:
    pool = parse_pool("1GiB+1GiB")
    reading = pool.read({holder: 0, NOBODY: 123})
    first, second = reading.devices
    assert abs(first.held_bytes - second.held_bytes) <= 1
    assert first.held_bytes + second.held_bytes == reading.held_bytes > 64 * MIB
    assert first.free_bytes + second.free_bytes == reading.free_bytes
    assert pool.held_on(holder) == {}
    assert pool.held_on(NOBODY) == {}


def test_ram_is_the_machines_where_nothing_limits_it(holder: int) -> None:
    reading = RAMMemory(limits=list).read({holder: 0})
    assert (reading.name, reading.kind) == ("RAM", "ram")
    assert reading.total_bytes == psutil.virtual_memory().total
    assert reading.held_bytes > 64 * MIB
    assert reading.free_bytes + reading.held_bytes + reading.others_bytes == reading.total_bytes


def test_limit_of_a_container_is_respected() -> None:
    reading = RAMMemory(limits=lambda: [Limit(GIB, GIB // 4), Limit(2 * GIB, 0)]).read({})
    assert (reading.total_bytes, reading.free_bytes) == (GIB, GIB - GIB // 4)


def test_mapped_weights_are_not_free(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(32 * MIB)
    ram = RAMMemory(limits=lambda: [Limit(GIB, 0)])
    before = ram.read({os.getpid(): 0}).free_bytes
    with path.open("rb") as weights, mmap.mmap(weights.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        for position in range(0, 32 * MIB, mmap.PAGESIZE):
            mapped[position]
        after = ram.read({os.getpid(): 0}).free_bytes
    assert before - after == pytest.approx(32 * MIB, abs=4 * MIB)


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own"
    path.write_text(text)
    return path


STAT = "anon 5\ninactive_file 20\nactive_file 10\nfile 40\n"


def test_limits_of_our_group_and_of_those_above_it(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    group(root)
    group(root / "a", memory__max="1000\n", memory__current="300\n", memory__stat=STAT)
    group(root / "a" / "b", memory__max="max\n", memory__current="100\n", memory__stat=STAT)
    assert memory_limits(root, own(tmp_path, "0::/a/b\n")) == [Limit(1000, 270)]


def test_limit_of_a_container_that_sees_only_its_own_root(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    group(root, memory__max="500", memory__current="10", memory__stat=STAT)
    assert memory_limits(root, own(tmp_path, "0::/docker/123\n")) == [Limit(500, 0)]


def test_limit_of_the_first_version(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    stat = "total_inactive_file 20\ntotal_active_file 10\n"
    group(root / "memory", memory__limit_in_bytes=str(2**63 - 4096), memory__usage_in_bytes="7")
    group(root / "memory/a", memory__limit_in_bytes="800", memory__usage_in_bytes="130", memory__stat=stat)
    groups = own(tmp_path, "5:cpu:/x\n4:memory:/a\n")
    assert memory_limits(root, groups) == [Limit(800, 100)]


def test_machine_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert memory_limits(tmp_path / "absent", tmp_path / "absent") == []


class GPU:
    """Something with memory."""

    def read(self, held: object) -> MemoryReading:
        return MemoryReading("GPU", "nvml", 1, 1, 0)

    def held_by(self, pid: int) -> int:
        return 0

    def held_on(self, pid: int) -> dict[str, int]:
        return {}


def no_gpu() -> None:
    return None


@pytest.mark.parametrize(
    ("setting", "has_gpu", "kind"),
    [
        ("auto", True, "nvml"),
        ("auto", False, "ram"),
        ("AUTO ", False, "ram"),
        ("ram", True, "ram"),
        ("nvml", True, "nvml"),
        ("fixed:8GiB", True, "fixed"),
        ("fixed: 1 GB", False, "fixed"),
        ("fixed:8GiB+8GiB", False, "fixed"),
    ],
)
def test_setting_names_the_memory(setting: str, kind: str, *, has_gpu: bool) -> None:
    assert select_memory(setting, GPU if has_gpu else no_gpu).read({}).kind == kind


def test_gpu_that_is_asked_for_and_absent_is_an_error() -> None:
    with pytest.raises(GPUMissingError, match="GANTRY_MEMORY"):
        select_memory("nvml", no_gpu)


@pytest.mark.parametrize("setting", ["", "gpu", "fixed", "fixed:", "fixed:lots", "fixed:8GiB+", "fixed:+"])
def test_other_settings_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        select_memory(setting, no_gpu)


@pytest.mark.parametrize("setting", ["fixed:8GiB+8GiB", "fixed: 1.5 GB + 512MiB", "FIXED:1M+1M+1M", "fixed:8GiB"])
def test_what_the_environment_accepts_is_understood(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRY_MEMORY", setting)
    reading = select_memory(Environment(_env_file=None).gantry_memory, no_gpu).read({})
    assert len(reading.devices) in {0, setting.count("+") + 1}


@pytest.mark.parametrize("setting", ["fixed:8GiB+", "fixed:+8GiB", "ram+ram", "fixed:8GiB++8GiB"])
def test_what_the_environment_refuses_is_told(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANTRY_MEMORY", setting)
    with pytest.raises(ValueError, match=r"fixed:8GiB\+8GiB"):
        Environment(_env_file=None)
