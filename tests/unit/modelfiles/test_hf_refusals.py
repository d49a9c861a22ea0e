"""Folders that hold no model that can be used, and why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.hf_folder import is_model_folder, read_folder
from tests.tiny_safetensors import LLAMA, write_folder, write_raw
from tests.unit.modelfiles.hf_folders import reason


def test_folder_without_a_model(tmp_path: Path) -> None:
    assert not is_model_folder(tmp_path)
    assert not is_model_folder(tmp_path / "gone")
    assert reason(tmp_path) == "has no config.json"
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert not is_model_folder(tmp_path)
    assert reason(tmp_path) == "has no .safetensors files"


def test_missing_part_is_named(tmp_path: Path) -> None:
    with_index, without = (write_folder(tmp_path / str(flag), parts=3, has_index=flag) for flag in (True, False))
    for folder in (with_index, without):
        (folder / "model-00002-of-00003.safetensors").unlink()
        assert is_model_folder(folder)
    assert reason(with_index) == "is missing a part that its index names: model-00002-of-00003.safetensors"
    assert reason(without) == "is missing a part: model-00002-of-00003.safetensors"


def test_damaged_part_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", parts=2)
    part = folder / "model-00002-of-00002.safetensors"
    os.truncate(part, part.stat().st_size - 10)
    assert reason(folder).startswith(f"has a part that cannot be used: {part.name} is cut off: it should have ")


def test_index_that_promises_what_is_not_there(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", has_index=True)
    index = {"weight_map": {"model.norm.weight": "model.safetensors", "lost.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert reason(folder) == "has an index that does not fit: model.safetensors does not hold 'lost.weight'"


@pytest.mark.parametrize("name", ["../m.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", 5, "\0.txt"])
def test_index_that_leads_elsewhere(tmp_path: Path, name: Any) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    assert "which is no file of the folder" in reason(folder)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_index_of_nothing(tmp_path: Path, text: str) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "model.safetensors.index.json").write_text(text)
    assert reason(folder) == "has a model.safetensors.index.json without a weight_map"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has a config.json that is not JSON"),
        ("[]", "has a config.json that is not a JSON object"),
        ('{"a": 1, "a": 2}', "has a config.json that has a name twice"),
    ],
)
def test_config_that_cannot_be_read(tmp_path: Path, text: str, told: str) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "config.json").write_text(text)
    assert reason(folder) == told


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"num_hidden_layers": -1}, "has a config.json in which num_hidden_layers is '-1', which cannot be"),
        ({"num_hidden_layers": 10**9}, "has a config.json in which num_hidden_layers is '1000000000', which cannot be"),
        ({"hidden_size": "big"}, "has a config.json in which hidden_size is 'big', which cannot be"),
        ({"num_key_value_heads": True}, "has a config.json in which num_key_value_heads is 'True', which cannot be"),
        (
            {"num_key_value_heads": {"a": 1}},
            "has a config.json in which num_key_value_heads is 'a list', which cannot be",
        ),
    ],
)
def test_figure_that_makes_no_sense_is_named(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    assert reason(write_folder(tmp_path / "m", **config)) == told


def test_files_without_weights(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    write_raw(folder / "model.safetensors", b"{}")
    assert reason(folder) == "holds no weights"


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


_KEYS = [
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
    "sliding_window_pattern",
    "layer_types",
    "use_sliding_window",
    "kv_lora_rank",
    "text_config",
    "quantization_config",
    "block_configs",
    "multi_query",
    "full_attention_interval",
    "hybrid_override_pattern",
    "block_types",
    "model_type",
    "architectures",
    "num_experts_per_tok",
    "num_kv_shared_layers",
    "linear_num_value_heads",
    "max_window_layers",
]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(_KEYS), _values, min_size=1, max_size=5))
def test_any_configuration_raises_nothing_else(config: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        path = write_folder(Path(folder) / "m")
        (path / "config.json").write_text(json.dumps({**LLAMA, **config}))
        try:
            facts = read_folder(path)
        except ModelFileInvalid as exc:
            told = exc.reason
        else:
            told = facts.quantization
        assert 0 < len(told) < 250


@settings(deadline=None)
@given(_values | st.dictionaries(st.just("weight_map"), st.dictionaries(st.text(max_size=8), _values, max_size=3)))
def test_any_index_raises_nothing_else(index: Any) -> None:
    with TemporaryDirectory() as folder:
        path = write_folder(Path(folder) / "m")
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelFileInvalid):
            read_folder(path)
