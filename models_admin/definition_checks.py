"""The rules for a model's definition: the same for a form as for a model file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.load_parameters import validate_load_parameters
from gantry.modelfiles.model_entry import LARGEST_SIZE, LONGEST_CONTEXT, MODEL_ID, tags_error, text_error
from gantry.modelfiles.model_file import form_of, read_model
from gantry.modelfiles.sampling import validate_sampling
from gantry.runtimes import llama_parameters, tabby_parameters
from gantry.runtimes.llama_parameters import validate_extra_args
from gantry.runtimes.typed_fields import ParameterInvalid, got
from models_admin.exceptions import InvalidDefinition
from models_admin.model_files import full_path, is_there, wrong_runtime
from models_admin.models import Runtime
from models_admin.runtime_access import takes_devices


def validate_definition(values: Mapping[str, Any]) -> None:
    """Check the fields of a definition that are given, by the names of `ModelDefinition`, and the file if it is there.

    Raises:
        InvalidDefinition: carries a (place, message) pair for each error; a place is a field, or "parameters.ctx_size".
    """
    errors = [error for name, check in _CHECKS.items() if name in values for error in check(name, values[name])]
    errors += _check_parameters(values) + _check_fit(values) + _check_devices(values)
    if errors:
        raise InvalidDefinition("The definition has errors.", errors)


# Checks of single fields: each gives (place, message) pairs

_Check = Callable[[str, Any], list[tuple[str, str]]]


def _check_text(limit: int, *, many_lines: bool = False, is_required: bool = False) -> _Check:
    def check(name: str, value: Any) -> list[tuple[str, str]]:
        missing = "must not be empty" if is_required and not value else ""
        error = missing or text_error(str(value), limit, many_lines=many_lines)
        return [(name, error)] if error else []

    return check


def _check_fields(validate: Callable[[Any], object]) -> _Check:
    def check(name: str, value: Any) -> list[tuple[str, str]]:
        if not isinstance(value, dict):
            return [(name, f"must be a mapping of names to values {got(value)}")]
        try:
            validate(value)
        except ParameterInvalid as exc:
            return [(f"{name}.{key}", message) for key, message in exc.errors]
        return []

    return check


def _check_extra_args(name: str, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        return [(name, f"must be a list of texts {got(value)}")]
    try:
        validate_extra_args(value)
    except ParameterInvalid as exc:
        return [(name, f"{key}: {message}") for key, message in exc.errors]
    return []


def _check_id(name: str, value: Any) -> list[tuple[str, str]]:
    fits = MODEL_ID.match(str(value))
    return [] if fits else [(name, f"may have letters, digits and . _ : / + - only {got(value)}")]


def _check_number(most: int) -> _Check:
    def check(name: str, value: Any) -> list[tuple[str, str]]:
        fits = value is None or 0 <= value <= most
        return [] if fits else [(name, f"must be a whole number of at least 0 and at most {most} {got(value)}")]

    return check


def _check_tags(name: str, value: Any) -> list[tuple[str, str]]:
    error = tags_error(value)
    return [(name, error)] if error else []


def _check_path(name: str, value: Any) -> list[tuple[str, str]]:
    """A file that is there must be usable; one that is not may still come."""
    if error := text_error(str(value), 1000):
        return [(name, error)]
    path = full_path(str(value))
    if not value or not is_there(path):
        return []
    try:
        read_model(path)
    except ModelFileInvalid as exc:
        return [(name, f"the {form_of(path) or 'file'} {exc.reason}")]
    return []


def _check_parameters(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """They are those of the runtime, where it is given too."""
    if "parameters" not in values:
        return []
    runtime = values.get("runtime")
    check = (
        validate_load_parameters
        if runtime is None
        else _PARAMETERS.get(runtime.kind, llama_parameters.validate_parameters)
    )
    return _check_fields(check)("parameters", values["parameters"])


def _check_fit(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The runtime, where it is given too, loads what is at the path."""
    runtime, path = values.get("runtime"), str(values.get("path") or "")
    if runtime is None or text_error(path, 1000):
        return []
    reason = wrong_runtime(runtime.kind, full_path(path))
    return [("runtime", f"cannot load it: what the path names {reason}")] if path and reason else []


def _check_devices(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """They are there, and the runtime, where it is given too, can be told to use them."""
    devices, runtime = values.get("devices"), values.get("runtime")
    if not devices:
        return []
    if not isinstance(devices, list) or not all(isinstance(device, str) for device in devices):
        return [("devices", f"must be a list of texts {got(devices)}")]
    if runtime is None:
        return []
    if not takes_devices(runtime):
        return [("devices", _PLACES_ITSELF.get(runtime.kind, "must be empty: this server chooses by itself"))]
    there = [device["id"] for device in runtime.pool.devices]
    choice = f"there are: {', '.join(there)}" if there else "it has none to choose from, so leave this empty"
    return [
        ("devices", f"there is no device {device} on {runtime.pool.host}; {choice}")
        for device in devices
        if device not in there
    ]


_PLACES_ITSELF: Mapping[str, str] = {
    Runtime.Kind.TABBY: "must be empty: TabbyAPI is told by the parameter gpu_split how much goes on which GPU",
    Runtime.Kind.LLAMA_ROUTER: "must be empty: whoever runs this router chooses, with `device` in its preset",
}

# By kind of runtime; every other takes those of llama-server.
_PARAMETERS: dict[str, Callable[[Any], object]] = {Runtime.Kind.TABBY: tabby_parameters.validate_parameters}

_CHECKS: dict[str, _Check] = {
    "model_id": _check_id,
    "name": _check_text(200, is_required=True),
    "description": _check_text(10_000, many_lines=True),
    "path": _check_path,
    "size_bytes": _check_number(LARGEST_SIZE),
    "context_length": _check_number(LONGEST_CONTEXT),
    "quantization": _check_text(50),
    "parameter_label": _check_text(50),
    "architecture": _check_text(100),
    "extra_args": _check_extra_args,
    "chat_template": _check_text(200_000, many_lines=True),
    "sampling": _check_fields(validate_sampling),
    "tags": _check_tags,
}
