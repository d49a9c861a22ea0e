from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_file import count_label, read_gguf
from gantry.modelfiles.gguf_keys import clean
from tests.unit.modelfiles.files import write_gguf, write_shards


def reason(path: Path) -> str:
    with pytest.raises(ModelFileInvalid) as caught:
        read_gguf(path)
    return caught.value.reason


def patched(path: Path, at: int, data: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def test_facts_are_what_the_file_says(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "m.gguf", general__file_type=15, general__size_label="20B", tokenizer__chat_template="{{ x }}"
    )
    facts = read_gguf(path)
    assert (facts.name, facts.architecture, facts.quantization) == ("Tiny", "llama", "Q4_K_M")
    assert (facts.parameter_label, facts.parameter_count) == ("20B", 10 * 32 + 2 * 64 * 32 + 32)
    assert (facts.size_bytes, facts.context_length, facts.layer_count) == (path.stat().st_size, 256, 2)
    assert (facts.has_chat_template, facts.is_embedding, facts.shards) == (True, False, (path,))
    memory = facts.memory
    assert (memory.kv_heads, memory.key_length, memory.value_length) == ((2, 2), 8, 8)
    assert (memory.block_bytes, memory.input_bytes, memory.is_tied) == (2 * 64 * 32 * 4, 10 * 32 * 4, True)


def test_long_vocabulary_is_stepped_over(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", words=50_000)
    start = time.perf_counter()
    assert read_gguf(path).memory.vocabulary_size == 50_000
    assert time.perf_counter() - start < 1.0


def test_what_is_missing_has_a_sensible_stand_in(tmp_path: Path) -> None:
    facts = read_gguf(write_gguf(tmp_path / "some-model.gguf", general__name=None, general__file_type=None))
    assert (facts.name, facts.quantization, facts.parameter_label) == ("some-model", "F32", "4K")


@pytest.mark.parametrize(
    ("file_type", "name"), [(0, "F32"), (1, "F16"), (2, "Q4_0"), (38, "MXFP4"), (1024 + 7, "Q8_0"), (999, "F32")]
)
def test_quantization_is_named_as_people_know_it(tmp_path: Path, file_type: int, name: str) -> None:
    assert read_gguf(write_gguf(tmp_path / "m.gguf", general__file_type=file_type)).quantization == name


@pytest.mark.parametrize(
    ("count", "label"),
    [(134_515_008, "135M"), (1_720_000_000, "1.7B"), (20_900_000_000, "21B"), (7_000_000_000, "7B"), (500, "0K")],
)
def test_parameter_count_reads_as_people_say_it(count: int, label: str) -> None:
    assert count_label(count) == label


@pytest.mark.parametrize(
    ("values", "is_embedding"),
    [
        ({"arch__pooling_type": 1}, True),
        ({"arch__pooling_type": 3}, True),
        ({"arch__pooling_type": 4}, False),
        ({"arch__pooling_type": 0}, False),
        ({"arch__attention__causal": False}, True),
    ],
)
def test_pooling_tells_an_embedding_model(tmp_path: Path, values: dict[str, Any], is_embedding: bool) -> None:
    assert read_gguf(write_gguf(tmp_path / "m.gguf", **values)).is_embedding is is_embedding


def test_model_that_reads_both_ways_caches_nothing(tmp_path: Path) -> None:
    memory = read_gguf(write_gguf(tmp_path / "m.gguf", arch="bert", arch__attention__causal=False)).memory
    assert memory.kv_heads == (0, 0)


def test_sliding_layers_by_architecture(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", arch="gemma3", arch__attention__sliding_window=512, arch__block_count=7)
    memory = read_gguf(path).memory
    assert memory.sliding_window == 512
    assert memory.sliding_layers == (True, True, True, True, True, False, True)


def test_sliding_layers_by_the_files_own_pattern(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "arch__attention__sliding_window": 128,
        "arch__attention__sliding_window_pattern": [False, True],
    }
    assert read_gguf(write_gguf(tmp_path / "m.gguf", arch="new", **values)).memory.sliding_layers == (False, True)


def test_window_without_a_known_pattern_counts_as_none(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", arch="new", arch__attention__sliding_window=128)
    assert not any(read_gguf(path).memory.sliding_layers)


def test_heads_by_layer_and_recurrent_layers(tmp_path: Path) -> None:
    path = write_gguf(
        tmp_path / "m.gguf",
        arch__block_count=3,
        arch__attention__head_count_kv=[0, 2, 0],
        arch__ssm__inner_size=64,
        arch__ssm__state_size=16,
        arch__ssm__conv_kernel=4,
    )
    memory = read_gguf(path).memory
    assert memory.kv_heads == (0, 2, 0)
    assert memory.recurrent_bytes == 2 * (3 * 64 + 64 * 16) * 4


def test_attention_in_every_fourth_layer_only(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", arch__block_count=8, arch__full_attention_interval=4)
    assert read_gguf(path).memory.kv_heads == (0, 0, 0, 2, 0, 0, 0, 2)


def test_values_within_the_keys_are_not_counted_twice(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", arch__attention__key_length=576, arch__attention__key_length_mla=192)
    memory = read_gguf(path).memory
    assert (memory.key_length, memory.value_length) == (576, 0)


def test_shards_are_one_model(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    for shard in shards:
        facts = read_gguf(shard)
        assert (facts.path, facts.shards, facts.name) == (shards[0], tuple(shards), "Big")
        assert facts.size_bytes == sum(path.stat().st_size for path in shards)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    shards[1].unlink()
    assert reason(shards[0]) == "has 3 parts, and part 2 is missing: big-00002-of-00003.gguf"


def test_shard_number_that_cannot_be(tmp_path: Path) -> None:
    assert "part 4 of 3" in reason(write_gguf(tmp_path / "m-00004-of-00003.gguf"))


def test_shard_that_lost_its_name(tmp_path: Path) -> None:
    assert "one of 3 parts by its own account" in reason(write_gguf(tmp_path / "m.gguf", split__count=3))


@pytest.mark.parametrize(
    ("kind", "words"), [("mmproj", "projector"), ("adapter", "LoRA"), ("imatrix", "importance matrix")]
)
def test_other_kinds_of_gguf_are_not_models(tmp_path: Path, kind: str, words: str) -> None:
    assert words in reason(write_gguf(tmp_path / "m.gguf", general__type=kind))


def test_file_that_is_no_gguf(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for content in (b"GG", b"<html>not found</html>"):
        path.write_bytes(content)
        assert reason(path) == "is not a GGUF file"


def test_file_that_is_empty_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    assert reason(tmp_path / "m.gguf") == "is empty, as a download that failed leaves it"


def test_what_is_no_file(tmp_path: Path) -> None:
    assert reason(tmp_path / "m.gguf") == "is not there"
    assert reason(tmp_path) == "is a folder"
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    assert reason(pipe) == "is not an ordinary file"
    assert "cannot be read" in reason(tmp_path / ("x" * 300 + ".gguf"))


def test_unsupported_version_and_byte_order(tiny: Path) -> None:
    assert reason(patched(tiny, 4, struct.pack("<I", 7))) == "has GGUF version 7; 2 to 3 are supported"
    assert reason(patched(tiny, 4, struct.pack(">I", 3))) == "is a GGUF file for big-endian machines"


def test_file_that_ends_within_its_weights(tiny: Path) -> None:
    size = tiny.stat().st_size
    os.truncate(tiny, size - 100)
    assert reason(tiny) == f"is cut off: it should have {size:,} bytes and has {size - 100:,}"


def test_file_that_ends_within_its_header(tiny: Path) -> None:
    os.truncate(tiny, 100)
    assert reason(tiny) == "is cut off: it ends within its header"


@pytest.mark.parametrize("at", [8, 16])
def test_absurd_counts_are_refused_at_once(tiny: Path, at: int) -> None:
    start = time.perf_counter()
    assert reason(patched(tiny, at, struct.pack("<Q", 2**62))) == "is cut off: it ends within its header"
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize(
    "values",
    [
        {"arch__block_count": 2**31},
        {"arch__block_count": "many"},
        {"arch__attention__head_count": [1, -5]},
        {"arch__attention__head_count_kv": ["two", "two"]},
        {"general__name": 5},
        {"general__alignment": 3},
    ],
)
def test_senseless_figures_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    assert "is damaged" in reason(write_gguf(tmp_path / "m.gguf", **values))


def test_file_without_architecture_or_weights(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    assert reason(path) == "does not say of which architecture it is"


def test_texts_are_clean(tmp_path: Path) -> None:
    facts = read_gguf(write_gguf(tmp_path / "m.gguf", general__name="a\x00b\x1b[31m\nc" + "x" * 500))
    assert facts.name.startswith("a b [31m cx")
    assert len(facts.name) == 200
    assert clean("\ud800 \u2028x") == "x"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6),
    length=st.none() | st.floats(0, 1),
)
def test_hostile_bytes_are_read_or_refused(
    tmp_path: Path, changes: list[tuple[float, bytes]], length: float | None
) -> None:
    """Whatever stands in the file, the answer is facts or ModelFileInvalid."""
    path = tmp_path / "hostile.gguf"
    write_gguf(path, words=5)
    content = bytearray(path.read_bytes())
    header = 700  # most changes hit the keys and the tensor list
    for where, data in changes:
        at = int(where * header)
        content[at : at + len(data)] = data
    path.write_bytes(content[: int(length * len(content))] if length is not None else content)
    try:
        told = read_gguf(path).name
    except ModelFileInvalid as exc:
        told = exc.reason
    assert told
    assert told.isprintable()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rest=st.binary(max_size=200))
def test_anything_behind_the_magic_is_read_or_refused(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + rest)
    with pytest.raises(ModelFileInvalid):
        read_gguf(path)
