"""The folder of one llama-server: what was started, who runs, what it said, how it ended.

    instance.json   what to start, without secrets        written here, before the start
    api_key         the key that the server asks for      written here, before the start
    process.json    pids and start times                  written by the keeper (llama_shim.py), once
    events.jsonl    the states that the server tells      written by the keeper
    server.log      its log, and server.log.1             written by the keeper
    exit.json       how it ended                          written by the keeper, last

All is readable for our own user only. The folder goes when the instance is forgotten; the log of an
instance that was ended on purpose stays in `logs/` beside it, for the last few instances.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gantry.runtimes.exceptions import RuntimeRefused
from gantry.runtimes.llama_failures import Ending
from gantry.runtimes.process import ProcessMark, mark_from

LOGS = "logs"
KEPT_LOGS = 5
UNSTARTED_SECONDS = 10.0  # a folder whose keeper never wrote process.json is left over after this
_TAIL_BYTES = 64 * 1024
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class InstanceFolder:
    """One instance on disk. Reads are fresh each time but for what never changes."""

    path: Path

    @classmethod
    def of(cls, state_dir: Path, instance_id: str) -> InstanceFolder:
        """The folder of an instance, whether it exists or not.

        Raises:
            RuntimeRefused: the id cannot be a folder's name.
        """
        if not _ID.fullmatch(instance_id):
            raise RuntimeRefused(f"{instance_id!r} is no instance id")
        return cls(state_dir / instance_id)

    @classmethod
    def all_in(cls, state_dir: Path) -> Iterator[InstanceFolder]:
        """All that exist, half-written ones too, oldest first."""
        try:
            entries = [entry for entry in state_dir.iterdir() if entry.name != LOGS and _ID.fullmatch(entry.name)]
        except FileNotFoundError:
            return
        yield from sorted((cls(entry) for entry in entries if entry.is_dir()), key=lambda folder: folder.created_at)

    def create(self, spec: dict[str, Any], api_key: str) -> None:
        """Write what the keeper needs."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700)
        _write_private(self.path / "api_key", api_key)
        _write_private(self.path / "instance.json", json.dumps({**spec, "created_at": time.time()}))

    def write(self, name: str, text: str) -> Path:
        """Add a file that the server is to read."""
        _write_private(self.path / name, text)
        return self.path / name

    @cached_property
    def spec(self) -> dict[str, Any]:
        """What was started; empty when the folder does not exist or was half written."""
        return _read_json(self.path / "instance.json") or {}

    @property
    def instance_id(self) -> str:
        """Gantry's id of the instance."""
        return self.path.name

    @property
    def created_at(self) -> float:
        """Seconds since the epoch."""
        return float(self.spec.get("created_at") or _modified_at(self.path))

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.spec['port']}"

    @property
    def api_key(self) -> str:
        """The key that it asks for; "" when the folder is gone."""
        return _read_text(self.path / "api_key").strip()

    @property
    def process(self) -> dict[str, Any] | None:
        """Who runs, as the keeper wrote it; None before that."""
        return _read_json(self.path / "process.json")

    @property
    def child(self) -> ProcessMark | None:
        """The server's process."""
        return mark_from(self.process or {}, "child")

    @property
    def keeper(self) -> ProcessMark | None:
        """The keeper's process."""
        return mark_from(self.process or {}, "keeper")

    @property
    def has_ended(self) -> bool:
        """Whether the keeper has written down the end."""
        return (self.path / "exit.json").exists()

    @property
    def ending(self) -> Ending:
        """How it ended, as far as anybody saw."""
        return Ending.from_record(_read_json(self.path / "exit.json"))

    @property
    def is_alive(self) -> bool:
        """Whether the server's own process still runs."""
        child = self.child
        return child is not None and child.is_alive

    @property
    def is_left_over(self) -> bool:
        """Whether it was prepared and never started."""
        is_old = time.time() - self.created_at > UNSTARTED_SECONDS
        return self.process is None and not self.has_ended and is_old

    def states(self) -> list[dict[str, Any]]:
        """All states that the server has told, oldest first."""
        rows = (_parse_json(line) for line in _read_text(self.path / "events.jsonl").splitlines())
        return [row for row in rows if row is not None]

    @property
    def told_bytes(self) -> int:
        """How much it has told of its states; more than before: there is a new one."""
        try:
            return os.stat(f"{self.path}/events.jsonl").st_size  # noqa: PTH116 - asked many times a second
        except OSError:
            return 0

    @property
    def last_state(self) -> str:
        """The last state told, such as "loading" or "ready"; "" when there was none. Reads a few KB only."""
        for line in reversed(_tail_of(self.path / "events.jsonl", 8192)):
            row = _parse_json(line)
            if row is not None:
                return str(row.get("state", ""))
        return ""

    def log_tail(self, lines: int) -> tuple[str, ...]:
        """Last lines of its log, oldest first; from `logs/` when the folder is gone."""
        found: deque[str] = deque(maxlen=max(0, lines))
        for path in (self.path / "server.log.1", self.path / "server.log", self._kept_log):
            if lines > 0 and path.exists():
                found.extend(_tail_of(path, _TAIL_BYTES))
        return tuple(found)

    def remove(self) -> None:
        """Take the folder away; its log moves to `logs/`."""
        log = self.path / "server.log"
        if log.exists():
            self._kept_log.parent.mkdir(mode=0o700, exist_ok=True)
            log.replace(self._kept_log)
        shutil.rmtree(self.path, ignore_errors=True)
        _drop_old_logs(self._kept_log.parent)

    @property
    def _kept_log(self) -> Path:
        return self.path.parent / LOGS / f"{self.path.name}.log"


def _drop_old_logs(folder: Path) -> None:
    for path in sorted(folder.glob("*.log"), key=_modified_at)[:-KEPT_LOGS]:
        path.unlink(missing_ok=True)


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _read_json(path: Path) -> dict[str, Any] | None:
    return _parse_json(_read_text(path))


def _parse_json(text: str) -> dict[str, Any] | None:
    """None for a line that is only half written yet."""
    try:
        data = json.loads(text)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _tail_of(path: Path, size: int) -> list[str]:
    try:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - size)
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return lines[1:] if start else lines  # the first one is cut
