"""From what a client sends to a definition that is saved: the same rules as for the form of the admin and for a model file."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError

from models_admin.actor import Actor
from models_admin.catalog import validate_definition
from models_admin.definitions import refuse_move, save_definition
from models_admin.exceptions import InvalidDefinition
from models_admin.models import ModelDefinition, Runtime

_IDENTITY = frozenset({"model_id", "runtime"})  # by these the process of a model is known
_MAY_BE_NULL = frozenset({"context_length", "idle_minutes"})
_CHECKED = (
    "model_id", "name", "description", "runtime", "path", "tags", "parameters", "extra_args", "chat_template", "sampling", "size_bytes",
    "quantization", "parameter_label", "architecture", "context_length",
)  # fmt: skip


def create_model(values: dict[str, Any], actor: Actor) -> ModelDefinition:
    """Add a definition.

    Raises:
        InvalidDefinition: names each field that is wrong.
    """
    runtime = _runtime_named(values["runtime"]) if values.get("runtime") else _only_runtime()
    given = {name: value for name, value in values.items() if value is not None}
    return _save(ModelDefinition(), {**given, "runtime": runtime}, actor)


def change_model(model: ModelDefinition, values: dict[str, Any], actor: Actor) -> ModelDefinition:
    """Change some fields of a definition.

    Raises:
        InvalidDefinition: names each field that is wrong.
        ModelInUse: its id or its runtime would change while it is loaded.
    """
    nulls = [(name, "must not be null") for name, value in values.items() if value is None and name not in _MAY_BE_NULL]
    if nulls:
        raise InvalidDefinition("The definition has errors.", nulls)
    if "runtime" in values:
        values = {**values, "runtime": _runtime_named(values["runtime"])}
    changed = {name: value for name, value in values.items() if getattr(model, name) != value}
    if _IDENTITY & changed.keys():
        refuse_move(model)
    return _save(model, changed, actor) if changed else model


def _save(model: ModelDefinition, values: dict[str, Any], actor: Actor) -> ModelDefinition:
    for name, value in values.items():
        setattr(model, name, value)
    validate_definition({name: getattr(model, name) for name in _CHECKED})
    try:
        model.full_clean()
        save_definition(model, changed=list(values), actor=actor)
    except ValidationError as exc:
        errors = [(name, text) for name, texts in exc.message_dict.items() for text in texts]
        raise InvalidDefinition("The definition has errors.", errors) from exc
    except IntegrityError as exc:  # somebody else took the id in the same moment
        raise InvalidDefinition("The definition has errors.", [("model_id", "is taken")]) from exc
    return model


def _runtime_named(name: str) -> Runtime:
    runtime = Runtime.objects.select_related("pool").filter(name=name).first()
    if runtime is None:
        raise InvalidDefinition("The definition has errors.", [("runtime", f"there is no runtime {name}")])
    return runtime


def _only_runtime() -> Runtime:
    runtimes = list(Runtime.objects.select_related("pool").filter(is_enabled=True)[:2])
    if len(runtimes) != 1:
        raise InvalidDefinition("The definition has errors.", [("runtime", "must be given: there is not just one")])
    return runtimes[0]
