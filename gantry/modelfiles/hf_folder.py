"""What a Hugging Face model says of itself: a folder with config.json and safetensors files, quantised or not.

TabbyAPI and vLLM load such folders. Reads configuration, index and the headers of the files; no weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gantry.modelfiles.bounded_json import read_json_object
from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_file import count_label
from gantry.modelfiles.gguf_keys import clean
from gantry.modelfiles.hf_config import CONTEXT, HEADS, HIDDEN, LAYERS, ConfigReader
from gantry.modelfiles.hf_memory_facts import hf_memory_facts
from gantry.modelfiles.hf_weights import Quantization, WeightTotals
from gantry.modelfiles.safetensors_header import SafetensorsHeader, read_safetensors
from gantry.planning.estimates import ModelFacts

CONFIG: Final = "config.json"
INDEX: Final = "model.safetensors.index.json"
SUFFIX: Final = ".safetensors"
MOST_PARTS: Final = 2000  # files of one model; the largest published have some 160
LARGEST_REF: Final = 200  # bytes of a file that names a revision

_PART: Final = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")
# Beside a model and no part of it: a LoRA, and the same weights once more as Mistral's own programs read them.
_NO_PART: Final = re.compile(r"^(adapter_|consolidated\b)")


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """A model's own description, with the same names as `GGUFFacts`. Texts are clean of control characters."""

    path: Path  # the folder
    shards: tuple[Path, ...]  # the files with its weights
    name: str  # "org/name" in the cache of the Hugging Face hub, elsewhere the folder's
    architecture: str  # config.json's model_type: "llama"
    quantization: str  # "EXL3 4.0 bpw", "GPTQ 4-bit", "BF16"
    parameter_count: int
    parameter_label: str  # "8B"
    size_bytes: int  # of the files with its weights
    context_length: int  # tokens it was trained for
    has_chat_template: bool
    is_embedding: bool  # it makes embeddings and cannot chat: a guess from a file that such models have
    memory: ModelFacts

    @property
    def layer_count(self) -> int:
        """Its layers."""
        return self.memory.layer_count


def is_model_folder(path: Path) -> bool:
    """Whether there are a config.json and at least one safetensors file (or the index of several)."""
    with suppress(OSError, ValueError):  # ValueError: a NUL in a name that was read from a file
        names = _names(path)
        return CONFIG in names and any(name == INDEX or _is_part(name) for name in names)
    return False


def read_folder(path: Path) -> FolderFacts:
    """What the model in a folder says of itself.

    Raises:
        ModelFileInvalid: no such model, damaged, cut off, or a file is missing. The reason goes on after "the folder" or "it".
    """
    raw = _object(path, CONFIG)
    config = ConfigReader(path, raw)
    quantization = Quantization.read(_quantization_config(path, config))
    parts = _Parts.find(path, is_indexed=not quantization.is_exllama)
    weights, size_bytes = _weights(path, parts)
    _check_config(path, config)
    count = weights.parameter_count(quantization.bits)
    return FolderFacts(
        path=path,
        shards=tuple(path / name for name in parts.names),
        name=folder_name(path),
        architecture=config.model_type or _first_architecture(raw),
        quantization=quantization.label(weights.commonest_type()),
        parameter_count=count,
        parameter_label=count_label(count),
        size_bytes=size_bytes,
        context_length=config.whole(*CONTEXT),
        has_chat_template=_has_chat_template(path),
        is_embedding=(path / "modules.json").is_file(),  # sentence-transformers
        memory=hf_memory_facts(config, weights),
    )


def folder_files(path: Path) -> list[Path]:
    """The files that say what the model in a folder is, in a fixed order: when none has changed, neither has the model.

    Raises:
        ModelFileInvalid: there are none.
        OSError: the folder cannot be read.
    """
    if not is_model_folder(path):
        raise ModelFileInvalid(path, f"has no {CONFIG} with {SUFFIX} files beside it")
    return [path / name for name in _names(path) if name in {CONFIG, INDEX} or _is_part(name)]


def folder_name(path: Path) -> str:
    """What people call the model in a folder: its repository in the hub's cache, elsewhere the folder's own name."""
    repository = _hub_repository(path)
    name = repository.name.removeprefix("models--").replace("--", "/") if repository else path.name
    return clean(name)[:200] or "model"


def is_outdated_snapshot(path: Path) -> bool:
    """Whether a folder is a revision in the hub's cache that is not the one in use.

    In use is the one that `refs/main` names, or, where that is not there, the one that was last changed.
    """
    repository = _hub_repository(path)
    return repository is not None and path.name != _current_revision(repository)


def _hub_repository(path: Path) -> Path | None:
    """The folder of the repository whose snapshot this is: models--ORG--NAME/snapshots/REVISION."""
    repository = path.parent.parent
    is_snapshot = path.parent.name == "snapshots" and repository.name.startswith("models--")
    return repository if is_snapshot else None


def _current_revision(repository: Path) -> str:
    snapshots = repository / "snapshots"
    with suppress(OSError):
        with (repository / "refs" / "main").open("rb") as file:
            revision = Path(file.read(LARGEST_REF).decode("utf-8", errors="replace").strip()).name
        if is_model_folder(snapshots / revision):
            return revision
    with suppress(OSError):
        models = [entry for entry in snapshots.iterdir() if is_model_folder(entry)]
        return max(models, key=lambda entry: (entry.stat().st_mtime_ns, entry.name)).name if models else ""
    return ""


def _names(path: Path) -> list[str]:
    """What a folder holds, in order.

    Raises:
        OSError: it cannot be read.
    """
    return sorted(entry.name for entry in path.iterdir())


# Configuration


def _check_config(path: Path, config: ConfigReader) -> None:
    """The figures that every estimate needs are there."""
    for noun, names in (("layers", LAYERS), ("attention heads", HEADS), ("numbers a token is made of", HIDDEN)):
        if not config.whole(*names):
            raise ModelFileInvalid(path, f"has a {CONFIG} that does not say how many {noun} the model has ({names[0]})")


def _first_architecture(raw: Mapping[str, Any]) -> str:
    told = raw.get("architectures")
    return clean(told[0])[:100] if isinstance(told, list) and told and isinstance(told[0], str) else ""


def _quantization_config(path: Path, config: ConfigReader) -> Any:
    """In config.json, or, as older GPTQ models have it, in a file of its own."""
    told = config.from_whole("quantization_config")
    if told is None and (path / "quantize_config.json").is_file():
        with suppress(ModelFileInvalid):  # a remark beside the model, not the model
            return {"quant_method": "gptq", **_object(path, "quantize_config.json")}
    return told


def _has_chat_template(path: Path) -> bool:
    if any((path / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    with suppress(ModelFileInvalid):  # the tokenizer is not what a load stands or falls with here
        return bool(_object(path, "tokenizer_config.json").get("chat_template"))
    return False


def _object(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the folder.

    Raises:
        ModelFileInvalid: about the folder.
    """
    try:
        return read_json_object(path / name)
    except ModelFileInvalid as exc:
        raise ModelFileInvalid(path, exc.reason) from exc


# Weights


@dataclass(frozen=True, slots=True)
class _Parts:
    """The files with the weights, and, where there is an index, the tensors that it promises in each."""

    names: tuple[str, ...]
    promised: Mapping[str, frozenset[str]]

    @classmethod
    def find(cls, path: Path, *, is_indexed: bool) -> _Parts:
        """By the index, or by name. ExLlama reads no index: its models often still have that of the model they were made from.

        Raises:
            ModelFileInvalid: there are none, or not all.
        """
        if is_indexed and (path / INDEX).exists():
            promised = _indexed(path)
            return cls(tuple(sorted(promised)), promised)
        try:
            names = tuple(name for name in _names(path) if _is_part(name))
        except OSError as exc:
            raise ModelFileInvalid(path, f"cannot be read: {exc.strerror or exc}") from exc
        if not names:
            raise ModelFileInvalid(path, f"has no {SUFFIX} files")
        _check_complete(path, names)
        return cls(names, {})


def _is_part(name: str) -> bool:
    return name.endswith(SUFFIX) and not _NO_PART.match(name)


def _indexed(path: Path) -> dict[str, frozenset[str]]:
    """The tensors that the index promises, by file."""
    weight_map = _object(path, INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileInvalid(path, f"has a {INDEX} without a weight_map")
    promised: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(SUFFIX):
            raise ModelFileInvalid(
                path, f"has a {INDEX} that names {clean(str(name)[:60])!r}, which is no file of the folder"
            )
        promised.setdefault(name, set()).add(tensor)
    if len(promised) > MOST_PARTS:
        raise ModelFileInvalid(path, f"has a {INDEX} that names more than {MOST_PARTS:,} files")
    try:
        missing = sorted(promised.keys() - set(_names(path)))
    except OSError as exc:
        raise ModelFileInvalid(path, f"cannot be read: {exc.strerror or exc}") from exc
    if missing:
        raise ModelFileInvalid(path, f"is missing a part that its index names: {clean(missing[0])[:100]}")
    return {name: frozenset(tensors) for name, tensors in promised.items()}


def _check_complete(path: Path, names: tuple[str, ...]) -> None:
    """Of files that count themselves, none is missing."""
    if len(names) > MOST_PARTS:
        raise ModelFileInvalid(path, f"has more than {MOST_PARTS:,} {SUFFIX} files")
    present = set(names)
    sets = {(match["stem"], match["count"]) for match in map(_PART.match, names) if match}
    for stem, count in sorted(sets):
        for number in range(1, min(int(count), MOST_PARTS) + 1):
            name = f"{stem}-{number:05d}-of-{count}{SUFFIX}"
            if name not in present:
                raise ModelFileInvalid(path, f"is missing a part: {clean(name)}")


def _weights(path: Path, parts: _Parts) -> tuple[WeightTotals, int]:
    """All tensors together, and the bytes of their files."""
    totals, size_bytes = WeightTotals(), 0
    for name in parts.names:
        header = _part(path, name)
        lacking = parts.promised.get(name, frozenset()) - {tensor.name for tensor in header.tensors}
        if lacking:
            tensor = clean(min(lacking)[:60])
            raise ModelFileInvalid(path, f"has an index that does not fit: {clean(name)} does not hold {tensor!r}")
        totals.add(header.tensors)
        size_bytes += header.file_bytes
    if not totals.total_bytes:
        raise ModelFileInvalid(path, "holds no weights")
    return totals, size_bytes


def _part(path: Path, name: str) -> SafetensorsHeader:
    try:
        return read_safetensors(path / name)
    except ModelFileInvalid as exc:
        raise ModelFileInvalid(path, f"has a part that cannot be used: {clean(name)} {exc.reason}") from exc
