"""config.json as published for each model, cut to what is read."""

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
from gantry.modelfiles.hf_folder import FolderFacts, folder_files, is_model_folder, read_folder
from gantry.modelfiles.model_file import Form, form_of, model_files, read_model
from tests.tiny_safetensors import LLAMA, llama_shapes, write_folder, write_raw, write_safetensors
from tests.unit.modelfiles.files import write_gguf


def reason(path: Path) -> str:
    with pytest.raises(ModelFileInvalid) as caught:
        read_folder(path)
    assert caught.value.path == path
    return caught.value.reason


def read_config(path: Path, **config: Any) -> FolderFacts:
    """The facts of a model with this config.json and nothing of Llama's."""
    return read_folder(write_folder(path / "model", **{**dict.fromkeys(LLAMA), **config}))


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


# Configurations


def test_mistral_slides_everywhere(tmp_path: Path) -> None:
    """Mistral-7B-v0.1."""
    memory = read_config(
        tmp_path,
        model_type="mistral",
        hidden_size=4096,
        intermediate_size=14_336,
        max_position_embeddings=32_768,
        num_attention_heads=32,
        num_hidden_layers=32,
        num_key_value_heads=8,
        sliding_window=4096,
    ).memory
    assert (memory.kv_heads, memory.key_length) == ((8,) * 32, 128)
    assert (memory.sliding_window, memory.sliding_layers) == (4096, (True,) * 32)


def test_qwen2_has_a_window_and_does_not_use_it(tmp_path: Path) -> None:
    """Qwen2-7B-Instruct."""
    config = {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "max_position_embeddings": 32_768,
        "max_window_layers": 20,
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "sliding_window": 131_072,
        "use_sliding_window": False,
    }
    memory = read_config(tmp_path, **config).memory
    assert (memory.kv_heads, memory.key_length, memory.sliding_window) == ((4,) * 28, 128, 0)
    sliding = read_config(tmp_path, **{**config, "use_sliding_window": True}).memory
    assert (sliding.sliding_window, sliding.sliding_layers) == (131_072, (False,) * 20 + (True,) * 8)


GEMMA_2_9B = {
    "model_type": "gemma2",
    "head_dim": 256,
    "hidden_size": 3584,
    "intermediate_size": 14_336,
    "num_attention_heads": 16,
    "num_hidden_layers": 42,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}


def test_gemma2_slides_every_other_layer(tmp_path: Path) -> None:
    memory = read_config(tmp_path, **GEMMA_2_9B).memory
    assert (memory.sliding_window, memory.sliding_layers) == (4096, (True, False) * 21)
    assert (memory.key_length, memory.value_length) == (256, 256)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sliding_window_pattern": 6},
        {"layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 8},
    ],
)
def test_gemma3_keeps_its_language_model_apart_and_leaves_out_defaults(tmp_path: Path, more: dict[str, Any]) -> None:
    """gemma-3-4b-it says of its language model just this; a pattern or a list of layers came later."""
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 48,
        "sliding_window": 1024,
        **more,
    }
    facts = read_config(tmp_path, model_type="gemma3", text_config=text, vision_config={"num_hidden_layers": 27})
    assert (facts.architecture, facts.context_length) == ("gemma3_text", 131_072)
    assert (facts.memory.kv_heads, facts.memory.key_length, facts.memory.head_count) == ((4,) * 48, 256, 8)
    assert facts.memory.sliding_layers == ((True,) * 5 + (False,)) * 8


def test_defaults_are_not_made_up_for_a_model_that_is_no_part_of_another(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", num_hidden_layers=None)
    assert (
        reason(tmp_path / "m")
        == "has a config.json that does not say how many layers the model has (num_hidden_layers)"
    )


def test_latent_attention_caches_one_vector(tmp_path: Path) -> None:
    """DeepSeek-V2-Lite."""
    memory = read_config(
        tmp_path,
        model_type="deepseek_v2",
        hidden_size=2048,
        intermediate_size=10_944,
        kv_lora_rank=512,
        moe_intermediate_size=1408,
        num_attention_heads=16,
        num_experts_per_tok=6,
        num_hidden_layers=27,
        num_key_value_heads=16,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
    ).memory
    assert (memory.kv_heads, memory.key_length, memory.value_length) == ((1,) * 27, 576, 0)
    assert memory.feed_forward_length == 10_944


def test_experts_that_one_token_uses_count_together(tmp_path: Path) -> None:
    """Mixtral-8x7B: two experts of eight."""
    assert (
        read_folder(write_folder(tmp_path / "m", num_local_experts=8, num_experts_per_tok=2)).memory.feed_forward_length
        == 128
    )
    moe = write_folder(tmp_path / "n", moe_intermediate_size=48, num_experts_per_tok=8)
    assert read_folder(moe).memory.feed_forward_length == 384


def test_layers_may_differ_in_their_heads(tmp_path: Path) -> None:
    """OpenELM gives a list; DeciLM leaves attention out of some layers."""
    assert read_folder(write_folder(tmp_path / "a", num_key_value_heads=[1, 4])).memory.kv_heads == (1, 4)
    blocks = [{"attention": {"n_heads_in_group": 2, "no_op": False}}, {"attention": {"no_op": True}}]
    assert read_folder(write_folder(tmp_path / "b", block_configs=blocks)).memory.kv_heads == (2, 0)


def test_falcon_shares_one_head_unless_it_says_how_many(tmp_path: Path) -> None:
    falcon: dict[str, Any] = {"num_key_value_heads": None, "multi_query": True}
    assert read_folder(write_folder(tmp_path / "a", **falcon)).memory.kv_heads == (1, 1)
    newer = write_folder(tmp_path / "b", **falcon, new_decoder_architecture=True, num_kv_heads=2)
    assert read_folder(newer).memory.kv_heads == (2, 2)


def test_names_of_older_classes(tmp_path: Path) -> None:
    """GPT-2."""
    facts = read_config(
        tmp_path, model_type="gpt2", n_layer=12, n_embd=768, n_head=12, n_positions=1024, vocab_size=50_257
    )
    assert (facts.memory.kv_heads, facts.memory.key_length, facts.context_length) == ((12,) * 12, 64, 1024)
    assert facts.memory.feed_forward_length == 3072


def test_recurrent_layers_cache_nothing_and_keep_a_state(tmp_path: Path) -> None:
    """Qwen3-Next: three layers of four are recurrent."""
    memory = read_config(
        tmp_path,
        model_type="qwen3_next",
        num_hidden_layers=48,
        full_attention_interval=4,
        hidden_size=2048,
        head_dim=256,
        num_attention_heads=16,
        num_key_value_heads=2,
        linear_conv_kernel_dim=4,
        linear_key_head_dim=128,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_value_head_dim=128,
    ).memory
    assert memory.kv_heads == (0, 0, 0, 2) * 12
    channels = 2 * 16 * 128 + 32 * 128
    assert memory.recurrent_bytes == 36 * 4 * (4 * channels + 32 * 128 * 128)


@pytest.mark.parametrize(
    ("config", "kv_heads"),
    [
        ({"layer_types": ["linear_attention", "full_attention"]}, (0, 2)),
        ({"layer_types": ["conv", "full_attention"]}, (0, 2)),
        ({"layers_block_type": ["mamba", "attention"]}, (0, 2)),
        ({"block_types": ["recurrent", "attention"]}, (0, 2)),
        ({"attn_layer_period": 2, "attn_layer_offset": 0}, (2, 0)),
        ({"hybrid_override_pattern": "M*"}, (0, 2)),
        ({"num_kv_shared_layers": 1}, (2, 0)),
    ],
)
def test_layers_that_cache_nothing(tmp_path: Path, config: dict[str, Any], kv_heads: tuple[int, ...]) -> None:
    assert read_folder(write_folder(tmp_path / "m", **config)).memory.kv_heads == kv_heads


def test_pattern_of_letters(tmp_path: Path) -> None:
    """EXAONE 4: L for layers that look at their surroundings."""
    config: dict[str, Any] = {"num_hidden_layers": 8, "sliding_window": 4096, "sliding_window_pattern": "LLLG"}
    assert read_folder(write_folder(tmp_path / "m", **config)).memory.sliding_layers == (True, True, True, False) * 2


def test_window_of_an_unknown_class_is_not_counted_on(tmp_path: Path) -> None:
    memory = read_folder(write_folder(tmp_path / "m", model_type="new", sliding_window=512)).memory
    assert (memory.sliding_window, memory.sliding_layers) == (0, ())


# What is refused


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
