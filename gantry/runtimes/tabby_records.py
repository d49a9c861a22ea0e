"""What must outlive a process: which loads on a TabbyAPI were Gantry's own, and whose turn it is to change what is loaded.

TabbyAPI knows no owners. Its `/v1/model` names a directory; only what is written here tells that Gantry asked for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from gantry.runtimes.exceptions import RuntimeRefused
from gantry.runtimes.tabby_client import CurrentModel

_ID = re.compile(r"^[A-Za-z0-9-]{1,64}$")


@dataclass(frozen=True, slots=True)
class LoadNote:
    """One load that Gantry asked for."""

    instance_id: str
    model_id: str  # the path that was sent
    parameters: Mapping[str, Any] = field(default_factory=dict)  # as they were sent
    began_at: float = 0.0  # seconds since the epoch
    card: Mapping[str, Any] | None = None  # what TabbyAPI said of it once it was loaded; None: not loaded yet

    @property
    def is_loaded(self) -> bool:
        """Whether it came to its end."""
        return self.card is not None

    def names(self, current: CurrentModel | None) -> bool:
        """Whether a model of this name is loaded. Names are not unique with nested directories: TabbyAPI shows no more."""
        return current is not None and current.id == shown_name(self.model_id)

    def is_of(self, current: CurrentModel | None) -> bool:
        """Whether this very load is what is loaded: somebody else's load of it mostly shows other figures."""
        return self.names(current) and current is not None and self.card == dict(current.parameters)


def shown_name(model_id: str) -> str:
    """How TabbyAPI names a model that is loaded: by the last component of its path."""
    return model_id.rpartition("/")[2]


class LoadNotes:
    """The notes in a folder, one file each.

    Raises (all methods): RuntimeRefused: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        """Make no folder yet."""
        self._folder = folder / "loads"

    def all(self) -> list[LoadNote]:
        """Those that can be read, oldest first."""
        try:
            paths = [*self._folder.glob("*.json")]
        except OSError:
            return []
        notes = (_read(path) for path in paths)
        return sorted((note for note in notes if note is not None), key=lambda note: note.began_at)

    def get(self, instance_id: str) -> LoadNote | None:
        """One of them."""
        return _read(self._path(instance_id)) if _ID.match(instance_id) else None

    def put(self, note: LoadNote) -> None:
        """Write one down, whole or not at all."""
        path = self._path(note.instance_id)
        part = path.with_suffix(".part")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_text(json.dumps(asdict(note)), encoding="utf-8")
            part.replace(path)
        except OSError as exc:
            raise RuntimeRefused(f"{path.parent} cannot be written: {exc.strerror}.") from exc

    def finish(self, note: LoadNote, current: CurrentModel) -> LoadNote:
        """Note that it is loaded, and what TabbyAPI says of it."""
        done = replace(note, card=dict(current.parameters))
        self.put(done)
        return done

    def remove(self, instance_id: str) -> None:
        """Forget one."""
        if _ID.match(instance_id):
            self._path(instance_id).unlink(missing_ok=True)

    def _path(self, instance_id: str) -> Path:
        if not _ID.match(instance_id):
            raise RuntimeRefused("An instance is named by a UUID.")
        return self._folder / f"{instance_id}.json"


def _read(path: Path) -> LoadNote | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return LoadNote(**data)
    except (OSError, ValueError, TypeError):
        return None


class Turn:
    """The right to load and unload on one TabbyAPI, held by one thread of one process at a time.

    Calls that cross on the wire fail in odd ways there. The kernel takes the right back from a process that dies.
    """

    def __init__(self, folder: Path) -> None:
        """Take nothing yet."""
        self._path = folder / "turn.lock"
        self._handle: int | None = None

    def take(self) -> bool:
        """Take it, if nobody has it.

        Raises:
            RuntimeRefused: the folder cannot be used.
        """
        return self._lock(fcntl.LOCK_EX)

    def is_taken(self) -> bool:
        """Whether anybody has it now. Those who ask do not see each other.

        Raises:
            RuntimeRefused: the folder cannot be used.
        """
        is_free = self._lock(fcntl.LOCK_SH)
        self.give_back()
        return not is_free

    def give_back(self) -> None:
        """Let the next one have it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _lock(self, way: int) -> bool:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise RuntimeRefused(f"{self._path} cannot be written: {exc.strerror}.") from exc
        try:
            fcntl.flock(handle, way | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._handle = handle
        return True
