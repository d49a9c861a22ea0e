"""Reading model files ahead into the page cache, while another model still holds the memory that they will need.

A load that finds its file there reads it from RAM: the switch is shorter by what the disk would have taken. What is read ahead
belongs to nobody and the kernel drops it when it must, but on the way it might push out what running models have mapped. So it is
done only while there is clearly room, and the room is looked at again before every piece.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from gantry.hardware.cgroup import memory_limits
from gantry.hardware.processes import mapped_bytes

CHUNK_BYTES = 16 * 1024**2  # read between two looks at the room and at whether it is cancelled
RESERVE_SHARE = 0.1  # of all RAM, that stays free beside what is read
_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)$")

Room = Callable[[], int]


def prefetch_files(
    paths: Iterable[Path], room: Room, is_cancelled: Callable[[], bool], *, chunk_bytes: int = CHUNK_BYTES
) -> int:
    """Have files in the page cache. Never raises: what cannot be read is left out.

    Args:
        room: bytes that may be filled now, asked before each piece. What was read ahead counts in it, for it can be dropped
            again: so there must be room for all of it, to the end.
        is_cancelled: asked before each piece.

    Returns:
        Bytes that were read.
    """
    files = [(path, size) for path in paths if (size := _size(path))]
    wanted = sum(size for _, size in files)
    buffer = bytearray(min(chunk_bytes, wanted))
    done = 0
    for path, _ in files:
        with suppress(OSError, psutil.Error):
            for count in _read(path, buffer, lambda: is_cancelled() or room() < wanted):
                done += count
    return done


def files_of(path: Path) -> list[Path]:
    """A model's file, or all parts of one that is split (`name-00001-of-00003.gguf`)."""
    match = _PART.match(path.name)
    if match is None:
        return [path]
    count = min(int(match["count"]), 1000)
    return [
        path.with_name(f"{match['stem']}-{n:05d}-of-{match['count']}{match['suffix']}") for n in range(1, count + 1)
    ]


def free_room(holders: Iterable[int] = ()) -> int:
    """RAM that can be filled with file contents at nobody's cost, in bytes; 0 when there is none.

    The kernel counts mapped weights as available: those of `holders` (pids) are in use all the same.
    """
    machine = psutil.virtual_memory()
    limits = memory_limits()
    total = min([machine.total, *(limit.limit_bytes for limit in limits)])
    available = min([machine.available, *(limit.limit_bytes - limit.used_bytes for limit in limits)])
    return max(0, available - mapped_bytes(holders) - int(RESERVE_SHARE * total))


def _read(path: Path, buffer: bytearray, must_stop: Callable[[], bool]) -> Iterator[int]:
    """The size of each piece that was read."""
    with path.open("rb", buffering=0) as file:
        position = 0
        while not must_stop():
            # The disk works on the next piece while this one is copied.
            os.posix_fadvise(file.fileno(), position, 2 * len(buffer), os.POSIX_FADV_WILLNEED)
            count = file.readinto(buffer) or 0
            if not count:
                return
            position += count
            yield count


def _size(path: Path) -> int:
    """0 for what is no regular file: a read from anything else might never come back."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
