"""Finding the models in a folder and adding those that are new."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.db import transaction

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.hf_folder import FolderFacts
from gantry.modelfiles.load_parameters import validate_load_parameters
from gantry.modelfiles.model_entry import MODEL_ID, printable, text_error
from gantry.modelfiles.model_file import Form, ModelFileFacts, model_files
from gantry.modelfiles.scan import ScanResult, scan_folder
from gantry.runtimes.typed_fields import ParameterInvalid
from models_admin import audit
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.catalog_rows import (
    NEEDS_FOLDER_RUNTIME,
    ScanReport,
    finish,
    require_permission,
    runtime_for,
    save_new,
)
from models_admin.exceptions import InvalidDefinition
from models_admin.model_files import (
    fact_fields,
    is_listed_only,
    refresh_availability,
    resolve_path,
    short_path,
    stamp_of,
    without_tilde,
)
from models_admin.models import ModelDefinition, Runtime
from models_admin.specs import CONTEXT_PARAMETER

SCANNED_CONTEXT = (
    8192  # tokens for a model found by a scan: the full context of some would take more memory than their weights
)


def import_folder(path: Path, *, actor: Actor) -> ScanReport:
    """Find models in a folder: new ones become definitions, known ones (by their file) are read again.

    A folder with safetensors files is told as a problem where no runtime of this host can load it.

    Raises:
        NotAllowed: the actor may not add or change models.
        InvalidDefinition: it is no folder or cannot be read, or there is a GGUF file to add and no runtime to load it with.
    """
    require_permission(actor)
    found = _scanned(without_tilde(path).absolute())
    models = list(ModelDefinition.objects.with_runtime())
    _give_paths([model for model in models if is_listed_only(model)], found.models, actor)
    known = {_real(resolve_path(model)): model for model in models if model.path}
    old = [known[_real(facts.path)] for facts in found.models if _real(facts.path) in known]
    new = [facts for facts in found.models if _real(facts.path) not in known]
    problems = list(found.problems)
    changed = refresh_availability(old)
    with transaction.atomic():
        report = ScanReport(
            created=tuple(_create_all(new, problems, actor)),
            changed=tuple(changed),
            unchanged=tuple(model.model_id for model in old if model.model_id not in changed),
            problems=tuple((Path(printable(str(file))), printable(reason)) for file, reason in problems),
        )
        finish(AuditEvent.MODELS_SCAN, actor, printable(str(path)), report)
    return report


def _scanned(folder: Path) -> ScanResult:
    """What the folder holds.

    Raises:
        InvalidDefinition: nothing, for a reason that is the folder's own.
    """
    found = scan_folder(folder)
    reasons = [(printable(str(folder)), reason) for path, reason in found.problems if path == folder]
    if reasons and not found.models:
        raise InvalidDefinition(f"{printable(str(folder))} cannot be scanned.", reasons)
    return found


def _give_paths(listed: Sequence[ModelDefinition], found: Sequence[ModelFileFacts], actor: Actor) -> None:
    """Models that a server has listed by name are those whose folder is called so: from now on their files are known."""
    folders = [facts for facts in found if _form(facts) == Form.FOLDER and not text_error(short_path(facts.path), 1000)]
    for model in listed:
        path = next((facts.path for facts in folders if _is_called(facts, model.model_id)), None)
        if path is not None and short_path(path) != model.path:
            before, model.path = model.path, short_path(path)
            model.save(update_fields=["path", "updated_at"])
            audit.write(
                AuditEvent.MODEL_CHANGE,
                actor=actor,
                object_text=model.name,
                before={"path": before},
                after={"path": model.path},
            )


def _is_called(facts: ModelFileFacts, name: str) -> bool:
    """Whether a server that names its models by their folders, nested ones by their path, would call the model so."""
    parts = tuple(name.split("/"))
    return facts.name == name or facts.path.parts[-len(parts) :] == parts


def _create_all(found: Sequence[ModelFileFacts], problems: list[tuple[Path, str]], actor: Actor) -> list[str]:
    """Definitions for what was found, as model ids; what cannot be loaded or stored is told in `problems`."""
    runtimes = {form: runtime_for(form) for form in {_form(facts) for facts in found}}
    created = []
    for facts in found:
        runtime = runtimes[_form(facts)]
        if runtime is None:
            problems.append((facts.path, NEEDS_FOLDER_RUNTIME))
            continue
        try:
            fields = _fields_from_file(facts, runtime)
        except (OSError, ValueError) as exc:
            problems.append((facts.path, str(exc)))
        else:
            created.append(save_new(ModelDefinition(runtime=runtime, **fields), actor).model_id)
    return created


def _form(facts: ModelFileFacts) -> Form:
    return Form.FOLDER if isinstance(facts, FolderFacts) else Form.FILE


def _fields_from_file(facts: ModelFileFacts, runtime: Runtime) -> dict[str, Any]:
    """The fields of a definition for a file.

    Raises:
        OSError: the file went away since it was read.
        ValueError: its path cannot be stored, or it went away in part.
    """
    path = short_path(facts.path)
    if error := text_error(path, 1000):
        raise ValueError(f"has a path that cannot be stored: it {error}")
    decided = {
        "model_id": _free_id(facts),
        "name": _free_name(facts),
        "path": path,
        "parameters": _context_parameters(facts, runtime),
        "tags": ["embedding"] if facts.is_embedding else [],
        "source": ModelDefinition.Source.SCAN,
    }
    try:
        stamp = stamp_of(model_files(facts.path))
    except ModelFileInvalid as exc:
        raise ValueError(exc.reason) from exc
    return decided | fact_fields(ModelDefinition(), facts, stamp)


def _context_parameters(facts: ModelFileFacts, runtime: Runtime) -> dict[str, Any]:
    """A context that is not larger than the model's own; none where the server would not take one so small."""
    name = CONTEXT_PARAMETER[Runtime.Kind(runtime.kind)]
    parameters = {name: min(facts.context_length, SCANNED_CONTEXT)}
    try:
        return validate_load_parameters(parameters).as_dict() if facts.context_length else {}
    except ParameterInvalid:
        return {}


def _free_id(facts: ModelFileFacts) -> str:
    """An id from the file's name that no model has; a folder keeps its name, by which its server knows it."""
    if _form(facts) == Form.FOLDER and MODEL_ID.match(facts.name[:190]):
        return _first_free(facts.name[:190], "-{}", _has_id)
    stem = facts.name if _form(facts) == Form.FOLDER else re.sub(r"-00001-of-\d{5}$", "", facts.path.stem)
    slug = re.sub(r"[^a-z0-9._+-]+", "-", stem.lower()).strip("-._+")[:190] or "model"
    return _first_free(slug, "-{}", _has_id)


def _has_id(model_id: str) -> bool:
    return ModelDefinition.objects.filter(model_id=model_id).exists()


def _free_name(facts: ModelFileFacts) -> str:
    """The name that the file gives itself, with what tells it from a namesake."""
    taken = ModelDefinition.objects.filter(name=facts.name).exists()
    name = (
        f"{facts.name[:140]} {facts.quantization}" if taken else facts.name[:190]
    )  # of 200, for there may come " (2)"
    return _first_free(name, " ({})", lambda text: ModelDefinition.objects.filter(name=text).exists())


def _first_free(text: str, ending: str, is_taken: Callable[[str], bool]) -> str:
    number = 1
    candidate = text
    while is_taken(candidate):
        number += 1
        candidate = text + ending.format(number)
    return candidate


def _real(path: Path) -> str:
    """One path for a file, whichever links lead to it. Unlike `Path.resolve`, takes links that lead in a circle."""
    return os.path.realpath(path)
