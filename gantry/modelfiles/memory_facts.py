"""From the keys and tensors of a model to what its memory depends on.

Source: llama.cpp, src/llama-hparams.cpp (sizes for each layer) and src/llama-model.cpp (which layers slide).
"""

from __future__ import annotations

from collections.abc import Sequence

from gguf.constants import GGMLQuantizationType, Keys

from gantry.modelfiles.gguf_header import TensorInfo
from gantry.modelfiles.gguf_keys import MOST_LAYERS, KeyReader
from gantry.planning.estimates import ModelFacts

# Every how manieth layer looks at everything, where the file gives a window but no pattern. An architecture
# that is not listed is taken to look at everything everywhere: better to ask for too much memory than for too little.
_FULL_EVERY = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma-embedding": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "cohere2": 4,
    "olmo2": 4,
    "exaone4": 4,
}

# Kept a second time in an order that suits a CPU's vector unit (ggml/src/ggml-cpu/repack.cpp).
_REPACKED = {GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_K, GGMLQuantizationType.IQ4_NL}
_REPACKED_ROWS = 8

_INPUTS = {"token_embd.weight", "per_layer_token_embd.weight"}


def memory_facts(keys: KeyReader, tensors: Sequence[TensorInfo]) -> ModelFacts:
    """What the model's memory depends on.

    Raises:
        ModelFileInvalid: a figure makes no sense.
    """
    heads = keys.whole(Keys.Attention.HEAD_COUNT, 0)
    embedding = keys.whole(Keys.LLM.EMBEDDING_LENGTH, 0)
    head_length = embedding // heads if heads else 0
    kv_heads = _kv_heads(keys, heads)
    return ModelFacts(
        weight_bytes=_bytes(tensors),
        block_bytes=_bytes([tensor for tensor in tensors if tensor.name.startswith("blk.")]),
        input_bytes=_bytes([tensor for tensor in tensors if tensor.name in _INPUTS]),
        is_tied=all(tensor.name != "output.weight" for tensor in tensors),
        repacked_bytes=_bytes([tensor for tensor in tensors if _is_repacked(tensor)]),
        context_length=keys.whole(Keys.LLM.CONTEXT_LENGTH, 0),
        embedding_length=embedding,
        feed_forward_length=_feed_forward_length(keys),
        head_count=heads,
        kv_heads=tuple(kv_heads),
        key_length=keys.whole(Keys.Attention.KEY_LENGTH, head_length),
        value_length=0
        if keys.has(Keys.Attention.KEY_LENGTH_MLA)
        else keys.whole(Keys.Attention.VALUE_LENGTH, head_length),
        sliding_window=keys.whole(Keys.Attention.SLIDING_WINDOW, 0),
        sliding_layers=tuple(_sliding_layers(keys, len(kv_heads))),
        sliding_key_length=keys.whole(Keys.Attention.KEY_LENGTH_SWA, 0),
        sliding_value_length=keys.whole(Keys.Attention.VALUE_LENGTH_SWA, 0),
        recurrent_bytes=_recurrent_bytes(keys, kv_heads),
        vocabulary_size=keys.array_length(Keys.Tokenizer.LIST),
    )


def _kv_heads(keys: KeyReader, heads: int) -> list[int]:
    """KV heads of each layer, 0 where nothing is cached: recurrent layers, those that share, and models that read both ways."""
    layers = keys.whole(Keys.LLM.BLOCK_COUNT, 0, MOST_LAYERS)
    if not keys.flag(Keys.Attention.CAUSAL, default=True):
        return [0] * layers
    counts = keys.by_layer(Keys.Attention.HEAD_COUNT_KV, layers, heads)
    every = keys.whole(Keys.LLM.FULL_ATTENTION_INTERVAL, 1) or 1
    first_shared = layers - keys.whole(Keys.Attention.SHARED_KV_LAYERS, 0)
    return [count if (layer + 1) % every == 0 and layer < first_shared else 0 for layer, count in enumerate(counts)]


def _sliding_layers(keys: KeyReader, layers: int) -> list[bool]:
    pattern = Keys.Attention.SLIDING_WINDOW_PATTERN
    if not keys.whole(Keys.Attention.SLIDING_WINDOW, 0):
        return []
    if keys.array_length(pattern):
        return [bool(entry) for entry in keys.by_layer(pattern, layers, 0)]
    every = keys.whole(pattern, _FULL_EVERY.get(keys.architecture, 1))
    return [every > 1 and layer % every < every - 1 for layer in range(layers)]


def _recurrent_bytes(keys: KeyReader, kv_heads: Sequence[int]) -> int:
    """Bytes that the recurrent layers keep of one sequence: a convolution's last inputs and the state, as 32-bit numbers."""
    inner, state = keys.whole(Keys.SSM.INNER_SIZE, 0), keys.whole(Keys.SSM.STATE_SIZE, 0)
    groups, kernel = keys.whole(Keys.SSM.GROUP_COUNT, 0), keys.whole(Keys.SSM.CONV_KERNEL, 0)
    inputs = max(0, kernel - 1) * (inner + 2 * groups * state)
    return sum(1 for count in kv_heads if count == 0) * (inputs + inner * state) * 4


def _feed_forward_length(keys: KeyReader) -> int:
    """The widest that is computed at once: of a dense layer, or of all experts that one token uses."""
    experts = keys.whole(Keys.LLM.EXPERT_USED_COUNT, 0) * keys.whole(Keys.LLM.EXPERT_FEED_FORWARD_LENGTH, 0)
    return max(keys.whole(Keys.LLM.FEED_FORWARD_LENGTH, 0), experts)


def _is_repacked(tensor: TensorInfo) -> bool:
    return (
        tensor.kind in _REPACKED
        and len(tensor.shape) > 1
        and tensor.shape[1] % _REPACKED_ROWS == 0
        and tensor.name not in _INPUTS
    )


def _bytes(tensors: Sequence[TensorInfo]) -> int:
    return sum(tensor.size_bytes for tensor in tensors)
