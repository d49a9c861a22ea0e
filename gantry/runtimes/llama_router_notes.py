"""What must outlive a process: which of a router's models Gantry asked for, how, and which of its loads it called off.

A router knows no owners, and calls a load that was called off a failed one. Only what is written here tells the difference.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from gantry.runtimes.exceptions import RuntimeRefused

ASKING_SECONDS = 60.0  # a load that was not asked for by then never will be: its worker is gone
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Intent(StrEnum):
    """What Gantry last wanted of a load."""

    ASKING = "asking"  # to be loaded; the router was not asked yet
    LOADING = "loading"
    LOADED = "loaded"  # it was seen ready
    CANCELLED = "cancelled"  # kept until the model is loaded again: so long the router calls it failed


@dataclass(frozen=True, slots=True)
class LoadNote:
    """One load that Gantry asked for."""

    instance_id: str
    model_id: str  # as Gantry calls the model
    name: str  # as the router does
    intent: Intent = Intent.ASKING
    began_at: float = 0.0  # seconds since the epoch
    is_embedding: bool = False
    path: str = ""  # of its file, where Gantry knows it
    port: int | None = None  # of its process, where Gantry can see it
    section: tuple[str, ...] = ()  # its lines in the preset, where Gantry writes it

    @property
    def is_wanted(self) -> bool:
        """Whether the model is to be there."""
        return self.intent != Intent.CANCELLED and not self.is_stale

    @property
    def is_stale(self) -> bool:
        """Whether nobody is about to ask for it any more."""
        return self.intent == Intent.ASKING and time.time() - self.began_at > ASKING_SECONDS


class LoadNotes:
    """The notes in a folder, one file each.

    Raises (what writes): RuntimeRefused: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        """Make no folder yet."""
        self._folder = folder

    def all(self) -> list[LoadNote]:
        """Those that can be read, oldest first."""
        try:
            paths = sorted(self._folder.glob("*.json"))
        except OSError:
            return []
        found = (_read(path) for path in paths)
        return sorted((note for note in found if note is not None), key=lambda note: note.began_at)

    def wanted(self) -> list[LoadNote]:
        """Those of models that are to be there, oldest first."""
        return [note for note in self.all() if note.is_wanted]

    def get(self, instance_id: str) -> LoadNote | None:
        """One of them."""
        return _read(self._path(instance_id))

    def put(self, note: LoadNote, chat_template: str = "") -> None:
        """Write one down, whole or not at all; with it the chat template that its load needs as a file."""
        path = self._path(note.instance_id)
        part = path.with_suffix(".part")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if chat_template:
                self.template_path(note.instance_id).write_text(chat_template, encoding="utf-8")
            part.write_text(json.dumps(asdict(note)), encoding="utf-8")
            part.replace(path)
        except OSError as exc:
            raise RuntimeRefused(f"{self._folder} cannot be written: {exc.strerror}.") from exc

    def remove(self, instance_id: str) -> None:
        """Forget one, and what was written beside it."""
        self._path(instance_id).unlink(missing_ok=True)
        self._path(instance_id).with_suffix(".jinja").unlink(missing_ok=True)

    def template_path(self, instance_id: str) -> Path:
        """Where `put` writes a load's chat template."""
        return self._path(instance_id).with_suffix(".jinja")

    def forget_cancelled(self, name: str) -> None:
        """Forget that loads of a model were called off: what the router says of it now is about something else."""
        for note in self.all():
            if note.name == name and not note.is_wanted:
                self.remove(note.instance_id)

    def _path(self, instance_id: str) -> Path:
        if not _ID.fullmatch(instance_id):
            raise RuntimeRefused(f"{instance_id!r} is no instance id")
        return self._folder / f"{instance_id}.json"


def _read(path: Path) -> LoadNote | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return LoadNote(**{**data, "intent": Intent(data["intent"]), "section": tuple(data["section"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
