"""Small safetensors files and Hugging Face folders, written by hand: as the format says, or wrong on purpose."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

TYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I16": 2, "U8": 1, "F8_E4M3": 1}

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> (type, shape)

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}


def write_safetensors(path: Path, shapes: Shapes, *, metadata: Mapping[str, str] | None = None) -> Path:
    """A whole safetensors file of zeros."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (kind, shape) in shapes.items():
        size = prod(shape) * TYPE_BYTES[kind]
        entries[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return write_raw(path, json.dumps(entries).encode(), bytes(position))


def write_raw(path: Path, header: bytes, data: bytes = b"", *, length: int | None = None) -> Path:
    """A file with this header, right or wrong; `length` is what it says of the header's length."""
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def llama_shapes(
    *, layers: int = 2, kind: str = "BF16", is_tied: bool = False
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a tiny Llama with the figures of LLAMA, attention left out."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": (kind, (100, 32))}
    for layer in range(layers):
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (kind, (64, 32))
    shapes["model.norm.weight"] = (kind, (32,))
    return shapes if is_tied else shapes | {"lm_head.weight": (kind, (100, 32))}


def write_folder(
    path: Path,
    *,
    parts: int = 1,
    has_index: bool | None = None,
    has_template: bool = True,
    shapes: Shapes | None = None,
    **config: Any,
) -> Path:
    """A folder with a model. `config` changes config.json; None leaves a key out.

    Args:
        parts: files with weights; several come with an index, unless `has_index` says otherwise.
    """
    path.mkdir(parents=True, exist_ok=True)
    values = {name: value for name, value in {**LLAMA, **config}.items() if value is not None}
    (path / "config.json").write_text(json.dumps(values))
    if has_template:
        (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    _write_parts(path, dict(llama_shapes() if shapes is None else shapes), parts, has_index=has_index)
    return path


def _write_parts(path: Path, shapes: dict[str, Any], parts: int, *, has_index: bool | None) -> None:
    files = {name: part_name(number % parts + 1, parts) for number, name in enumerate(shapes)}
    for file in set(files.values()):
        write_safetensors(
            path / file, {name: shapes[name] for name in shapes if files[name] == file}, metadata={"format": "pt"}
        )
    if parts > 1 if has_index is None else has_index:
        (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def part_name(number: int, count: int) -> str:
    """The usual name of a file with weights."""
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
