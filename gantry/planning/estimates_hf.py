"""How much memory a Hugging Face folder (safetensors) takes on a GPU, before anybody has measured it.

TabbyAPI: need = (weights + cache + compute + process) × (1 + margin), where

- weights: all tensors, without the token embedding, which ExLlama keeps in RAM; a model without an output matrix of its own has a
  copy of the embedding on the device, so there it counts. Eyes and ears count too, though they are loaded only when asked for.
- cache: tokens × Σ over layers of KV heads × (key length × its bytes + value length × its bytes). Tokens are `cache_size`, else
  `max_seq_len`, else what the model was trained for, rounded up to pages of 256. A number takes 2 bytes (FP16) or, quantised to
  b bits, b/8 bytes and a sixteenth for the scale of each 32. With latent attention (MLA) the part that carries the position stays
  FP16. A sliding layer counts as any other: for Gemma 3 and most others ExLlama keeps all tokens of it too (for a few of the
  newest it keeps less; a measurement will show that).
- compute: for `chunk_size` tokens at once the activations of one layer (2 × feed-forward + 8 × embedding numbers of 2 bytes), one
  feed-forward matrix unpacked, and, with a quantised cache, one layer of it unpacked.

vLLM is different: it takes `gpu_memory_utilization` × the memory of the device at its start, whatever the model, and gives to the
cache what the weights leave of it. So its need is that share (`vllm_share`); what has to fit into the share is `vllm_parts`.

Sources: https://github.com/theroyallab/tabbyAPI (backends/exllamav3/model.py: defaults, cache modes),
https://github.com/turboderp-org/exllamav3 (exllamav3/cache/{fp16,quant,mla}.py, exllamav3/modules/embedding.py,
exllamav3/architecture/gemma3.py),
https://github.com/vllm-project/vllm (vllm/v1/worker/utils.py `request_memory`, vllm/v1/kv_cache_interface.py). Read there, not
measured: what was measured on an earlier load goes before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from gantry.planning.estimates import PROCESS_BYTES_DEVICE, ModelFacts
from gantry.planning.need_parts import NeedParts, with_margin

PAGE_TOKENS = 256  # ExLlama's cache grows by pages of so many tokens
CONTEXT_WHEN_UNKNOWN = 8192  # TabbyAPI's, for a model that does not say what it was trained for
RECURRENT_SLOTS = 4  # sequences that TabbyAPI prepares for models whose layers keep a state
SMALLEST_CHUNK = 256
FP16_BYTES = 2.0
GROUP_NUMBERS = 32  # numbers of a quantised cache that share a scale of 2 bytes
POSITION_LENGTH = 64  # of a latent vector: the numbers that carry the position (32 in some small models)

# Bits of the modes that TabbyAPI has names for; further ones are "bits of keys,bits of values", each from 2 to 8.
_NAMED_MODES = {"Q8": (8, 8), "Q6": (6, 6), "Q4": (4, 4)}


@dataclass(frozen=True, slots=True)
class TabbySettings:
    """The parameters of a load that its memory depends on, with TabbyAPI's defaults."""

    max_seq_len: int = 0  # tokens; 0: what the model was trained for
    cache_size: int = 0  # tokens of all sequences together; 0: max_seq_len
    cache_mode: str = (
        "FP16"  # Q8, Q6, Q4, or "8,6" for keys and values apart; anything else counts as FP16, as TabbyAPI has it
    )
    chunk_size: int = 2048  # tokens computed at once


@dataclass(frozen=True, slots=True)
class VLLMSettings:
    """The parameters of a vLLM server that its least memory depends on."""

    max_model_len: int = 0  # tokens; 0: what the model was trained for
    max_num_batched_tokens: int = 2048  # tokens computed at once
    cache_number_bytes: float = FP16_BYTES  # --kv-cache-dtype: 2 for auto with 16-bit weights, 1 for fp8


def tabby_parts(facts: ModelFacts, settings: TabbySettings) -> NeedParts:
    """What a load by TabbyAPI takes of the devices, all of them together. See the head of this file for the formula."""
    return with_margin(
        weight_bytes=facts.weight_bytes - (0 if facts.is_tied else facts.input_bytes),
        cache_bytes=tabby_cache_bytes(facts, settings) + RECURRENT_SLOTS * facts.recurrent_bytes,
        compute_bytes=_tabby_compute_bytes(facts, settings),
        process_bytes=PROCESS_BYTES_DEVICE,
    )


def tabby_need_of_context(facts: ModelFacts, settings: TabbySettings) -> Callable[[int], int]:
    """Bytes that a load by TabbyAPI takes with so many tokens of context, one sequence filling the cache."""

    def need(context: int) -> int:
        return tabby_parts(facts, replace(settings, max_seq_len=context, cache_size=0)).total_bytes

    return need


def tabby_cache_bytes(facts: ModelFacts, settings: TabbySettings) -> int:
    """Bytes of the cache for keys and values."""
    key_bytes, value_bytes = _number_bytes(settings.cache_mode)
    return int(_cached_tokens(facts, settings) * sum(facts.kv_heads) * _token_bytes(facts, key_bytes, value_bytes))


def vllm_share(total_bytes: int, gpu_memory_utilization: float) -> int:
    """Bytes that vLLM takes of a device with `total_bytes`: by design the share it is given, whatever the model.

    It refuses to start when that much is not free.

    Raises:
        ValueError: the share is not above 0 and at most 1.
    """
    if not 0 < gpu_memory_utilization <= 1:
        raise ValueError(f"a share of the memory is above 0 and at most 1, not {gpu_memory_utilization}")
    return ceil(total_bytes * gpu_memory_utilization)


def vllm_parts(facts: ModelFacts, settings: VLLMSettings) -> NeedParts:
    """What vLLM's share has to hold at least, or it does not start: all weights, and the cache of one sequence of full length."""
    tokens = settings.max_model_len or facts.context_length or CONTEXT_WHEN_UNKNOWN
    kept = min(tokens, facts.sliding_window + settings.max_num_batched_tokens)
    number = settings.cache_number_bytes
    cache = sum(
        (kept if _is_sliding(facts, layer) else tokens) * heads * (facts.key_length + facts.value_length) * number
        for layer, heads in enumerate(facts.kv_heads)
    )
    return with_margin(
        weight_bytes=facts.weight_bytes,
        cache_bytes=int(cache) + facts.recurrent_bytes,
        compute_bytes=_activation_bytes(facts, settings.max_num_batched_tokens),
        process_bytes=PROCESS_BYTES_DEVICE,
    )


def vllm_need_of_context(facts: ModelFacts, settings: VLLMSettings) -> Callable[[int], int]:
    """Bytes that vLLM's share has to hold at least for so many tokens of context."""

    def need(context: int) -> int:
        return vllm_parts(facts, replace(settings, max_model_len=context)).total_bytes

    return need


def _is_sliding(facts: ModelFacts, layer: int) -> bool:
    """Whether a layer keeps its window only."""
    return bool(facts.sliding_window) and layer < len(facts.sliding_layers) and facts.sliding_layers[layer]


def _number_bytes(cache_mode: str) -> tuple[float, float]:
    """Bytes of one cached number of a key and of a value."""
    bits = _mode_bits(cache_mode)
    return (_quantised_bytes(bits[0]), _quantised_bytes(bits[1])) if bits else (FP16_BYTES, FP16_BYTES)


def _mode_bits(cache_mode: str) -> tuple[int, int] | None:
    """Bits of keys and values; None for FP16."""
    if cache_mode in _NAMED_MODES:
        return _NAMED_MODES[cache_mode]
    key, _, value = (part.strip() for part in cache_mode.partition(","))
    return (int(key), int(value)) if {key, value} <= set("2345678") else None


def _quantised_bytes(bits: int) -> float:
    return bits / 8 + 2 / GROUP_NUMBERS


def _token_bytes(facts: ModelFacts, key_bytes: float, value_bytes: float) -> float:
    """Bytes that one head of one layer keeps of one token."""
    if facts.value_length:
        return facts.key_length * key_bytes + facts.value_length * value_bytes
    position = min(POSITION_LENGTH, facts.key_length)
    return (facts.key_length - position) * key_bytes + position * FP16_BYTES


def _tabby_compute_bytes(facts: ModelFacts, settings: TabbySettings) -> int:
    chunk = _pages(max(SMALLEST_CHUNK, settings.chunk_size))
    unpacked_matrix = 2 * facts.embedding_length * facts.feed_forward_length
    return _activation_bytes(facts, chunk) + unpacked_matrix + _unpacked_cache_bytes(facts, settings)


def _unpacked_cache_bytes(facts: ModelFacts, settings: TabbySettings) -> int:
    """The largest layer of a quantised cache, as FP16; a latent one is read as it is."""
    if _mode_bits(settings.cache_mode) is None or not facts.value_length:
        return 0
    heads = max(facts.kv_heads, default=0)
    return int(_cached_tokens(facts, settings) * heads * _token_bytes(facts, FP16_BYTES, FP16_BYTES))


def _cached_tokens(facts: ModelFacts, settings: TabbySettings) -> int:
    return _pages(settings.cache_size or settings.max_seq_len or facts.context_length or CONTEXT_WHEN_UNKNOWN)


def _activation_bytes(facts: ModelFacts, tokens: int) -> int:
    return tokens * 2 * (2 * facts.feed_forward_length + 8 * facts.embedding_length)


def _pages(tokens: int) -> int:
    return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
