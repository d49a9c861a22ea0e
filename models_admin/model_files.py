"""The files behind model definitions: where they are, whether they are there, what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.conf import settings
from django.db.models import Q

from gantry import live
from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.model_file import Form, ModelFileFacts, form_of, model_files, read_model
from gantry.planning.states import ErrorCode
from models_admin.models import ModelDefinition, Runtime

if TYPE_CHECKING:
    from django.db.models import QuerySet

# What each kind of runtime loads from this host's disk. One that is not here keeps its models to itself, and so does a router
# that somebody else runs.
LOADED_FORMS: Mapping[str, Form] = {
    Runtime.Kind.LLAMA_SERVER: Form.FILE,
    Runtime.Kind.LLAMA_ROUTER: Form.FILE,
    Runtime.Kind.TABBY: Form.FOLDER,
}
# Kinds that offer by themselves what they can load: their word counts, until the folder was seen on this host.
SELF_LISTING_KINDS = frozenset({Runtime.Kind.TABBY})
NEEDS_ANOTHER_RUNTIME = {
    Form.FILE: "is a GGUF file, which needs llama-server",
    Form.FOLDER: "holds a model in safetensors files, which needs TabbyAPI or vLLM",
}

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
    for model in _on_this_host() if models is None else filter(_can_be_looked_at, models):
        fields = _look_again(model)
        if fields:
            ModelDefinition.objects.filter(pk=model.pk).update(**fields)
            for name, value in fields.items():
                setattr(model, name, value)
            changed.append(model.model_id)
    if changed:
        live.publish_models_changed(changed, event_id=f"files-{uuid4().hex}")
    return changed


def damage(path: Path) -> str:
    """What is wrong with the model at a path, to go on after "it": "is cut off: …"; "" when it can be used or is not there.

    A file that does not call itself GGUF is its server's own business.
    """
    form = form_of(path)
    calls_itself_gguf = path.suffix.lower() == ".gguf"
    if not is_there(path) or (form != Form.FOLDER and not calls_itself_gguf):
        return ""
    try:
        read_model(path)
    except ModelFileInvalid as exc:
        return exc.reason
    return ""


def loads_from_disk(runtime: Runtime) -> bool:
    """Whether what it loads lies on its host's disk where Gantry can look, too."""
    return runtime.kind in LOADED_FORMS and not (runtime.kind == Runtime.Kind.LLAMA_ROUTER and runtime.url)


def wrong_runtime(kind: str, path: Path) -> str:
    """Why a runtime of this kind cannot load what lies at a path, to go on after "it"; "" when it can, or nobody knows."""
    form, wanted = form_of(path), LOADED_FORMS.get(kind)
    return NEEDS_ANOTHER_RUNTIME[form] if form and wanted and form != wanted else ""


def fact_fields(model: ModelDefinition, facts: ModelFileFacts, stamp: Stamp) -> dict[str, Any]:
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
    is_elsewhere = Q(runtime__kind=Runtime.Kind.LLAMA_ROUTER) & ~Q(runtime__url="")  # as `loads_from_disk` has it
    models = ModelDefinition.objects.with_runtime()
    return models.filter(runtime__kind__in=LOADED_FORMS, runtime__pool__host=settings.HOST_NAME).exclude(is_elsewhere)


def is_on_this_host(model: ModelDefinition) -> bool:
    """Whether its file can be looked at from here, and is missing when it is not there."""
    return _can_be_looked_at(model) and (model.runtime.kind not in SELF_LISTING_KINDS or _was_seen(model))


def is_listed_only(model: ModelDefinition) -> bool:
    """Whether a server of this host offers it by name, and nobody has seen its folder yet."""
    return model.runtime.kind in SELF_LISTING_KINDS and _can_be_looked_at(model) and not _was_seen(model)


def _can_be_looked_at(model: ModelDefinition) -> bool:
    return loads_from_disk(model.runtime) and model.runtime.pool.host == settings.HOST_NAME


def _was_seen(model: ModelDefinition) -> bool:
    return bool(model.metadata.get("stamp"))


def _look_again(model: ModelDefinition) -> dict[str, Any]:
    """The fields that are to change."""
    path = resolve_path(model)
    try:
        form = form_of(path) if model.path else None
        if form is None:
            return _missing(model)
        stamp = stamp_of(model_files(path))
    except (ModelFileInvalid, OSError):  # a shard is missing, a folder may not be entered: as good as the whole file
        return _missing(model)
    if stamp == model.metadata.get("stamp"):
        return {} if model.is_available else {"is_available": True}
    if reason := wrong_runtime(model.runtime.kind, path):
        return _damaged(stamp, form, reason)
    try:
        return fact_fields(model, read_model(path), stamp) | _mended(model)
    except ModelFileInvalid as exc:
        return _damaged(stamp, form, exc.reason)


def _missing(model: ModelDefinition) -> dict[str, Any]:
    """A server's own word that it has the model stands as long as nobody has seen the folder here."""
    if not model.is_available or (model.runtime.kind in SELF_LISTING_KINDS and not _was_seen(model)):
        return {}
    return {"is_available": False}


def _damaged(stamp: Stamp, form: Form, reason: str) -> dict[str, Any]:
    """It is there, so it is not "not downloaded": what is wrong with it is told like a failed load."""
    return {
        "is_available": True,
        "metadata": {"stamp": stamp, "problem": reason},
        "last_error_code": ErrorCode.FILE_DAMAGED,
        "last_error_text": f"The {form.value} {reason}.",
    }


def _mended(model: ModelDefinition) -> dict[str, Any]:
    return {"last_error_code": "", "last_error_text": ""} if model.last_error_code == ErrorCode.FILE_DAMAGED else {}
