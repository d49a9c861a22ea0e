"""Folders of Hugging Face: what is read of them, in which form and quantisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.hf_folder import folder_files, read_folder
from gantry.modelfiles.model_file import Form, form_of, model_files, read_model
from tests.tiny_safetensors import llama_shapes, write_folder, write_safetensors
from tests.unit.modelfiles.files import write_gguf
from tests.unit.modelfiles.hf_folders import reason

# What is read


def test_facts_of_a_plain_model(tmp_path: Path) -> None:
    facts = read_folder(write_folder(tmp_path / "Tiny-Llama"))
    weights = (100 * 32 * 2 + 2 * 64 * 32 + 32) * 2  # embedding and output, two layers, a norm; two bytes each
    assert (facts.name, facts.architecture, facts.quantization) == ("Tiny-Llama", "llama", "BF16")
    assert (facts.parameter_count, facts.parameter_label) == (weights // 2, "11K")
    assert (facts.context_length, facts.layer_count, facts.has_chat_template) == (4096, 2, True)
    assert facts.shards == (tmp_path / "Tiny-Llama" / "model.safetensors",)
    assert facts.size_bytes == facts.shards[0].stat().st_size
    memory = facts.memory
    assert (memory.weight_bytes, memory.input_bytes, memory.block_bytes) == (weights, 6400, 8192)
    assert (memory.kv_heads, memory.key_length, memory.value_length) == ((2, 2), 8, 8)
    assert (memory.embedding_length, memory.feed_forward_length, memory.head_count) == (32, 64, 4)
    assert (memory.vocabulary_size, memory.is_tied, memory.sliding_layers) == (100, False, ())


def test_parts_with_an_index_are_one_model(tmp_path: Path) -> None:
    whole, parts = (read_folder(write_folder(tmp_path / str(count), parts=count)) for count in (1, 3))
    assert [shard.name for shard in parts.shards] == [
        f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)
    ]
    assert parts.memory == whole.memory


def test_parts_without_an_index_are_one_model(tmp_path: Path) -> None:
    facts = read_folder(write_folder(tmp_path / "m", parts=2, has_index=False))
    assert len(facts.shards) == 2
    assert facts.memory.weight_bytes == 21_056


def test_what_lies_beside_the_weights_is_left_out(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    for name in ("consolidated.safetensors", "adapter_model.safetensors"):
        write_safetensors(folder / name, {"x": ("F32", (1000,))})
    assert read_folder(folder).memory.weight_bytes == 21_056


def test_model_without_an_output_matrix_is_tied(tmp_path: Path) -> None:
    assert read_folder(write_folder(tmp_path / "m", shapes=llama_shapes(is_tied=True))).memory.is_tied


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json", None])
def test_chat_template_is_found_wherever_it_is(tmp_path: Path, name: str | None) -> None:
    folder = write_folder(tmp_path / "m", has_template=False)
    (folder / "tokenizer_config.json").write_text("not JSON, and no matter here")
    if name:
        (folder / name).write_text("{{ messages }}")
    assert read_folder(folder).has_chat_template is bool(name)


def test_sentence_transformers_make_embeddings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    assert not read_folder(folder).is_embedding
    (folder / "modules.json").write_text("[]")
    assert read_folder(folder).is_embedding


# Quantisation


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ({"quant_method": "exl2", "bits": 4.0, "head_bits": 6}, "EXL2 4.0 bpw"),
        ({"quant_method": "exl2", "bits": 4.65}, "EXL2 4.65 bpw"),
        ({"quant_method": "exl3", "bits": 3, "codebook": "mcg"}, "EXL3 3.0 bpw"),
        ({"quant_method": "exl3", "bits": "mixed"}, "EXL3"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "GPTQ 4-bit"),
        ({"quant_method": "awq", "w_bit": 4}, "AWQ 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "BNB 4-bit"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "BNB 8-bit"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8"),
        ({"quant_method": "mxfp4"}, "MXFP4"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
            "CT 4-bit",
        ),
        ({}, "BF16"),
        ("yes", "BF16"),
        ({"quant_method": 5, "bits": True}, "BF16"),
    ],
)
def test_quantisation_as_people_say_it(tmp_path: Path, config: Any, label: str) -> None:
    assert read_folder(write_folder(tmp_path / "m", quantization_config=config)).quantization == label


def test_older_gptq_models_say_it_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m")
    (folder / "quantize_config.json").write_text('{"bits": 8, "group_size": 32}')
    assert read_folder(folder).quantization == "GPTQ 8-bit"


def test_parameters_are_counted_also_when_they_are_packed(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj"
    packed = {
        "model.embed_tokens.weight": ("F16", (100, 32)),
        f"{name}.qweight": ("I32", (8, 64)),  # 64 × 64 numbers of 4 bits
        f"{name}.qzeros": ("I32", (1, 8)),
        f"{name}.scales": ("F16", (1, 64)),
        f"{name}.g_idx": ("I32", (64,)),
    }
    facts = read_folder(
        write_folder(tmp_path / "m", shapes=packed, quantization_config={"quant_method": "gptq", "bits": 4})
    )
    assert facts.parameter_count == 3200 + 64 * 64


def test_exllama_reads_no_index(tmp_path: Path) -> None:
    """Its models often still have the index of the model they were made from."""
    folder = write_folder(tmp_path / "m", parts=2, quantization_config={"quant_method": "exl2", "bits": 4.0})
    for part in folder.glob("model-*"):
        part.rename(folder / part.name.replace("model-", "output-"))
    assert len(read_folder(folder).shards) == 2
    write_folder(folder, parts=2, quantization_config={"quant_method": "gptq", "bits": 4})
    for part in folder.glob("model-0*"):
        part.unlink()
    assert reason(folder) == "is missing a part that its index names: model-00001-of-00002.safetensors"


# Both forms behind one door


def test_form_is_told_by_a_look(tmp_path: Path) -> None:
    file, folder = write_gguf(tmp_path / "m.gguf"), write_folder(tmp_path / "m")
    assert (form_of(file), form_of(folder)) == (Form.FILE, Form.FOLDER)
    assert form_of(tmp_path) is None
    assert form_of(tmp_path / ("x" * 300)) is None


def test_each_form_is_read_by_its_reader(tmp_path: Path) -> None:
    file, folder = write_gguf(tmp_path / "m.gguf"), write_folder(tmp_path / "m", parts=2)
    assert (read_model(file).quantization, read_model(folder).quantization) == ("F32", "BF16")
    assert model_files(file) == [file]
    assert [path.name for path in model_files(folder)] == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]


def test_folder_without_a_model_has_no_files(tmp_path: Path) -> None:
    with pytest.raises(ModelFileInvalid, match=r"has no config\.json with \.safetensors files beside it"):
        folder_files(tmp_path)
