"""How much memory a model will take and how long its load will last, before anybody has measured it.

Source of the arithmetic: llama.cpp (src/llama-kv-cache.cpp, src/llama-kv-cache-iswa.cpp, src/llama-memory-recurrent.cpp),
checked against the buffer sizes that llama-server prints for a plain, a sliding-window and a repacked model.
What was measured on an earlier load always goes before what is worked out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any, Self

from gantry.planning.types import Reading, TimeRange

MIB = 1024**2

DEFAULT_LOAD_RATE = 400e6  # bytes per second: a plain SSD, nothing in the page cache
SHORTEST_LOAD_SECONDS = 1.0  # starting the server and reading the vocabulary, however small the model
UNSURE_FACTOR = 2.0  # a first load may take half or twice what its size says
SPREAD_OF_ONE = 0.5  # of the usual seconds: how far the next load may be off after one; after n, an nth of it
SMALLEST_SPREAD = 0.1  # of the usual seconds: ten loads that happened to be alike promise nothing better
DEVIATIONS = 1.4826  # standard deviations in a median absolute deviation, of what is normally distributed
READING_SHARES = (0.02, 0.98)  # there is always something to be read, and something to be done afterwards

PROCESS_BYTES_RAM = 24 * MIB  # program and libraries of one llama-server
WORD_BYTES = 100  # RAM for each word of the vocabulary, in both directions
PROCESS_BYTES_DEVICE = 512 * MIB  # a CUDA context and its kernels, held by each process that uses the device
MARGIN = 0.03  # on top of the sum: alignment, and what grows with the first requests
SIZE_FACTOR = 1.2  # memory per byte of file, when nothing but its size is known
SIZE_MARGIN_BYTES = 256 * MIB
MEASURED_MARGIN = 0.02  # compute buffers are touched by use only, so what is held at first grows a little
MEASURED_MARGIN_BYTES = 16 * MIB

UBATCH_SIZE = 512  # llama-server's default for what is computed at once
SLOTS_WHEN_AUTO = 4  # llama-server's own choice when --parallel is not given; they then share one cache
CACHE_PADDING = 256  # a sliding-window cache is rounded up to this many tokens

# Bytes of one cached number: bytes of a block / numbers in it (ggml's block formats).
CACHE_TYPE_BYTES: Mapping[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What memory depends on, as read from a model's file. All sizes in bytes, all lengths in numbers or tokens."""

    weight_bytes: int  # all tensors
    block_bytes: int  # those of the layers: what `n_gpu_layers` divides
    input_bytes: int  # the token embedding: stays in RAM when layers go to a device
    is_tied: bool  # the output matrix is the token embedding: a device gets a copy of it
    repacked_bytes: int  # tensors that a CPU keeps a second time, rearranged for its vector unit
    context_length: int  # tokens it was trained for
    embedding_length: int
    feed_forward_length: int
    head_count: int
    kv_heads: tuple[int, ...]  # per layer; 0 where the layer has no attention
    key_length: int  # of one head
    value_length: int  # 0 where values are kept within the keys (MLA)
    sliding_window: int = 0  # tokens; 0: none
    sliding_layers: tuple[bool, ...] = ()  # per layer; empty: none
    sliding_key_length: int = 0  # 0: as the other layers
    sliding_value_length: int = 0
    recurrent_bytes: int = 0  # state of all recurrent layers, for one sequence
    vocabulary_size: int = 0  # words

    @property
    def layer_count(self) -> int:
        """Its layers."""
        return len(self.kv_heads)

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Self | None:
        """From `as_dict`, through JSON; None for anything else, such as what an older version stored."""
        if not data or set(data) != {field.name for field in fields(cls)}:
            return None
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**values)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """The parameters of a load that its memory depends on, with llama-server's defaults."""

    ctx_size: int = 0  # tokens of all slots together; 0: what the model was trained for
    n_gpu_layers: int = -1  # -1: all
    parallel: int = 0  # slots; 0: llama-server chooses
    batch_size: int = 2048
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attn: bool = True


def estimate_need(facts: ModelFacts, settings: LoadSettings, *, is_ram: bool) -> int:
    """Bytes that a model takes in its pool once it is loaded.

    (weights + cache + recurrent state + compute buffer + process) × (1 + margin). In a RAM pool all weights count, with
    what a CPU rearranges; on a device only those of the offloaded layers with their share of the cache.
    """
    share = 1.0 if is_ram else _offloaded(facts, settings) / max(1, facts.layer_count)
    cached = cache_bytes(facts, settings) + facts.recurrent_bytes * _slots(settings)
    total = (
        _weight_bytes(facts, settings, is_ram=is_ram)
        + cached * share
        + compute_bytes(facts, settings)
        + (PROCESS_BYTES_RAM + facts.vocabulary_size * WORD_BYTES if is_ram else PROCESS_BYTES_DEVICE)
    )
    return int(total * (1 + MARGIN))


def estimate_need_from_size(file_bytes: int) -> int:
    """Bytes that a model takes of which only the file's size is known: size × 1.2 + 256 MiB.

    The fifth is for the cache at a context of a few thousand tokens; a guess, good until the first load is measured.
    """
    return int(file_bytes * SIZE_FACTOR) + SIZE_MARGIN_BYTES


def need_from_history(held_bytes: int) -> int:
    """Bytes that a model takes, from what its latest load was measured to hold."""
    return held_bytes + max(int(held_bytes * MEASURED_MARGIN), MEASURED_MARGIN_BYTES)


def cache_bytes(facts: ModelFacts, settings: LoadSettings) -> int:
    """Bytes of the KV cache: tokens × Σ over layers of KV heads × (key length × its type + value length × its type)."""
    tokens, sliding_tokens = _cached_tokens(facts, settings)
    k_bytes, v_bytes = CACHE_TYPE_BYTES[settings.cache_type_k], CACHE_TYPE_BYTES[settings.cache_type_v]
    total = 0.0
    for layer, heads in enumerate(facts.kv_heads):
        if _is_sliding(facts, layer):
            key, value = (
                facts.sliding_key_length or facts.key_length,
                facts.sliding_value_length or facts.value_length,
            )
            total += sliding_tokens * heads * (key * k_bytes + value * v_bytes)
        else:
            total += tokens * heads * (facts.key_length * k_bytes + facts.value_length * v_bytes)
    return int(total)


def compute_bytes(facts: ModelFacts, settings: LoadSettings) -> int:
    """Bytes of the buffer for what is being computed.

    A fit to what llama-server prints, for u tokens at once: u × 4 × (2 × feed-forward + 8 × embedding) for the activations,
    u × 2 × context for the mask, and, without flash attention, u × 4 × heads × context for the scores.
    """
    ubatch = min(UBATCH_SIZE, settings.batch_size)
    context = _context(facts, settings) // max(1, settings.parallel)
    activations = ubatch * 4 * (2 * facts.feed_forward_length + 8 * facts.embedding_length)
    scores = 0 if settings.flash_attn else ubatch * 4 * facts.head_count * context
    return activations + ubatch * 2 * context + scores


def load_time_for_size(file_bytes: int, rate: float = DEFAULT_LOAD_RATE) -> TimeRange:
    """What a load should take, from what it has to read at `rate` bytes per second; unknown where that is 0."""
    if file_bytes <= 0:
        return TimeRange(0.0, 0.0, 0.0, 0)
    usual = max(SHORTEST_LOAD_SECONDS, file_bytes / rate)
    return TimeRange(usual, usual / UNSURE_FACTOR, usual * UNSURE_FACTOR, 0)


def load_time_from_history(seconds: Sequence[float], reading_seconds: Sequence[float | None] = ()) -> TimeRange:
    """What a load should take, from how long earlier loads of the same model took: median, range and how far they differ.

    Args:
        seconds: of each load.
        reading_seconds: of each load, in the same order: until its file was read; None where that was not seen.

    Raises:
        ValueError: there are none.
    """
    if not seconds:
        raise ValueError("no earlier loads")
    seen = [(read, whole) for read, whole in zip(reading_seconds, seconds, strict=False) if read is not None and whole]
    return TimeRange(
        median(seconds), min(seconds), max(seconds), len(seconds), _spread(seconds), _reading(seen) if seen else None
    )


def _spread(seconds: Sequence[float]) -> float:
    usual = median(seconds)
    seen = DEVIATIONS * median(abs(one - usual) for one in seconds)
    return max(seen, usual * SMALLEST_SPREAD, usual * SPREAD_OF_ONE / len(seconds))


def _reading(loads: Sequence[tuple[float, float]]) -> Reading:
    """From the seconds of each load: until its file was read, and in all."""
    least, most = READING_SHARES
    return Reading(
        share=min(most, max(least, median(read / whole for read, whole in loads))),
        seconds_after=max(0.0, median(whole - read for read, whole in loads)),
    )


def _weight_bytes(facts: ModelFacts, settings: LoadSettings, *, is_ram: bool) -> int:
    if is_ram:
        return facts.weight_bytes + facts.repacked_bytes
    layers = _offloaded(facts, settings)
    if layers < facts.layer_count:
        return facts.block_bytes * layers // max(1, facts.layer_count)
    # All layers, and the output matrix with them; a tied one is a copy of the token embedding.
    return facts.weight_bytes - (0 if facts.is_tied else facts.input_bytes)


def _offloaded(facts: ModelFacts, settings: LoadSettings) -> int:
    asked = settings.n_gpu_layers
    return facts.layer_count if asked < 0 else min(asked, facts.layer_count)


def _cached_tokens(facts: ModelFacts, settings: LoadSettings) -> tuple[int, int]:
    """Tokens kept by an ordinary layer and by a sliding one, all slots together.

    A sliding layer keeps the window and the tokens being computed, rounded up: once for each slot, or once for all
    of them with a window each when the slots share one cache.
    """
    context = _context(facts, settings)
    ubatch = min(UBATCH_SIZE, settings.batch_size)
    streams = max(1, settings.parallel)
    windows = SLOTS_WHEN_AUTO if settings.parallel == 0 else 1
    window = -(-(facts.sliding_window * windows + ubatch) // CACHE_PADDING) * CACHE_PADDING
    return context, min(context // streams, window) * streams


def _context(facts: ModelFacts, settings: LoadSettings) -> int:
    return settings.ctx_size or facts.context_length


def _slots(settings: LoadSettings) -> int:
    return settings.parallel or SLOTS_WHEN_AUTO


def _is_sliding(facts: ModelFacts, layer: int) -> bool:
    return bool(facts.sliding_window) and layer < len(facts.sliding_layers) and facts.sliding_layers[layer]
