"""Memory limits that a container or a service manager sets on this process and on what it starts.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60  # cgroup v1 writes a huge number where there is no limit


class Limit(NamedTuple):
    """One limit that applies, in bytes."""

    limit_bytes: int
    used_bytes: int  # without file contents, which the kernel drops when it must


def memory_limits(root: Path = ROOT, own_groups: Path = OWN_GROUPS) -> list[Limit]:
    """All limits that apply: of our own group and of every group above it. Empty where there are none."""
    found = (_read_limit(folder) for folder in _folders(root, own_groups))
    return [limit for limit in found if limit is not None]


def _folders(root: Path, own_groups: Path) -> Iterator[Path]:
    """Own group first, then upwards. In a container the group's path may not exist below our root: then the root counts."""
    base, own = root, ""
    for line in _text(own_groups).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            own = path
        elif "memory" in controllers.split(","):
            base, own = root / "memory", path
            break
    folder = base / own.lstrip("/")
    while folder != base:
        yield folder
        folder = folder.parent
    yield base


def _read_limit(folder: Path) -> Limit | None:
    for limit_name, used_name, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        limit, used = _number(folder / limit_name), _number(folder / used_name)
        if limit is not None and used is not None and limit < _NO_LIMIT:
            return Limit(limit, max(0, used - _file_bytes(folder, prefix)))
    return None


def _file_bytes(folder: Path, prefix: str) -> int:
    names = {f"{prefix}inactive_file", f"{prefix}active_file"}
    rows = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return sum(int(row[1]) for row in rows if row[0] in names)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
