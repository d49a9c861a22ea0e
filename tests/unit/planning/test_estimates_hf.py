"""The figures are worked out by hand from the published config.json of each model; weights are of its published files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.estimates import MIB, PROCESS_BYTES_DEVICE, LoadSettings, ModelFacts, estimate_need
from gantry.planning.estimates_hf import (
    TabbySettings,
    VLLMSettings,
    tabby_cache_bytes,
    tabby_need_of_context,
    tabby_parts,
    vllm_need_of_context,
    vllm_parts,
    vllm_share,
)
from gantry.planning.need_parts import parts_for_llama
from tests.unit.planning.test_estimates import GEMMA, SMOLLM

GIB = 1024**3


def facts(**values: object) -> ModelFacts:
    usual = {
        "weight_bytes": 0,
        "block_bytes": 0,
        "input_bytes": 0,
        "is_tied": False,
        "repacked_bytes": 0,
        "context_length": 8192,
        "embedding_length": 4096,
        "feed_forward_length": 14_336,
        "head_count": 32,
        "kv_heads": (8,) * 32,
        "key_length": 128,
        "value_length": 128,
    }
    return ModelFacts(**{**usual, **values})  # type: ignore[arg-type]


LLAMA_3_8B = facts(weight_bytes=16_060_522_496, input_bytes=128_256 * 4096 * 2)
MISTRAL_7B = facts(context_length=32_768, sliding_window=4096, sliding_layers=(True,) * 32)
GEMMA_3_12B = facts(
    context_length=131_072,
    kv_heads=(8,) * 48,
    key_length=256,
    value_length=256,
    sliding_window=1024,
    sliding_layers=tuple((layer + 1) % 6 != 0 for layer in range(48)),
)
QWEN_2_7B = facts(context_length=32_768, kv_heads=(4,) * 28, embedding_length=3584, feed_forward_length=18_944)
DEEPSEEK_V2_LITE = facts(context_length=163_840, kv_heads=(1,) * 27, key_length=512 + 64, value_length=0)

# Facts, and bytes of cache for one token: layers × KV heads × head size × 2 (keys and values) × 2 bytes.
PER_TOKEN = [
    (LLAMA_3_8B, 32 * 8 * 128 * 2 * 2),  # 128 KiB
    (MISTRAL_7B, 32 * 8 * 128 * 2 * 2),
    (GEMMA_3_12B, 48 * 8 * 256 * 2 * 2),  # 384 KiB
    (QWEN_2_7B, 28 * 4 * 128 * 2 * 2),  # 56 KiB
    (DEEPSEEK_V2_LITE, 27 * (512 + 64) * 2),  # one vector for all heads, keys and values: 30.4 KiB
]


@pytest.mark.parametrize(("model", "bytes_per_token"), PER_TOKEN)
def test_cache_of_known_models(model: ModelFacts, bytes_per_token: int) -> None:
    assert tabby_cache_bytes(model, TabbySettings(max_seq_len=4096)) == 4096 * bytes_per_token


def test_llama_3_8b_at_full_context_caches_one_gibibyte() -> None:
    assert tabby_cache_bytes(LLAMA_3_8B, TabbySettings()) == GIB


@pytest.mark.parametrize(
    ("mode", "bits"),
    [("FP16", 16), ("Q8", 8.5), ("Q6", 6.5), ("Q4", 4.5), ("8,4", 6.5), ("2, 3", 3), ("made up", 16), ("9,9", 16)],
)
def test_cache_modes(mode: str, bits: float) -> None:
    """A quantised number has its bits and a share of the scale: 16 bits for 32 numbers."""
    assert tabby_cache_bytes(LLAMA_3_8B, TabbySettings(8192, cache_mode=mode)) == GIB * bits / 16


@pytest.mark.parametrize(("mode", "per_token"), [("FP16", 1152), ("Q8", 672), ("Q6", 544), ("Q4", 416)])
def test_quantised_latent_cache_keeps_the_position_whole(mode: str, per_token: int) -> None:
    """The bytes for a token and layer that ExLlama itself names for a latent vector of 512 and 64."""
    assert tabby_cache_bytes(DEEPSEEK_V2_LITE, TabbySettings(256, cache_mode=mode)) == 256 * 27 * per_token


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        (TabbySettings(), 8192),
        (TabbySettings(max_seq_len=1000), 1024),
        (TabbySettings(max_seq_len=4096, cache_size=16_384), 16_384),
        (TabbySettings(max_seq_len=4096, cache_size=2000), 2048),
    ],
)
def test_cache_is_as_long_as_tabbyapi_makes_it(settings: TabbySettings, tokens: int) -> None:
    assert tabby_cache_bytes(LLAMA_3_8B, settings) == tokens * 128 * 1024


def test_model_that_does_not_say_its_context_gets_8192_tokens() -> None:
    assert tabby_cache_bytes(facts(context_length=0), TabbySettings()) == GIB


def test_token_embedding_stays_in_ram_unless_it_is_the_output_too() -> None:
    tied = facts(weight_bytes=LLAMA_3_8B.weight_bytes, input_bytes=LLAMA_3_8B.input_bytes, is_tied=True)
    assert tabby_parts(LLAMA_3_8B, TabbySettings()).weight_bytes == 16_060_522_496 - 1_050_673_152
    assert tabby_parts(tied, TabbySettings()).weight_bytes == 16_060_522_496


def test_need_is_the_sum_of_its_parts() -> None:
    parts = tabby_parts(LLAMA_3_8B, TabbySettings())
    compute = 2048 * 2 * (2 * 14_336 + 8 * 4096) + 2 * 4096 * 14_336  # activations, and a matrix unpacked
    before_margin = 15_009_849_344 + GIB + compute + PROCESS_BYTES_DEVICE
    assert (parts.cache_bytes, parts.compute_bytes, parts.process_bytes) == (GIB, compute, PROCESS_BYTES_DEVICE)
    assert parts.total_bytes == before_margin + int(before_margin * 0.03)


def test_quantised_cache_is_unpacked_layer_by_layer() -> None:
    plain, quantised = (tabby_parts(LLAMA_3_8B, TabbySettings(cache_mode=mode)) for mode in ("FP16", "Q4"))
    assert quantised.compute_bytes - plain.compute_bytes == GIB // 32
    assert quantised.total_bytes < plain.total_bytes


def test_recurrent_state_is_kept_for_four_sequences() -> None:
    with_state = tabby_parts(facts(recurrent_bytes=1_000_000), TabbySettings())
    assert with_state.cache_bytes == tabby_parts(facts(), TabbySettings()).cache_bytes + 4_000_000


def test_vllm_takes_its_share_whatever_the_model() -> None:
    assert vllm_share(24 * GIB, 0.9) == 23_192_823_399  # 0.9 × 25,769,803,776, rounded up
    assert vllm_share(100, 1) == 100
    for share in (0, -0.5, 1.01):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            vllm_share(100, share)


def test_vllm_share_has_to_hold_all_weights_and_one_sequence() -> None:
    parts = vllm_parts(LLAMA_3_8B, VLLMSettings())
    assert (parts.weight_bytes, parts.cache_bytes) == (16_060_522_496, GIB)
    assert vllm_parts(LLAMA_3_8B, VLLMSettings(cache_number_bytes=1)).cache_bytes == GIB // 2


def test_vllm_keeps_of_a_sliding_layer_its_window_and_what_is_computed() -> None:
    full, sliding = 8 * 131_072, 40 * (1024 + 2048)
    assert vllm_parts(GEMMA_3_12B, VLLMSettings()).cache_bytes == (full + sliding) * 8 * (256 + 256) * 2
    assert vllm_parts(MISTRAL_7B, VLLMSettings(1000)).cache_bytes == 1000 * 128 * 1024


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.sampled_from(["FP16", "Q8", "Q6", "Q4", "3,5"]))
def test_more_context_never_needs_less(one: int, other: int, mode: str) -> None:
    less, more = sorted((one, other))
    for model, _ in PER_TOKEN:
        tabby = tabby_need_of_context(model, TabbySettings(cache_size=4096, cache_mode=mode))
        vllm = vllm_need_of_context(model, VLLMSettings())
        assert tabby(less) <= tabby(more)
        assert vllm(less) <= vllm(more)


def test_need_of_the_settings_own_context_is_the_need() -> None:
    settings = TabbySettings(max_seq_len=4096)
    assert tabby_need_of_context(QWEN_2_7B, settings)(4096) == tabby_parts(QWEN_2_7B, settings).total_bytes


@given(
    st.integers(0, 100_000),
    st.integers(-1, 40),
    st.integers(0, 8),
    st.booleans(),
    st.sampled_from([SMOLLM, GEMMA, LLAMA_3_8B]),
)
def test_parts_for_llama_add_up_to_its_estimate(
    ctx_size: int, layers: int, parallel: int, is_ram: bool, model: ModelFacts
) -> None:
    settings = LoadSettings(ctx_size, layers, parallel)
    parts = parts_for_llama(model, settings, is_ram=is_ram)
    assert parts.total_bytes == estimate_need(model, settings, is_ram=is_ram)
    assert min(parts.cache_bytes, parts.compute_bytes, parts.process_bytes, parts.margin_bytes) >= 0
    assert parts.weight_bytes >= -2  # rounding, when no layer is on the device


def test_parts_for_llama_are_those_that_it_prints() -> None:
    parts = parts_for_llama(SMOLLM, LoadSettings(8192, parallel=1), is_ram=True)
    assert parts.cache_bytes / MIB == pytest.approx(180, abs=0.001)
    assert parts.weight_bytes / MIB == pytest.approx(SMOLLM.weight_bytes / MIB, abs=0.001)
