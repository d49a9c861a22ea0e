"""Small GGUF files of every kind, written by the `gguf` package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

LAYERS = 2


def write_gguf(path: Path, *, arch: str = "llama", words: int = 300, **values: Any) -> Path:
    """A model of a few kilobytes with a whole header. `values` are further keys; None leaves one of the usual out.

    A `__` in a name stands for a dot, and `arch__` for the architecture: arch__attention__sliding_window=512.
    """
    writer = gguf.GGUFWriter(path, arch)
    usual: dict[str, Any] = {
        "general__name": "Tiny",
        "general__file_type": 0,
        "arch__block_count": LAYERS,
        "arch__context_length": 256,
        "arch__embedding_length": 32,
        "arch__feed_forward_length": 64,
        "arch__attention__head_count": 4,
        "arch__attention__head_count_kv": 2,
    }
    for name, value in (usual | values).items():
        if value is not None:
            _add(writer, name.replace("__", ".").replace("arch.", f"{arch}."), value)
    if words:
        writer.add_token_list([f"word{number}" for number in range(words)])
    _add_tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _add_tensors(writer: gguf.GGUFWriter) -> None:
    writer.add_tensor("token_embd.weight", np.zeros((10, 32), dtype=np.float32))
    for layer in range(LAYERS):
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", np.zeros((64, 32), dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.zeros(32, dtype=np.float32))


def write_shards(folder: Path, stem: str = "big", count: int = 3) -> list[Path]:
    """A model in several files: the first says what it is, all hold weights."""
    paths = []
    for number in range(1, count + 1):
        path = folder / f"{stem}-{number:05d}-of-{count:05d}.gguf"
        paths.append(write_gguf(path, split__count=count, general__name="Big" if number == 1 else None))
    return paths
