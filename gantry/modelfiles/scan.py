"""Finding the models in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_file import is_later_shard
from gantry.modelfiles.hf_folder import is_model_folder, is_outdated_snapshot
from gantry.modelfiles.model_file import ModelFileFacts, read_model

MOST_FILES = 10_000  # models looked at in one scan; a folder with more was not meant
MOST_FOLDERS = 50_000  # folders looked through in one scan: some seconds; nobody meant all of a disk
# Folders that hold no models, yet many files, or names of models without their weights (the hub's cache).
_SKIPPED = {".git", ".no_exist", ".locks", "__pycache__", "node_modules"}


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a folder holds, both lists by path. A problem is a path and why nothing was made of it, in words."""

    models: tuple[ModelFileFacts, ...]
    problems: tuple[tuple[Path, str], ...]


def default_folder() -> Path:
    """Where llama.cpp keeps the models that it downloads."""
    told = os.environ.get("LLAMA_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME")
    if told:
        return Path(told).expanduser()
    return (Path(cache) if cache else Path.home() / ".cache") / "llama.cpp"


def scan_folder(folder: Path) -> ScanResult:
    """Read every model in a folder and the folders in it: GGUF files, and folders as Hugging Face keeps them.

    Several shards are one model; of the revisions in the hub's cache only the one in use counts. Follows links, but each folder and each file is read once. What cannot be read is told in `problems`; nothing is raised.
    """
    models: list[ModelFileFacts] = []
    problems: list[tuple[Path, str]] = []
    for count, path in enumerate(_candidates(folder, problems), start=1):
        if count > MOST_FILES:
            problems.append((folder, f"holds more than {MOST_FILES:,} models; the rest was left out"))
            break
        try:
            models.append(read_model(path))
        except ModelFileInvalid as exc:
            problems.append((path, exc.reason))
    return ScanResult(tuple(sorted(models, key=lambda facts: facts.path)), tuple(sorted(problems)))


def _candidates(folder: Path, problems: list[tuple[Path, str]]) -> Iterator[Path]:
    """What stands for a model: a folder with one, each single GGUF file, and the first shard that is there of each set."""
    if problem := _folder_problem(folder):
        problems.append((folder, problem))
        return
    sets: set[tuple[Path, str]] = set()
    files: set[tuple[int, int] | None] = {None}  # None: a link that leads nowhere
    for parent, names in _folders(folder, problems):
        if is_model_folder(parent) and not is_outdated_snapshot(parent):
            yield parent
        for name in sorted(name for name in names if name.lower().endswith(".gguf")):
            path, shard_set = parent / name, (parent, _set_name(name))
            identity = _identity(path)
            if identity in files or (is_later_shard(path) and shard_set in sets):
                continue
            files.add(identity)
            sets.add(shard_set)
            yield path


def _folder_problem(folder: Path) -> str:
    """Why there is nothing to look through; "" when there is."""
    try:
        if folder.is_dir():
            return ""
        return "is not a folder" if folder.exists() else "is not there"
    except OSError as exc:  # a name that is too long, a folder that may not be entered
        return f"cannot be looked at: {exc.strerror or exc}"


def _folders(folder: Path, problems: list[tuple[Path, str]]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder once, however many links lead to it."""

    def tell(exc: OSError) -> None:
        problems.append((Path(exc.filename or folder), f"cannot be read: {exc.strerror or exc}"))

    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=tell):
        identity = _identity(Path(parent))
        if identity is None or identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        if len(seen) > MOST_FOLDERS:
            problems.append((folder, f"holds more than {MOST_FOLDERS:,} folders; the rest was left out"))
            return
        folders[:] = sorted(set(folders) - _SKIPPED)
        yield Path(parent), names


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _set_name(name: str) -> str:
    """What the shards of one model have in common: the name without the shard's own number."""
    head, separator, tail = name.lower().rpartition("-of-")
    return f"{head[:-5]}{separator}{tail}" if separator else name
