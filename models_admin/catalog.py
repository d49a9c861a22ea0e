"""The list of models: import, scan, export and checks. Each action has its permission, its audit entry and its live event."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.db import transaction
from typing_extensions import override

from gantry import live
from gantry.modelfiles.exceptions import ModelsYAMLInvalid
from gantry.modelfiles.gguf_file import GGUFFacts
from gantry.modelfiles.model_entry import ModelEntry, printable, text_error
from gantry.modelfiles.models_yaml import dump_models_yaml, parse_models_yaml
from gantry.modelfiles.scan import ScanResult, scan_folder
from models_admin import audit
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.definition_checks import validate_definition
from models_admin.exceptions import InvalidDefinition, NotAllowed
from models_admin.model_files import (
    fact_fields,
    refresh_availability,
    resolve_path,
    short_path,
    stamp_of,
    without_tilde,
)
from models_admin.models import ModelDefinition, Runtime
from models_admin.specs import parameters_hash, spec_for, specs_for

__all__ = [
    "ImportReport",
    "ScanReport",
    "audited_values",
    "export_models_yaml",
    "import_folder",
    "import_models_yaml",
    "parameters_hash",
    "refresh_availability",
    "resolve_path",
    "spec_for",
    "specs_for",
    "validate_definition",
]

SCANNED_CONTEXT = (
    8192  # tokens for a model found by a scan: the full context of some would take more memory than their weights
)

# What a person decides about a model. The rest of a definition is read from its file.
_DECIDED = (
    "name",
    "description",
    "path",
    "parameter_label",
    "parameters",
    "extra_args",
    "chat_template",
    "sampling",
    "tags",
    "is_pinned",
)
# What the file knows better, once it is there.
_FROM_FILE = ("size_bytes", "quantization", "context_length")


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, as model ids."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...] = field(
        default=(), kw_only=True
    )  # whose file is there and cannot be used, why

    @override
    def __str__(self) -> str:
        """As a sentence."""
        return f"{len(self.created)} created, {len(self.changed)} changed, {len(self.unchanged)} unchanged"


@dataclass(frozen=True, slots=True)
class ScanReport(ImportReport):
    """What a scan did, and which files it could make nothing of: (path, why)."""

    problems: tuple[tuple[Path, str], ...] = field(default=())  # fit to be shown, whatever bytes a file's name has


def import_models_yaml(text: str, *, file_name: str, actor: Actor) -> ImportReport:
    """Take over the models of a model file: all of them, or none when anything is wrong.

    New ids become new models. Of a model that is known, the keys that the file gives are taken over and the others left
    as they are; models that the file does not name stay.

    Raises:
        NotAllowed: the actor may not add or change models.
        InvalidDefinition: carries a (place, message) pair for each error.
    """
    _require(actor)
    try:
        entries = parse_models_yaml(text, file_name)
    except ModelsYAMLInvalid as exc:
        raise InvalidDefinition(f"{file_name} has errors; nothing was imported.", exc.errors) from exc
    with transaction.atomic():
        report = _take_over(entries, actor)
        _finish(AuditEvent.MODELS_IMPORT, actor, file_name, report)
    # Outside of the transaction: reading 200 files takes seconds, for which nobody else could write.
    models = _models_with_ids(entry.model_id for entry in entries)
    refresh_availability(models)
    problems = ((model.model_id, model.metadata.get("problem", "")) for model in models)
    return replace(report, damaged=tuple((model_id, problem) for model_id, problem in problems if problem))


def import_folder(path: Path, *, actor: Actor) -> ScanReport:
    """Find GGUF models in a folder: new ones become definitions, known ones (by their file) are read again.

    Raises:
        NotAllowed: the actor may not add or change models.
        InvalidDefinition: it is no folder or cannot be read, or there is something to add and no runtime to load it with.
    """
    _require(actor)
    found = _scanned(without_tilde(path).absolute())
    known = {_real(resolve_path(model)): model for model in ModelDefinition.objects.with_runtime() if model.path}
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
        _finish(AuditEvent.MODELS_SCAN, actor, printable(str(path)), report)
    return report


def export_models_yaml() -> str:
    """A model file with every model; importing it elsewhere gives the same definitions."""
    return dump_models_yaml(_entry(model) for model in ModelDefinition.objects.order_by("model_id"))


def audited_values(model: ModelDefinition) -> dict[str, Any]:
    """What a person decides about a model, for the before and after of an audit entry."""
    return {name: getattr(model, name) for name in ("model_id", *_DECIDED)}


# Import of a model file


def _take_over(entries: Sequence[ModelEntry], actor: Actor) -> ImportReport:
    known = {model.model_id: model for model in _models_with_ids(entry.model_id for entry in entries)}
    new = [entry for entry in entries if entry.model_id not in known]
    old = [entry for entry in entries if entry.model_id in known]
    runtime = _default_runtime() if new else None
    for entry in new:
        values = {name: _stored(entry, name) for name in (*_DECIDED, *_FROM_FILE)}
        source = ModelDefinition.Source.YAML
        _save_new(ModelDefinition(model_id=entry.model_id, runtime=runtime, source=source, **values), actor)
    changed = [entry.model_id for entry in old if _change_from_entry(known[entry.model_id], entry, actor)]
    return ImportReport(
        created=tuple(entry.model_id for entry in new),
        changed=tuple(changed),
        unchanged=tuple(entry.model_id for entry in old if entry.model_id not in changed),
    )


def _models_with_ids(model_ids: Iterable[str]) -> list[ModelDefinition]:
    return list(ModelDefinition.objects.with_runtime().filter(model_id__in=list(model_ids)))


def _change_from_entry(model: ModelDefinition, entry: ModelEntry, actor: Actor) -> bool:
    """Take over what the file says and the definition does not; whether there was anything."""
    names = _DECIDED if "memory" in model.metadata else (*_DECIDED, *_FROM_FILE)
    after = {name: _stored(entry, name) for name in names if name in entry.given}
    after = {name: value for name, value in after.items() if value != getattr(model, name)}
    if not after:
        return False
    before = {name: getattr(model, name) for name in after}
    if "path" in after:
        model.metadata = {}  # what another file said
    for name, value in after.items():
        setattr(model, name, value)
    model.save(update_fields=[*after, "metadata", "updated_at"])
    audit.write(AuditEvent.MODEL_CHANGE, actor=actor, object_text=model.name, before=before, after=after)
    return True


def _stored(entry: ModelEntry, name: str) -> Any:
    """A value of an entry as the database keeps it."""
    value = getattr(entry, name)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _entry(model: ModelDefinition) -> ModelEntry:
    values = {name: getattr(model, name) for name in (*_DECIDED, *_FROM_FILE)}
    values["extra_args"], values["tags"] = tuple(model.extra_args), tuple(model.tags)
    return ModelEntry(model_id=model.model_id, **values)


# Scan of a folder


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


def _create_all(found: Sequence[GGUFFacts], problems: list[tuple[Path, str]], actor: Actor) -> list[str]:
    """Definitions for what was found, as model ids; what cannot be stored is told in `problems`."""
    runtime = _default_runtime() if found else None
    created = []
    for facts in found:
        try:
            fields = _fields_from_file(facts)
        except (OSError, ValueError) as exc:
            problems.append((facts.path, str(exc)))
        else:
            created.append(_save_new(ModelDefinition(runtime=runtime, **fields), actor).model_id)
    return created


def _fields_from_file(facts: GGUFFacts) -> dict[str, Any]:
    """The fields of a definition for a file.

    Raises:
        OSError: the file went away since it was read.
        ValueError: its path cannot be stored.
    """
    path = short_path(facts.path)
    if error := text_error(path, 1000):
        raise ValueError(f"has a path that cannot be stored: it {error}")
    decided = {
        "model_id": _free_id(facts.path),
        "name": _free_name(facts),
        "path": path,
        "parameters": {"ctx_size": min(facts.context_length, SCANNED_CONTEXT)} if facts.context_length else {},
        "tags": ["embedding"] if facts.is_embedding else [],
        "source": ModelDefinition.Source.SCAN,
    }
    return decided | fact_fields(ModelDefinition(), facts, stamp_of(facts.shards))


def _free_id(path: Path) -> str:
    """An id from the file's name that no model has."""
    stem = re.sub(r"-00001-of-\d{5}$", "", path.stem)
    slug = re.sub(r"[^a-z0-9._+-]+", "-", stem.lower()).strip("-._+")[:190] or "model"
    return _first_free(slug, "-{}", lambda text: ModelDefinition.objects.filter(model_id=text).exists())


def _free_name(facts: GGUFFacts) -> str:
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


# Both


def _save_new(model: ModelDefinition, actor: Actor) -> ModelDefinition:
    model.save(force_insert=True)
    audit.write(AuditEvent.MODEL_CREATE, actor=actor, object_text=model.name, after=audited_values(model))
    return model


def _finish(event: AuditEvent, actor: Actor, object_text: str, report: ImportReport) -> None:
    audit.write(
        event,
        actor=actor,
        object_text=object_text,
        after={"created": list(report.created), "changed": list(report.changed)},
        outcome=str(report),
    )
    if report.created or report.changed:
        live.publish_models_changed([*report.created, *report.changed], event_id=f"catalog-{uuid4().hex}")


def _require(actor: Actor) -> None:
    for permission in ("add_modeldefinition", "change_modeldefinition"):
        if not actor.may(permission):
            raise NotAllowed("You may not add or change models.", "Ask an administrator for the permission.")


def _default_runtime() -> Runtime:
    """The runtime for new models.

    Raises:
        InvalidDefinition: there is none.
    """
    candidates = Runtime.objects.filter(kind=Runtime.Kind.LLAMA_SERVER, is_enabled=True)
    runtime = candidates.select_related("pool").order_by("pool__host", "pk").first()
    if runtime is None:
        message = "there is no llama-server runtime yet; run `manage.py up` once or add one under Runtimes"
        raise InvalidDefinition("Models need a runtime to be loaded with.", [("runtime", message)])
    return runtime
