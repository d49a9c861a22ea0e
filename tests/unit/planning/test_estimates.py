"""The figures of SmolLM2 135M (Q4_1) and Gemma 3 270M (Q4_K_M) are those that llama-server printed and held on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.estimates import (
    MIB,
    LoadSettings,
    ModelFacts,
    cache_bytes,
    compute_bytes,
    estimate_need,
    estimate_need_from_size,
    load_time_for_size,
    load_time_from_history,
    need_from_history,
)

SMOLLM = ModelFacts(
    weight_bytes=96_576_768,
    block_bytes=66_493_440,
    input_bytes=30_081_024,
    is_tied=True,
    repacked_bytes=0,
    context_length=8192,
    embedding_length=576,
    feed_forward_length=1536,
    head_count=9,
    kv_heads=(3,) * 30,
    key_length=64,
    value_length=64,
    vocabulary_size=49_152,
)
GEMMA = ModelFacts(
    weight_bytes=246_587_904,
    block_bytes=68_327_424,
    input_bytes=178_257_920,
    is_tied=True,
    repacked_bytes=13_271_040,
    context_length=32_768,
    embedding_length=640,
    feed_forward_length=2048,
    head_count=4,
    kv_heads=(1,) * 18,
    key_length=256,
    value_length=256,
    sliding_window=512,
    sliding_layers=(True, True, True, True, True, False) * 3,
    vocabulary_size=262_144,
)
# Facts, settings, MiB of cache as printed, MiB held in all.
MEASURED = [
    (SMOLLM, LoadSettings(2048, parallel=1), 45, 179),
    (SMOLLM, LoadSettings(8192, parallel=1), 180, 315),
    (SMOLLM, LoadSettings(8192, parallel=4), 180, 316),
    (GEMMA, LoadSettings(2048, parallel=1), 6 + 15, 339),
    (GEMMA, LoadSettings(8192, parallel=1), 24 + 15, 361),
    (GEMMA, LoadSettings(8192, parallel=4), 24 + 60, 407),
    (GEMMA, LoadSettings(8192, parallel=1, cache_type_k="q8_0", cache_type_v="q8_0"), 12.75 + 7.96875, 339),
    (GEMMA, LoadSettings(parallel=1), 96 + 15, 433),
    (GEMMA, LoadSettings(), 96 + 37.5, 460),
]


@pytest.mark.parametrize(("facts", "settings", "cache_mib", "held_mib"), MEASURED)
def test_cache_is_what_llama_server_prints(
    facts: ModelFacts, settings: LoadSettings, cache_mib: float, held_mib: int
) -> None:
    assert cache_bytes(facts, settings) / MIB == cache_mib


@pytest.mark.parametrize(("facts", "settings", "cache_mib", "held_mib"), MEASURED)
def test_need_in_ram_is_a_little_above_what_was_held(
    facts: ModelFacts, settings: LoadSettings, cache_mib: float, held_mib: int
) -> None:
    assert 1.0 <= estimate_need(facts, settings, is_ram=True) / MIB / held_mib <= 1.1


def test_compute_buffer_without_flash_attention_holds_the_scores() -> None:
    printed = 166.38  # MiB, for SmolLM2 at 8192 tokens
    settings = LoadSettings(8192, parallel=1, flash_attn=False)
    assert compute_bytes(SMOLLM, settings) / MIB == pytest.approx(printed, rel=0.02)


def test_device_holds_only_the_offloaded_layers() -> None:
    none, half, whole = (
        estimate_need(SMOLLM, LoadSettings(8192, n_gpu_layers=layers), is_ram=False) for layers in (0, 15, -1)
    )
    assert none < half < whole
    assert estimate_need(SMOLLM, LoadSettings(8192, n_gpu_layers=999), is_ram=False) == whole


def test_device_leaves_an_untied_embedding_in_ram() -> None:
    untied = replace(SMOLLM, is_tied=False)
    settings = LoadSettings(8192)
    difference = estimate_need(SMOLLM, settings, is_ram=False) - estimate_need(untied, settings, is_ram=False)
    assert difference == pytest.approx(untied.input_bytes * 1.03, rel=0.001)


def test_layers_differ_in_their_heads() -> None:
    facts = replace(SMOLLM, kv_heads=(2, 0, 4))
    assert cache_bytes(facts, LoadSettings(100, parallel=1)) == 100 * 6 * (64 + 64) * 2


def test_recurrent_state_is_kept_for_each_slot() -> None:
    facts = replace(SMOLLM, recurrent_bytes=1_000_000)
    needs = [estimate_need(facts, LoadSettings(2048, parallel=slots), is_ram=True) for slots in (1, 3)]
    plain = [estimate_need(SMOLLM, LoadSettings(2048, parallel=slots), is_ram=True) for slots in (1, 3)]
    assert needs[0] - plain[0] == pytest.approx(1_030_000, abs=2)
    assert needs[1] - plain[1] == pytest.approx(3_090_000, abs=2)


@given(
    st.integers(0, 10**6),
    st.integers(-1, 100),
    st.integers(0, 16),
    st.integers(1, 4096),
    st.booleans(),
    st.booleans(),
    st.sampled_from([SMOLLM, GEMMA]),
)
def test_need_is_never_less_than_what_is_offloaded(
    ctx_size: int, layers: int, parallel: int, batch_size: int, flash_attn: bool, is_ram: bool, facts: ModelFacts
) -> None:
    settings = LoadSettings(ctx_size, layers, parallel, batch_size, flash_attn=flash_attn)
    need = estimate_need(facts, settings, is_ram=is_ram)
    assert need > (facts.weight_bytes if is_ram else 0)
    assert need <= estimate_need(
        facts, replace(settings, ctx_size=(ctx_size or facts.context_length) * 2), is_ram=is_ram
    )


def test_need_from_nothing_but_the_size() -> None:
    assert estimate_need_from_size(1_000_000_000) == 1_200_000_000 + 256 * MIB


def test_measured_need_gets_a_small_margin() -> None:
    assert need_from_history(10_000_000_000) == 10_200_000_000
    assert need_from_history(100) == 100 + 16 * MIB


def test_facts_survive_being_stored() -> None:
    assert ModelFacts.from_dict(GEMMA.as_dict()) == GEMMA
    assert ModelFacts.from_dict({"weight_bytes": 1}) is None
    assert ModelFacts.from_dict(None) is None


def test_load_time_from_size_has_a_floor() -> None:
    assert load_time_for_size(1000).usual_seconds == 1.0
    time = load_time_for_size(10_000_000_000, rate=1e9)
    assert (time.usual_seconds, time.low_seconds, time.high_seconds, time.samples) == (10, 5, 20, 0)


def test_load_time_from_history_is_the_median_with_its_range() -> None:
    time = load_time_from_history([9.0, 3.0, 4.0])
    assert (time.usual_seconds, time.low_seconds, time.high_seconds, time.samples) == (4, 3, 9, 3)
    with pytest.raises(ValueError, match="no earlier loads"):
        load_time_from_history([])


def test_share_of_reading_is_learned_from_the_loads_that_saw_it() -> None:
    reading = load_time_from_history([10.0, 10.0, 20.0, 99.0], [6.0, 5.0, 14.0, None]).reading
    assert reading is not None
    assert (reading.share, reading.seconds_after) == (0.6, 5.0)


def test_nothing_is_learned_of_reading_that_nobody_saw() -> None:
    assert load_time_from_history([9.0, 3.0]).reading is None
    assert load_time_from_history([9.0, 3.0], [None, None]).reading is None


@given(st.lists(st.tuples(st.floats(0.001, 1e6), st.floats(0, 1)), min_size=1, max_size=12))
def test_learned_share_leaves_room_for_what_comes_before_and_after(loads: list[tuple[float, float]]) -> None:
    time = load_time_from_history([took for took, _ in loads], [took * part for took, part in loads])
    assert time.reading is not None
    assert 0 < time.reading.share < 1
    assert time.reading.seconds_after >= 0


def test_loads_are_taken_to_differ_until_several_were_alike() -> None:
    assert load_time_from_history([4.0]).spread_seconds == 2
    assert load_time_from_history([4.0, 4.0]).spread_seconds == 1
    assert load_time_from_history([4.0] * 10).spread_seconds == pytest.approx(0.4)
    assert load_time_from_history([2.0, 4.0, 6.0]).spread_seconds == pytest.approx(2 * 1.4826)


def test_of_a_load_without_a_size_nobody_knows_how_long_it_takes() -> None:
    assert not load_time_for_size(0).is_known
    assert load_time_for_size(1).is_known
