"""config.json as published for each model, cut to what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gantry.modelfiles.hf_folder import read_folder
from tests.tiny_safetensors import write_folder
from tests.unit.modelfiles.hf_folders import read_config, reason


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
