"""The list of models: import, scan, export and checks. Each action has its permission, its audit entry and its live event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from django.db import transaction

from gantry.modelfiles.exceptions import ModelsYAMLInvalid
from gantry.modelfiles.load_parameters import are_for_tabby
from gantry.modelfiles.model_entry import ModelEntry
from gantry.modelfiles.model_file import Form, form_of
from gantry.modelfiles.models_yaml import dump_models_yaml, parse_models_yaml
from models_admin import audit
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.catalog_rows import (
    DECIDED,
    NEEDS_FOLDER_RUNTIME,
    ImportReport,
    ScanReport,
    audited_values,
    finish,
    require_permission,
    runtime_for,
    save_new,
)
from models_admin.catalog_scan import import_folder
from models_admin.definition_checks import validate_definition
from models_admin.exceptions import InvalidDefinition
from models_admin.model_files import full_path, refresh_availability, resolve_path
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

# What the file knows better, once it is there.
_FROM_FILE = ("size_bytes", "quantization", "context_length")


def import_models_yaml(text: str, *, file_name: str, actor: Actor) -> ImportReport:
    """Take over the models of a model file: all of them, or none when anything is wrong.

    New ids become new models. Of a model that is known, the keys that the file gives are taken over and the others left
    as they are; models that the file does not name stay.

    Raises:
        NotAllowed: the actor may not add or change models.
        InvalidDefinition: carries a (place, message) pair for each error.
    """
    require_permission(actor)
    try:
        entries = parse_models_yaml(text, file_name)
    except ModelsYAMLInvalid as exc:
        raise InvalidDefinition(f"{file_name} has errors; nothing was imported.", exc.errors) from exc
    with transaction.atomic():
        report = _take_over(entries, actor)
        finish(AuditEvent.MODELS_IMPORT, actor, file_name, report)
    # Outside of the transaction: reading 200 files takes seconds, for which nobody else could write.
    models = _models_with_ids(entry.model_id for entry in entries)
    refresh_availability(models)
    problems = ((model.model_id, model.metadata.get("problem", "")) for model in models)
    return replace(report, damaged=tuple((model_id, problem) for model_id, problem in problems if problem))


def export_models_yaml() -> str:
    """A model file with every model; importing it elsewhere gives the same definitions."""
    return dump_models_yaml(_entry(model) for model in ModelDefinition.objects.order_by("model_id"))


# Import of a model file


def _take_over(entries: Sequence[ModelEntry], actor: Actor) -> ImportReport:
    known = {model.model_id: model for model in _models_with_ids(entry.model_id for entry in entries)}
    new = [entry for entry in entries if entry.model_id not in known]
    old = [entry for entry in entries if entry.model_id in known]
    runtimes = {form: _runtime_for(form, new) for form in {_form_of(entry) for entry in new}}
    _check_devices([(entry, runtimes[_form_of(entry)]) for entry in new])
    _check_devices([(entry, known[entry.model_id].runtime) for entry in old])
    for entry in new:
        values = {name: _stored(entry, name) for name in (*DECIDED, *_FROM_FILE)}
        source = ModelDefinition.Source.YAML
        save_new(
            ModelDefinition(model_id=entry.model_id, runtime=runtimes[_form_of(entry)], source=source, **values), actor
        )
    changed = [entry.model_id for entry in old if _change_from_entry(known[entry.model_id], entry, actor)]
    return ImportReport(
        created=tuple(entry.model_id for entry in new),
        changed=tuple(changed),
        unchanged=tuple(entry.model_id for entry in old if entry.model_id not in changed),
    )


def _check_devices(entries: Iterable[tuple[ModelEntry, Runtime]]) -> None:
    """Check that the devices are there, and that each server can be told.

    Raises:
        InvalidDefinition: one of them is not, or cannot.
    """
    errors: list[tuple[str, str]] = []
    for entry, runtime in entries:
        try:
            validate_definition({"devices": list(entry.devices), "runtime": runtime})
        except InvalidDefinition as exc:
            errors += [(f"models.{entry.model_id}.{place}", message) for place, message in exc.errors]
    if errors:
        raise InvalidDefinition("Some models cannot be put on their devices; nothing was imported.", errors)


def _form_of(entry: ModelEntry) -> Form:
    """In what form the model lies on the disk, or will: told by what is there, else by its parameters."""
    is_folder = are_for_tabby(entry.parameters) or (entry.path and form_of(full_path(entry.path)) == Form.FOLDER)
    return Form.FOLDER if is_folder else Form.FILE


def _runtime_for(form: Form, entries: Iterable[ModelEntry]) -> Runtime:
    """The runtime for new models of this form.

    Raises:
        InvalidDefinition: there is none.
    """
    runtime = runtime_for(form)
    if runtime is None:
        errors = [(entry.model_id, NEEDS_FOLDER_RUNTIME) for entry in entries if _form_of(entry) == form]
        raise InvalidDefinition("Some models need a runtime that is not set up; nothing was imported.", errors)
    return runtime


def _models_with_ids(model_ids: Iterable[str]) -> list[ModelDefinition]:
    return list(ModelDefinition.objects.with_runtime().filter(model_id__in=list(model_ids)))


def _change_from_entry(model: ModelDefinition, entry: ModelEntry, actor: Actor) -> bool:
    """Take over what the file says and the definition does not; whether there was anything."""
    names = DECIDED if "memory" in model.metadata else (*DECIDED, *_FROM_FILE)
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
    values = {name: getattr(model, name) for name in (*DECIDED, *_FROM_FILE)}
    values["extra_args"], values["tags"] = tuple(model.extra_args), tuple(model.tags)
    values["devices"] = tuple(model.devices)
    return ModelEntry(model_id=model.model_id, **values)
