"""The header of a safetensors file: the list of its tensors, read without touching their data.

The format: eight bytes with the length of the header (little-endian), a JSON object of so many bytes, then the data of all
tensors without gaps. The object gives for each tensor its type, shape, and where its data begins and ends; `__metadata__`
is for remarks. Nothing in a file is trusted: the lengths have to add up to the size of the file exactly, as the format demands.

Source: https://github.com/huggingface/safetensors, README.md, "Format".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

from gantry.modelfiles.bounded_json import json_object
from gantry.modelfiles.exceptions import EMPTY, ModelFileInvalid
from gantry.modelfiles.gguf_keys import clean

LARGEST_HEADER: Final = 32 * 1024**2  # bytes; that of 100,000 tensors takes about 15 MB (the format allows 100 MB)
MOST_DIMENSIONS: Final = 8
LARGEST_NUMBER: Final = 2**63 - 1
_LENGTH_BYTES: Final = 8

# Bits of one number of each type.
TYPE_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor, without its data."""

    name: str  # may be any text
    kind: str  # a key of TYPE_BITS
    element_count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """The tensors of one file."""

    path: Path
    file_bytes: int
    tensors: tuple[StoredTensor, ...]


def read_safetensors(path: Path) -> SafetensorsHeader:
    """The header of a safetensors file, with the promise that the data it announces is there.

    Raises:
        ModelFileInvalid: not a safetensors file, damaged, or cut off.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise ModelFileInvalid(path, "is not there" if not path.exists() else "is not an ordinary file")
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as exc:
        raise ModelFileInvalid(path, f"cannot be read: {exc.strerror or exc}") from exc


def _read(path: Path, file: BinaryIO) -> SafetensorsHeader:
    file_bytes = os.fstat(file.fileno()).st_size
    data = _header_bytes(path, file, file_bytes)
    try:
        values = json_object(data)
    except ValueError as exc:
        raise ModelFileInvalid(path, f"is damaged: it has a header that {exc}") from exc
    values.pop("__metadata__", None)
    places = [_Place.read(path, name, value) for name, value in values.items()]
    _check_data(path, places, file_bytes - _LENGTH_BYTES - len(data))
    return SafetensorsHeader(path, file_bytes, tuple(place.tensor for place in places))


def _header_bytes(path: Path, file: BinaryIO, file_bytes: int) -> bytes:
    if not file_bytes:
        raise ModelFileInvalid(path, EMPTY)
    start = file.read(_LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    is_cut = length > file_bytes - _LENGTH_BYTES
    if len(start) < _LENGTH_BYTES or (is_cut and length > LARGEST_HEADER):
        raise ModelFileInvalid(path, "is not a safetensors file")
    if length > LARGEST_HEADER:
        raise ModelFileInvalid(path, f"has a header of {length:,} bytes; at most {LARGEST_HEADER:,} are read")
    if is_cut:
        raise ModelFileInvalid(path, "is cut off: it ends within its header")
    data = file.read(length)
    if len(data) < length:
        raise ModelFileInvalid(path, "became shorter while it was read")
    if not data.startswith(b"{"):
        raise ModelFileInvalid(path, "is not a safetensors file")
    return data


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor and where its data lies, from the start of all data."""

    tensor: StoredTensor
    begin: int
    end: int

    @classmethod
    def read(cls, path: Path, name: str, value: Any) -> _Place:
        """From the header's entry.

        Raises:
            ModelFileInvalid: type, shape and place are missing or contradict each other.
        """
        entry: Mapping[str, Any] = value if isinstance(value, dict) else {}
        kind = entry.get("dtype")
        shape, offsets = _numbers(entry.get("shape"), MOST_DIMENSIONS), _numbers(entry.get("data_offsets"), 2)
        if not isinstance(kind, str) or shape is None or offsets is None:
            raise ModelFileInvalid(path, f"is damaged: tensor {_shown(name)} has no type, shape and place")
        if kind not in TYPE_BITS:
            raise ModelFileInvalid(path, f"has tensors of type {_shown(kind)}, which is not known")
        count = prod(shape)
        size = -(-count * TYPE_BITS[kind] // 8)
        if len(offsets) != 2 or offsets[1] - offsets[0] != size:
            raise ModelFileInvalid(
                path, f"is damaged: tensor {_shown(name)} does not take as many bytes as its shape says"
            )
        return cls(StoredTensor(name, kind, count, size), offsets[0], offsets[1])


def _numbers(value: Any, most: int) -> list[int] | None:
    """A list of at most so many whole numbers from 0; None for anything else."""
    if not isinstance(value, list) or len(value) > most:
        return None
    return value if all(type(number) is int and 0 <= number <= LARGEST_NUMBER for number in value) else None


def _check_data(path: Path, places: list[_Place], data_bytes: int) -> None:
    """The tensors lie one behind the other, from the first byte of the data to the last."""
    position = 0
    for place in sorted(places, key=lambda place: (place.begin, place.end)):
        if place.begin != position:
            what = "overlaps another" if place.begin < position else "leaves a gap before it"
            raise ModelFileInvalid(path, f"is damaged: tensor {_shown(place.tensor.name)} {what}")
        position = place.end
    if position > data_bytes:
        raise ModelFileInvalid(path, f"is cut off: it should have {position:,} bytes of weights and has {data_bytes:,}")
    if position < data_bytes:
        raise ModelFileInvalid(path, f"has {data_bytes - position:,} bytes more than its header tells of")


def _shown(text: str) -> str:
    """Something from a file that may hold anything, fit to be shown."""
    return repr(clean(text[:60]))
