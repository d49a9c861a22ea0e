"""The header of a GGUF file: its keys and the list of its tensors, read without touching the weights.

Our own reader beside the `gguf` package's constants: the package's reader decodes the whole vocabulary (2 to 10 seconds for
the small models tried), this one steps over it. It trusts no figure in the file: what a figure announces must
fit into what is left of the file, and nothing is kept that is larger than a chat template.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

from gguf.constants import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType, Keys

from gantry.modelfiles.exceptions import EMPTY, ModelFileInvalid

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
LARGEST_HEADER = 256 * 1024**2  # bytes; the largest vocabularies in use take about 20 MB
LARGEST_TEXT = 1024**2  # bytes; chat templates take up to about 30 kB
LONGEST_ARRAY_KEPT = 4096  # entries; one for each layer is the most that is of interest
MOST_DIMENSIONS = 4

_SCALARS: dict[GGUFValueType, struct.Struct] = {
    GGUFValueType.UINT8: struct.Struct("<B"),
    GGUFValueType.INT8: struct.Struct("<b"),
    GGUFValueType.UINT16: struct.Struct("<H"),
    GGUFValueType.INT16: struct.Struct("<h"),
    GGUFValueType.UINT32: struct.Struct("<I"),
    GGUFValueType.INT32: struct.Struct("<i"),
    GGUFValueType.FLOAT32: struct.Struct("<f"),
    GGUFValueType.BOOL: struct.Struct("<?"),
    GGUFValueType.UINT64: struct.Struct("<Q"),
    GGUFValueType.INT64: struct.Struct("<q"),
    GGUFValueType.FLOAT64: struct.Struct("<d"),
}
_U32 = _SCALARS[GGUFValueType.UINT32]
_U64 = _SCALARS[GGUFValueType.UINT64]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor, without its data."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    size_bytes: int
    offset: int  # from the start of the data

    @property
    def element_count(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    """Keys and tensors of one file."""

    path: Path
    file_bytes: int
    values: dict[str, Any]  # a list for arrays; None for what is too long to be kept
    lengths: dict[str, int] = field(default_factory=dict)  # entries of each array, kept or not
    tensors: tuple[TensorInfo, ...] = ()


def read_header(path: Path) -> GGUFHeader:
    """The header of a GGUF file, with the promise that the data it announces is there.

    Raises:
        ModelFileInvalid: not a GGUF file, of a version or byte order that is not supported, damaged, or cut off.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise ModelFileInvalid(path, _what_instead(path))
        with path.open("rb") as file:
            return _Reader(path, file).read()
    except OSError as exc:
        raise ModelFileInvalid(path, f"cannot be read: {exc.strerror or exc}") from exc


class _Reader:
    """Reads one header, front to back."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = file.seek(0, 2)
        self._left = min(self._size, LARGEST_HEADER)
        file.seek(0)
        self._lengths: dict[str, int] = {}

    def read(self) -> GGUFHeader:
        tensor_count, value_count = self._start()
        values = {}
        for _ in range(value_count):
            key = self._text()
            values[key] = self._value(key, self._type())
        tensors = tuple(self._tensor() for _ in range(tensor_count))
        self._check_data(tensors, self._alignment(values.get(Keys.General.ALIGNMENT)))
        return GGUFHeader(self._path, self._size, values, self._lengths, tensors)

    def _start(self) -> tuple[int, int]:
        if not self._size:
            raise self._invalid(EMPTY)
        if self._size < len(MAGIC) or self._take(len(MAGIC)) != MAGIC:
            raise self._invalid("is not a GGUF file")
        version = self._number(_U32)
        if version and not version & 0xFFFF:
            raise self._invalid("is a GGUF file for big-endian machines")
        if version not in VERSIONS:
            raise self._invalid(f"has GGUF version {version}; {VERSIONS[0]} to {VERSIONS[-1]} are supported")
        # A tensor takes at least 24 bytes of the header and a key 13: more than fit are refused before any is read.
        return self._count(24), self._count(13)

    def _value(self, key: str, kind: GGUFValueType) -> Any:
        if kind == GGUFValueType.ARRAY:
            return self._array(key)
        return self._text() if kind == GGUFValueType.STRING else self._number(_SCALARS[kind])

    def _array(self, key: str) -> list[Any] | None:
        kind = self._type()
        if kind == GGUFValueType.ARRAY:
            raise self._invalid(f"is damaged: {_shown(key)} is an array of arrays")
        if kind == GGUFValueType.STRING:
            count = self._lengths[key] = self._count(8)
            return self._texts(count)
        number = _SCALARS[kind]
        count = self._lengths[key] = self._count(number.size)
        if count > LONGEST_ARRAY_KEPT:
            self._skip(count * number.size)
            return None
        return [value for (value,) in number.iter_unpack(self._take(count * number.size))]

    def _texts(self, count: int) -> list[str] | None:
        """Texts of an array; a long one (the vocabulary) is stepped over, as fast as Python can."""
        if count <= LONGEST_ARRAY_KEPT:
            return [self._text() for _ in range(count)]
        for _ in range(count):
            self._skip(self._number(_U64))
        return None

    def _text(self) -> str:
        length = self._number(_U64)
        kept = min(length, LARGEST_TEXT)
        text = self._take(kept).decode("utf-8", errors="replace")
        self._skip(length - kept)
        return text

    def _tensor(self) -> TensorInfo:
        name = self._text()
        dimensions = self._number(_U32)
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self._invalid(f"is damaged: tensor {_shown(name)} has {dimensions} dimensions")
        shape = tuple(self._number(_U64) for _ in range(dimensions))
        number = self._number(_U32)
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise self._invalid(f"has tensors of type {number}, which is not known") from None
        block, block_bytes = GGML_QUANT_SIZES[kind]
        return TensorInfo(name, shape, kind, prod(shape) // block * block_bytes, self._number(_U64))

    def _check_data(self, tensors: tuple[TensorInfo, ...], alignment: int) -> None:
        position = self._file.tell()
        start = -(-position // alignment) * alignment
        end = max((start + tensor.offset + tensor.size_bytes for tensor in tensors), default=0)
        if end > self._size:
            raise self._invalid(f"is cut off: it should have {end:,} bytes and has {self._size:,}")

    def _alignment(self, value: Any) -> int:
        if value is None:
            return GGUF_DEFAULT_ALIGNMENT
        if not isinstance(value, int) or not 0 < value <= 2**20 or value & (value - 1):
            raise self._invalid(f"is damaged: its alignment is {_shown(value)}")
        return value

    def _type(self) -> GGUFValueType:
        number = self._number(_U32)
        try:
            return GGUFValueType(number)
        except ValueError:
            raise self._invalid(f"is damaged: there is no value type {number}") from None

    def _count(self, least_bytes: int) -> int:
        """A count of things that take at least so many bytes each."""
        count: int = self._number(_U64)
        self._check_left(count * least_bytes)
        return count

    def _number(self, number: struct.Struct) -> Any:
        return number.unpack(self._take(number.size))[0]

    def _take(self, length: int) -> bytes:
        self._check_left(length)
        self._left -= length
        data = self._file.read(length)
        if len(data) < length:
            raise self._invalid("became shorter while it was read")
        return data

    def _skip(self, length: int) -> None:
        self._check_left(length)
        self._left -= length
        self._file.seek(length, 1)

    def _check_left(self, length: int) -> None:
        if length > self._left:
            if self._size > LARGEST_HEADER:
                raise self._invalid("is damaged: its header makes no sense")
            raise self._invalid("is cut off: it ends within its header")

    def _invalid(self, reason: str) -> ModelFileInvalid:
        return ModelFileInvalid(self._path, reason)


def _what_instead(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    return "is not an ordinary file" if path.exists() else "is not there"


def _shown(value: Any) -> str:
    """Something from a file that may hold anything, fit to be shown."""
    return repr(str(value)[:60])
