"""The model file (`models.yaml`): read, checked, written. `config/models.yaml` shows and explains every key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from gantry.modelfiles.exceptions import ModelsYAMLInvalid
from gantry.modelfiles.load_parameters import validate_load_parameters
from gantry.modelfiles.model_entry import (
    MODEL_ID,
    ModelEntry,
    parse_context,
    parse_size,
    size_text,
    tags_error,
    text_error,
)
from gantry.modelfiles.sampling import validate_sampling
from gantry.modelfiles.yaml_nodes import ABSENT, EXPONENT, Absent, Notes, compose
from gantry.runtimes.llama_parameters import validate_extra_args
from gantry.runtimes.typed_fields import ParameterInvalid, TypedFields, got

_Listed = tuple[str | None, str, Node, dict[str, Node]]  # id, place, node and keys of an entry


def parse_models_yaml(text: str, file_name: str = "models.yaml") -> list[ModelEntry]:
    """The models that a model file describes.

    `models` may be a list of mappings with an `id` each, or a mapping from id to the rest.

    Raises:
        ModelsYAMLInvalid: carries everything that is wrong, by place; a syntax error stands alone.
    """
    root = compose(text, file_name)
    if root is None:
        raise ModelsYAMLInvalid([(file_name, "the file is empty; it needs a list named models")])
    notes = Notes(file_name)
    top = notes.mapping(root, "", {"models"})
    entries = _entries(notes, top["models"]) if "models" in top else []
    if "models" not in top and not notes.errors:
        notes.add(root, "", "it needs a list named models")
    notes.raise_any()
    return entries


def dump_models_yaml(entries: Iterable[ModelEntry]) -> str:
    """A model file that describes these models; `parse_models_yaml` gives them back as they are."""
    models = [_as_yaml(entry) for entry in entries]
    return yaml.dump({"models": models}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, which is how people write templates."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> ScalarNode:
    # Quotes around "1e3": here it is read as the number that people mean, which YAML 1.1 does not take it for.
    style = "|" if "\n" in text else '"' if EXPONENT.match(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _entries(notes: Notes, node: Node) -> list[ModelEntry]:
    """All entries that could be read; the others have left notes."""
    if isinstance(node, MappingNode):
        pairs: list[_Listed] = [
            (key, f"models.{key}", value, notes.mapping(value, f"models.{key}", _KEYS - {"id"}))
            for key, value in notes.mapping(node, "models").items()
        ]
    else:
        pairs = [_listed(notes, item, index) for index, item in enumerate(notes.sequence(node, "models"))]
    first_lines: dict[str, int] = {}
    entries = []
    for model_id, path, value, keys in pairs:
        if model_id is None:
            continue
        id_node = keys.get("id", value)
        line = id_node.start_mark.line + 1
        if not MODEL_ID.match(model_id):
            notes.add(id_node, path, f"an id has letters, digits and . _ : / + - only {got(model_id)}")
        elif model_id in first_lines:
            notes.add(id_node, path, f"the id is used twice; first on line {first_lines[model_id]}")
        first_lines.setdefault(model_id, line)
        entries.append(_entry(notes, model_id, path, keys))
    return entries


def _listed(notes: Notes, node: Node, index: int) -> _Listed:
    """Id, place, node and keys of an entry of a list."""
    path = f"models[{index}]"
    if isinstance(node, MappingNode):
        told = next((value.value for key, value in node.value if key.value == "id"), None)
        path = f"models.{told}" if isinstance(told, str) and MODEL_ID.match(told) else path
    keys = notes.mapping(node, path, _KEYS)
    if isinstance(node, MappingNode) and "id" not in keys:
        notes.add(node, path, "id is missing")
    model_id = notes.text(keys["id"], f"{path}.id") if "id" in keys else None
    return (model_id if isinstance(model_id, str) else None), path, node, keys


def _entry(notes: Notes, model_id: str, path: str, keys: dict[str, Node]) -> ModelEntry:
    _merge_twins(notes, path, keys)
    values: dict[str, Any] = {}
    for key, (attribute, read) in _READERS.items():
        if key in keys:
            value = read(notes, keys[key], f"{path}.{key}")
            if value is not ABSENT and value != "":
                values[attribute] = value
    return ModelEntry(**{"model_id": model_id, "name": model_id, **values, "given": frozenset(values)})


def _merge_twins(notes: Notes, path: str, keys: dict[str, Node]) -> None:
    """Keys with two names become one, and a `parameters` that is a text ("20B") becomes the parameter count."""
    if isinstance(keys.get("parameters"), ScalarNode):
        _rename(notes, path, keys, "parameters", "parameter_count")
    for old, new in (("file", "path"), ("server_params", "parameters"), ("args", "extra_args")):
        if old in keys:
            _rename(notes, path, keys, old, new)


def _rename(notes: Notes, path: str, keys: dict[str, Node], old: str, new: str) -> None:
    node = keys.pop(old)
    if new in keys:
        notes.add(node, f"{path}.{old}", f"{new} says the same; give one of the two")
    else:
        keys[new] = node


def _read_text(limit: int, *, many_lines: bool = False) -> Callable[[Notes, Node, str], str | Absent]:
    def read(notes: Notes, node: Node, path: str) -> str | Absent:
        text = notes.text(node, path)
        if isinstance(text, str) and (error := text_error(text, limit, many_lines=many_lines)):
            return notes.add(node, path, error)
        return text

    return read


def _read_parsed(parse: Callable[[str], int | None], wanted: str) -> Callable[[Notes, Node, str], int | Absent | str]:
    def read(notes: Notes, node: Node, path: str) -> int | Absent | str:
        text = notes.text(node, path)
        if not isinstance(text, str) or not text:
            return text
        value = parse(text)
        return notes.add(node, path, f"must be {wanted} {got(text)}") if value is None else value

    return read


def _read_fields(
    check: Callable[[Mapping[str, Any]], TypedFields],
) -> Callable[[Notes, Node, str], dict[str, Any] | Absent]:
    def read(notes: Notes, node: Node, path: str) -> dict[str, Any] | Absent:
        nodes = notes.mapping(node, path)
        values = {key: notes.plain(value, f"{path}.{key}") for key, value in nodes.items()}
        try:
            return check({key: value for key, value in values.items() if value is not ABSENT}).as_dict()
        except ParameterInvalid as exc:
            for key, message in exc.errors:
                notes.add(nodes[key], f"{path}.{key}", message)
            return ABSENT

    return read


def _read_extra_args(notes: Notes, node: Node, path: str) -> tuple[str, ...] | Absent:
    nodes = notes.sequence(node, path)
    arguments = [notes.plain(item, f"{path}[{index}]") for index, item in enumerate(nodes)]
    if any(argument is ABSENT for argument in arguments):
        return ABSENT
    try:
        return tuple(validate_extra_args(arguments))
    except ParameterInvalid as exc:
        for key, message in exc.errors:
            index = int(key.rpartition("[")[2].rstrip("]"))
            notes.add(nodes[index], f"{path}[{index}]", message)
        return ABSENT


def _read_devices(notes: Notes, node: Node, path: str) -> tuple[str, ...] | Absent:
    """A list of ids; `auto` says what an empty list does."""
    if isinstance(node, ScalarNode) and node.value in {"", "auto"}:
        return ()
    devices = [notes.text(item, path) for item in notes.sequence(node, path)]
    if any(not isinstance(device, str) for device in devices):
        return ABSENT
    return tuple(str(device) for device in devices)


def _read_tags(notes: Notes, node: Node, path: str) -> tuple[str, ...] | Absent:
    tags = [notes.text(item, path) for item in notes.sequence(node, path)]
    if any(tag is ABSENT for tag in tags):
        return ABSENT
    error = tags_error(tags)
    return notes.add(node, path, error) if error else tuple(str(tag) for tag in tags)


def _read_flag(notes: Notes, node: Node, path: str) -> bool | Absent:
    value = notes.plain(node, path)
    if isinstance(value, bool | Absent):
        return value
    return notes.add(node, path, f"must be true or false {got(value)}")


_READERS: dict[str, tuple[str, Callable[[Notes, Node, str], Any]]] = {
    "name": ("name", _read_text(200)),
    "description": ("description", _read_text(10_000, many_lines=True)),
    "path": ("path", _read_text(1000)),
    "size": ("size_bytes", _read_parsed(parse_size, "a size such as 12GB")),
    "quantization": ("quantization", _read_text(50)),
    "parameter_count": ("parameter_label", _read_text(50)),
    "context": ("context_length", _read_parsed(parse_context, "a number of tokens such as 32768 or 32K")),
    "parameters": ("parameters", _read_fields(validate_load_parameters)),
    "extra_args": ("extra_args", _read_extra_args),
    "devices": ("devices", _read_devices),
    "chat_template": ("chat_template", _read_text(200_000, many_lines=True)),
    "sampling": ("sampling", _read_fields(validate_sampling)),
    "tags": ("tags", _read_tags),
    "pinned": ("is_pinned", _read_flag),
}
_KEYS: Final = frozenset({"id", "file", "server_params", "args", *_READERS})


def _as_yaml(entry: ModelEntry) -> dict[str, Any]:
    """An entry as it stands in a file: only what is set."""
    values = {key: getattr(entry, attribute) for key, (attribute, _) in _READERS.items()}
    values["size"] = size_text(entry.size_bytes)
    values["parameters"], values["sampling"] = dict(entry.parameters), dict(entry.sampling)
    values["extra_args"], values["tags"] = list(entry.extra_args), list(entry.tags)
    values["devices"] = list(entry.devices)
    return {"id": entry.model_id, **{key: value for key, value in values.items() if value}}
