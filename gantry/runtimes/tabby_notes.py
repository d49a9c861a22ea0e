"""What must outlive a process: which loads on a TabbyAPI were Gantry's own.

TabbyAPI knows no owners. Its `/v1/model` names a directory; only what is written here tells that Gantry asked for it.
"""

from __future__ import annotations

import json
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
