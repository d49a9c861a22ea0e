from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gantry.modelfiles.bounded_json import MOST_PARTS, json_object
from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.safetensors_header import LARGEST_HEADER, read_safetensors
from tests.tiny_safetensors import write_raw, write_safetensors


def reason(path: Path) -> str:
    with pytest.raises(ModelFileInvalid) as caught:
        read_safetensors(path)
    assert caught.value.path == path
    return caught.value.reason


def entry(kind: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


def write(path: Path, data_bytes: int = 8, **entries: Any) -> Path:
    return write_raw(path / "m.safetensors", json.dumps(entries).encode(), bytes(data_bytes))


def test_tensors_are_listed_with_their_sizes(tmp_path: Path) -> None:
    shapes = {"a": ("BF16", (3, 4)), "empty": ("F32", (0, 5)), "b": ("I32", (2,)), "scalar": ("F32", ())}
    header = read_safetensors(write_safetensors(tmp_path / "m.safetensors", shapes, metadata={"format": "pt"}))
    told = {tensor.name: (tensor.kind, tensor.element_count, tensor.size_bytes) for tensor in header.tensors}
    assert told == {"a": ("BF16", 12, 24), "empty": ("F32", 0, 0), "b": ("I32", 2, 8), "scalar": ("F32", 1, 4)}
    assert header.file_bytes == (tmp_path / "m.safetensors").stat().st_size


def test_header_may_end_in_blanks(tmp_path: Path) -> None:
    """Writers fill it up so that the data begins at a round address."""
    raw = json.dumps({"a": entry()}).encode() + b"   "
    assert len(read_safetensors(write_raw(tmp_path / "m", raw, bytes(8))).tensors) == 1


def test_numbers_of_four_bits_share_bytes(tmp_path: Path) -> None:
    [tensor] = read_safetensors(write(tmp_path, 2, a=entry("F4", [3], [0, 2]))).tensors
    assert (tensor.element_count, tensor.size_bytes) == (3, 2)


def test_no_data_is_read(tmp_path: Path) -> None:
    """A terabyte of weights, as a hole in a sparse file."""
    size = 2**40
    path = write(tmp_path, 0, a=entry("U8", [size], [0, size]))
    os.truncate(path, path.stat().st_size + size)
    assert read_safetensors(path).tensors[0].size_bytes == size


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty, as a download that failed leaves it"),
        (b"\x08\0\0", "is not a safetensors file"),
        (b"<!doctype html><title>Sign in</title>", "is not a safetensors file"),
        (b'{"a": 1}' * 10, "is not a safetensors file"),
        (struct.pack("<Q", 5) + b"[1,2]", "is not a safetensors file"),
        (struct.pack("<Q", 100) + b'{"a": 1}', "is cut off: it ends within its header"),
        (struct.pack("<Q", 5) + b'{"a":', "is damaged: it has a header that is not JSON"),
        (struct.pack("<Q", 3) + b'{"\xff', "is damaged: it has a header that is not JSON"),
        (struct.pack("<Q", 15) + b'{"a":{},"a":{}}', "is damaged: it has a header that has a name twice"),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    assert reason(path) == told


def test_header_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = write_raw(tmp_path / "m.safetensors", b"{}", length=LARGEST_HEADER + 1)
    os.truncate(path, 2 * LARGEST_HEADER)
    assert reason(path) == f"has a header of {LARGEST_HEADER + 1:,} bytes; at most {LARGEST_HEADER:,} are read"


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        {},
        entry(kind=None),
        entry(shape="2"),
        entry(shape=[True, 2]),
        entry(shape=[-1]),
        entry(shape=[2.0]),
        entry(shape=[1] * 9),
        entry(shape=[10**100]),
        entry(offsets=None),
        entry(offsets=[0, 8, 16]),
        entry(offsets=[0, -8]),
    ],
)
def test_entry_that_says_too_little_is_refused(tmp_path: Path, value: Any) -> None:
    assert reason(write(tmp_path, w=value)) == "is damaged: tensor 'w' has no type, shape and place"


@pytest.mark.parametrize("offsets", [[0, 4], [8, 0], [0], []])
def test_entry_that_contradicts_itself_is_refused(tmp_path: Path, offsets: list[int]) -> None:
    assert reason(write(tmp_path, w=entry(offsets=offsets))).endswith("does not take as many bytes as its shape says")


def test_unknown_type_is_named(tmp_path: Path) -> None:
    assert reason(write(tmp_path, w=entry(kind="F5"))) == "has tensors of type 'F5', which is not known"


@pytest.mark.parametrize(
    ("second", "data_bytes", "told"),
    [
        ([8, 16], 12, "is cut off: it should have 16 bytes of weights and has 12"),
        ([8, 16], 20, "has 4 bytes more than its header tells of"),
        ([4, 12], 16, "is damaged: tensor 'b' overlaps another"),
        ([12, 20], 20, "is damaged: tensor 'b' leaves a gap before it"),
    ],
)
def test_sizes_have_to_add_up(tmp_path: Path, second: list[int], data_bytes: int, told: str) -> None:
    assert reason(write(tmp_path, data_bytes, a=entry(), b=entry(offsets=second))) == told


def test_names_are_shown_clean(tmp_path: Path) -> None:
    names: dict[str, Any] = {"a\x00\x1b[31m\ud800" + "x" * 500: None}
    told = reason(write(tmp_path, **names))
    assert told.isprintable()
    assert told.count("x") < 60


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    assert reason(tmp_path / "gone") == "is not there"
    assert reason(tmp_path) == "is not an ordinary file"
    os.mkfifo(tmp_path / "pipe")
    assert reason(tmp_path / "pipe") == "is not an ordinary file"


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_json_that_python_itself_stumbles_over_is_no_json(text: bytes) -> None:
    with pytest.raises(ValueError, match="is not JSON"):
        json_object(text)


def test_json_with_far_too_many_entries_is_not_read() -> None:
    with pytest.raises(ValueError, match="far too many entries"):
        json_object(b'{"a": [' + b"0," * MOST_PARTS + b"0]}")


@settings(deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_damaged_file_raises_nothing_else(data: bytes, has_length: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        path.write_bytes(struct.pack("<Q", len(data)) + data if has_length else data)
        _read_or_refuse(path)


@settings(deadline=None)
@given(st.data())
def test_changed_bytes_raise_nothing_else(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = write_safetensors(Path(folder) / "m.safetensors", {"a": ("F32", (2, 3)), "b": ("BF16", (4,))})
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        _read_or_refuse(path)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
_entries = st.fixed_dictionaries(
    {}, optional={"dtype": _json | st.sampled_from(["F32", "U8"]), "shape": _json, "data_offsets": _json}
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=20), _json | _entries, max_size=4))
def test_any_header_raises_nothing_else(values: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        _read_or_refuse(write_raw(Path(folder) / "m.safetensors", json.dumps(values).encode(), bytes(8)))


def _read_or_refuse(path: Path) -> None:
    told = "read"
    try:
        read_safetensors(path)
    except ModelFileInvalid as exc:
        told = exc.reason
    assert 0 < len(told) < 250
