"""How far a load has come, from what llama-server does. Never from a clock.

Two signs are joined. The server's own word (0 to 1 for each part of a model, at most five times a second):
with a memory map it says 0 and then 1, and nothing in between. And what the kernel counts for its process:
bytes read, and bytes of memory that came after the start, mapped or copied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gantry.runtimes.base import LoadProgress, LoadStage

# Of the whole load, before anything is known of the model; then come the context and a warm-up run. In fact it is 0.4 to 0.95:
# who keeps what earlier loads took goes by `LoadProgress.read_fraction`.
READING_SHARE = 0.9
_HEADER = re.compile(r"^[0-9a-f]+-[0-9a-f]+ ")


@dataclass(frozen=True, slots=True)
class MemorySample:
    """What the kernel says of a process, in bytes."""

    read: int = 0  # by read() and its like, page cache included
    resident: int = 0  # in RAM, mapped files included


def sample_memory(pid: int) -> MemorySample:
    """Look at a process; zeros when it is gone."""
    return MemorySample(_field(pid, "io", "rchar:"), 1024 * _field(pid, "status", "VmRSS:"))


def resident_of_file(pid: int, path: Path) -> int:
    """How much of a file a process has mapped and in RAM, in bytes.

    Walks the page tables of the process: exact, but too dear to be asked all the time.
    """
    wanted, total = str(path.resolve()), 0
    is_wanted = False
    for line in _lines(pid, "smaps"):
        if _HEADER.match(line):
            is_wanted = line.rstrip().endswith(wanted)
        elif is_wanted and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


def position_in_file(pid: int, path: Path) -> int:
    """How far into a file a process has come by reading it, in bytes: the farthest of its open descriptors; 0 when none is open."""
    wanted = str(path.resolve())
    try:
        open_here = [entry.name for entry in Path(f"/proc/{pid}/fd").iterdir() if _link(entry) == wanted]
    except OSError:
        return 0
    return max((_field(pid, f"fdinfo/{number}", "pos:") for number in open_here), default=0)


class LoadMeter:
    """Follows one load. Its fraction never falls, and stays under 1 until `ready`."""

    def __init__(self, path: Path, file_bytes: int) -> None:
        """Take the model's file and the bytes that a load must read."""
        self._path = path
        self._file_bytes = max(1, file_bytes)
        self._before: MemorySample | None = None  # the process before it touched the model
        self._bytes = 0
        self._fraction = 0.0

    def read(self, pid: int | None, states: Sequence[Mapping[str, Any]]) -> LoadProgress:
        """Look now.

        Args:
            pid: the server's process; None while it is being started.
            states: what the server has told so far, oldest first.
        """
        if pid is None or not states:
            return self._progress(LoadStage.STARTING)
        said = spoken_fraction(states)
        self._bytes = max(self._bytes, int(said * self._file_bytes), self._counted(pid))
        self._fraction = max(self._fraction, READING_SHARE * self._bytes / self._file_bytes)
        return self._progress(LoadStage.READING if said < 1 else LoadStage.INITIALISING)

    def hear(self, states: Sequence[Mapping[str, Any]]) -> LoadProgress:
        """The same where the process cannot be seen: only what the server tells."""
        said = spoken_fraction(states)
        self._bytes = max(self._bytes, int(said * self._file_bytes))
        self._fraction = max(self._fraction, READING_SHARE * said)
        return self._progress(LoadStage.READING if said < 1 else LoadStage.INITIALISING)

    def unheard(self, pid: int | None) -> LoadProgress:
        """The same for a build that tells nothing: only what the kernel counts."""
        return self.read(pid, [{"state": "loading"}] if pid is not None else [])

    def ready(self) -> LoadProgress:
        """The end of the load."""
        return LoadProgress(LoadStage.READY, 1.0, self._file_bytes, self._file_bytes)

    def _counted(self, pid: int) -> int:
        now = sample_memory(pid)
        if self._before is None:
            self._before = self._before_the_model(pid, now)
        read, grown = now.read - self._before.read, now.resident - self._before.resident
        return min(self._file_bytes, max(read, grown))

    def _before_the_model(self, pid: int, now: MemorySample) -> MemorySample:
        """What a process had before it touched the model, worked out at the first look: that comes when some of it may be there."""
        # A position says too much after a jump ahead, the count of all that was read never too little.
        read = min(now.read, position_in_file(pid, self._path))
        return MemorySample(now.read - read, max(0, now.resident - resident_of_file(pid, self._path)))

    def _progress(self, stage: LoadStage) -> LoadProgress:
        return LoadProgress(stage, round(self._fraction, 4), self._bytes, self._file_bytes)


def spoken_fraction(states: Sequence[Mapping[str, Any]]) -> float:
    """How much is read by the server's own word, 0 to 1 over all its parts."""
    return max((_fraction_of(state.get("payload")) for state in states), default=0.0)


def _fraction_of(payload: object) -> float:
    if not isinstance(payload, Mapping):
        return 0.0
    stages, current, value = payload.get("stages"), payload.get("current"), payload.get("value")
    if not isinstance(stages, list) or current not in stages or not isinstance(value, int | float):
        return 0.0
    return float((stages.index(current) + min(1.0, max(0.0, value))) / len(stages))


def _field(pid: int, file: str, name: str) -> int:
    for line in _lines(pid, file):
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed meanwhile
        return ""


def _lines(pid: int, file: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
