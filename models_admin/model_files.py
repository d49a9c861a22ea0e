"""The files behind model definitions: where they are, whether they are there, what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.conf import settings

from gantry import live
from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_file import GGUFFacts, read_gguf, shard_paths
from gantry.planning.states import ErrorCode
from models_admin.models import ModelDefinition, Runtime

if TYPE_CHECKING:
    from django.db.models import QuerySet

FILE_KINDS = frozenset({Runtime.Kind.LLAMA_SERVER})  # runtimes that load files of this host

Stamp = list[list[int]]  # size and time of change of each file: when it is the same, so is what they say


def resolve_path(model: ModelDefinition) -> Path:
    """Where the model's file is (or should be). A relative path starts at GANTRY_MODELS_DIR."""
    return full_path(model.path)


def full_path(path: str) -> Path:
    """Where a path as people write it leads."""
    return Path(settings.MODELS_DIR) / without_tilde(Path(path))


def without_tilde(path: Path) -> Path:
    """The path with the home of "~" or "~somebody" in it; of somebody who has none it is a name like any other."""
    with suppress(RuntimeError):
        return path.expanduser()
    return path


def is_there(path: Path) -> bool:
    """Whether a path leads to a file or folder that can be looked at."""
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False


def short_path(path: Path) -> str:
    """A path as it is stored: relative where it lies within GANTRY_MODELS_DIR."""
    try:
        return str(path.relative_to(settings.MODELS_DIR))
    except ValueError:
        return str(path)


def refresh_availability(models: Iterable[ModelDefinition] | None = None) -> list[str]:
    """Compare definitions with their files and note what changed: there or not, damaged or not, what they say.

    A file is read again only when its size or time of change differs from the last reading. One query, and one more
    for each change.

    Args:
        models: these instead of all, with their runtime and pool; those whose file is not of this host are left alone.

    Returns:
        The model ids whose state changed; pages are told of them.
    """
    changed = []
    for model in _on_this_host() if models is None else filter(is_on_this_host, models):
        fields = _look_again(model)
        if fields:
            ModelDefinition.objects.filter(pk=model.pk).update(**fields)
            for name, value in fields.items():
                setattr(model, name, value)
            changed.append(model.model_id)
    if changed:
        live.publish_models_changed(changed, event_id=f"files-{uuid4().hex}")
    return changed


def fact_fields(model: ModelDefinition, facts: GGUFFacts, stamp: Stamp) -> dict[str, Any]:
    """What a definition takes over from its file. A parameter count that a person gave stays."""
    return {
        "size_bytes": facts.size_bytes,
        "quantization": facts.quantization[:50],
        "parameter_label": model.parameter_label or facts.parameter_label,
        "architecture": facts.architecture,
        "context_length": facts.context_length or None,
        "metadata": {
            "stamp": stamp,
            "name": facts.name,
            "parameter_count": facts.parameter_count,
            "layer_count": facts.layer_count,
            "file_count": len(facts.shards),
            "has_chat_template": facts.has_chat_template,
            "is_embedding": facts.is_embedding,
            "memory": facts.memory.as_dict(),
        },
        "is_available": True,
    }


def stamp_of(paths: Iterable[Path]) -> Stamp:
    """Size and time of change of files.

    Raises:
        OSError: one is not there.
    """
    return [[status.st_size, status.st_mtime_ns] for status in (path.stat() for path in paths)]


def _on_this_host() -> QuerySet[ModelDefinition]:
    return ModelDefinition.objects.with_runtime().filter(
        runtime__kind__in=FILE_KINDS, runtime__pool__host=settings.HOST_NAME
    )


def is_on_this_host(model: ModelDefinition) -> bool:
    """Whether its file can be looked at from here: its runtime loads files, and those of this host."""
    return model.runtime.kind in FILE_KINDS and model.runtime.pool.host == settings.HOST_NAME


def _look_again(model: ModelDefinition) -> dict[str, Any]:
    """The fields that are to change."""
    path = resolve_path(model)
    try:
        if not model.path or not path.is_file():
            return {"is_available": False} if model.is_available else {}
        stamp = stamp_of(shard_paths(path))
    except (ModelFileInvalid, OSError):  # a shard is missing, a folder may not be entered: as good as the whole file
        return {"is_available": False} if model.is_available else {}
    if stamp == model.metadata.get("stamp"):
        return {} if model.is_available else {"is_available": True}
    try:
        return fact_fields(model, read_gguf(path), stamp) | _mended(model)
    except ModelFileInvalid as exc:
        return _damaged(stamp, exc.reason)


def _damaged(stamp: Stamp, reason: str) -> dict[str, Any]:
    """It is there, so it is not "not downloaded": what is wrong with it is told like a failed load."""
    return {
        "is_available": True,
        "metadata": {"stamp": stamp, "problem": reason},
        "last_error_code": ErrorCode.FILE_DAMAGED,
        "last_error_text": f"The file {reason}.",
    }


def _mended(model: ModelDefinition) -> dict[str, Any]:
    return {"last_error_code": "", "last_error_text": ""} if model.last_error_code == ErrorCode.FILE_DAMAGED else {}
