"""Reading ahead really fills the page cache, and stops where it would take memory from somebody."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import psutil
import pytest

from gantry.hardware.cgroup import Limit
from gantry.runtimes import prefetch
from gantry.runtimes.prefetch import files_of, free_room, prefetch_files

MIB = 1024**2
PAGE = mmap.PAGESIZE


def never() -> bool:
    return False


def plenty() -> int:
    return 1 << 50


def cold_file(path: Path, size: int) -> Path:
    """A file on the disk and not in the page cache."""
    with path.open("wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


def resident_share(path: Path) -> float:
    """How much of a file is in the page cache, as the kernel tells (mincore)."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = path.stat().st_size
    pages = -(-size // PAGE)
    states = (ctypes.c_ubyte * pages)()
    # A private mapping: ctypes asks for a writable buffer, and nothing is ever written.
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as mapped:
        view = ctypes.c_char.from_buffer(mapped)
        answer = libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), states)
        del view
    assert answer == 0
    return sum(state & 1 for state in states) / pages


def test_whole_file_is_in_the_page_cache_afterwards(tmp_path: Path) -> None:
    path = cold_file(tmp_path / "model.gguf", 40 * MIB + 123)
    assert prefetch_files([path], plenty, never) == 40 * MIB + 123
    assert resident_share(path) == 1.0


def test_nothing_is_read_where_there_is_no_room_for_all_of_it(tmp_path: Path) -> None:
    path = cold_file(tmp_path / "model.gguf", 4 * MIB)
    before = resident_share(path)
    assert prefetch_files([path], lambda: 4 * MIB - 1, never) == 0
    assert resident_share(path) == before


def test_room_that_goes_away_ends_it(tmp_path: Path) -> None:
    path = cold_file(tmp_path / "model.gguf", 8 * MIB)
    rooms = iter([8 * MIB, 8 * MIB, 0])
    assert prefetch_files([path], lambda: next(rooms), never, chunk_bytes=MIB) == 2 * MIB


def test_cancel_ends_it_between_two_pieces(tmp_path: Path) -> None:
    path = cold_file(tmp_path / "model.gguf", 8 * MIB)
    looks = iter([False, False, False])
    assert prefetch_files([path], plenty, lambda: next(looks, True), chunk_bytes=MIB) == 3 * MIB


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    path = cold_file(tmp_path / "there.gguf", MIB)
    secret = cold_file(tmp_path / "secret.gguf", MIB)
    secret.chmod(0)
    os.mkfifo(tmp_path / "pipe.gguf")  # opened, it would wait for ever
    others = [tmp_path / "absent.gguf", tmp_path, tmp_path / "pipe.gguf", Path("/dev/zero")]
    expected = MIB + (MIB if os.access(secret, os.R_OK) else 0)
    assert prefetch_files([*others, secret, path], plenty, never) == expected
    assert prefetch_files([], plenty, never) == 0


def test_memory_that_cannot_be_looked_at_ends_it_quietly(tmp_path: Path) -> None:
    def no_room() -> int:
        raise psutil.Error

    assert prefetch_files([cold_file(tmp_path / "model.gguf", MIB)], no_room, never) == 0


def test_split_model_is_all_of_its_parts() -> None:
    names = [path.name for path in files_of(Path("/m/big-00001-of-00003.gguf"))]
    assert names == ["big-00001-of-00003.gguf", "big-00002-of-00003.gguf", "big-00003-of-00003.gguf"]
    assert files_of(Path("/m/plain.gguf")) == [Path("/m/plain.gguf")]


def test_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "memory_limits", lambda: [Limit(1000 * MIB, 300 * MIB)])
    assert free_room() == 600 * MIB  # a tenth of it stays free


def test_mapped_weights_of_running_models_are_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "memory_limits", lambda: [Limit(1000 * MIB, 0)])
    alone = free_room()
    assert free_room([os.getpid()]) < alone
    monkeypatch.setattr(prefetch, "memory_limits", lambda: [Limit(1000 * MIB, 990 * MIB)])
    assert free_room() == 0
