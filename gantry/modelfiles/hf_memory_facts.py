"""From a model's config.json and its tensors to what its memory depends on.

Source: the configuration and modelling code of https://github.com/huggingface/transformers for which layers cache what, and the
published config.json of the models named in the tests.
"""

from __future__ import annotations

from gantry.modelfiles.gguf_keys import MOST_LAYERS
from gantry.modelfiles.hf_config import (
    CONTEXT,
    FEED_FORWARD,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    VOCABULARY,
    ConfigReader,
)
from gantry.modelfiles.hf_weights import WeightTotals
from gantry.planning.estimates import ModelFacts

# Every how manieth layer looks at everything, for classes whose configuration may leave it out.
_FULL_EVERY = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "gemma3n_text": 5, "cohere2": 4}
# Classes in which a window is that of all layers. Any other with a window and no pattern is taken to look at everything
# everywhere: better to ask for too much memory than for too little.
_ALL_SLIDE = {"mistral", "mixtral", "starcoder2", "phi3"}
_SLIDING = {"sliding_attention", "chunked_attention"}


def hf_memory_facts(config: ConfigReader, weights: WeightTotals) -> ModelFacts:
    """What the model's memory depends on.

    With latent attention (MLA) one vector stands for all heads and for keys and values alike: `key_length` is its length with
    the part that carries the position, `value_length` is 0, as for GGUF files.

    Raises:
        ModelFileInvalid: a figure makes no sense.
    """
    layers = config.whole(*LAYERS, most=MOST_LAYERS)
    heads = config.whole(*HEADS)
    hidden = config.whole(*HIDDEN)
    head_length = config.whole("head_dim", "attention_head_dim", default=hidden // heads if heads else 0)
    latent = config.whole("kv_lora_rank")
    sliding = _sliding_layers(config, layers)
    return ModelFacts(
        weight_bytes=weights.total_bytes,
        block_bytes=weights.block_bytes,
        input_bytes=weights.input_bytes,
        is_tied=not weights.has_output,
        repacked_bytes=0,
        context_length=config.whole(*CONTEXT),
        embedding_length=hidden,
        feed_forward_length=_feed_forward_length(config),
        head_count=heads,
        kv_heads=tuple(_kv_heads(config, layers, heads, is_latent=bool(latent))),
        key_length=latent + config.whole("qk_rope_head_dim") if latent else head_length,
        value_length=0 if latent else config.whole("v_head_dim", default=head_length),
        sliding_window=_window(config) if any(sliding) else 0,
        sliding_layers=tuple(sliding) if any(sliding) else (),
        recurrent_bytes=_recurrent_bytes(config, layers),
        vocabulary_size=config.whole(*VOCABULARY),
    )


def _kv_heads(config: ConfigReader, layers: int, heads: int, *, is_latent: bool) -> list[int]:
    """KV heads of each layer, 0 where nothing is cached: recurrent layers, those left out, those that share another's."""
    counts = [1] * layers if is_latent else _stated_kv_heads(config, layers, heads)
    kinds = _layer_kinds(config, layers)
    first_shared = layers - config.whole("num_kv_shared_layers")
    return [count if _is_attention(kinds[layer]) and layer < first_shared else 0 for layer, count in enumerate(counts)]


def _stated_kv_heads(config: ConfigReader, layers: int, heads: int) -> list[int]:
    blocks = config.raw("block_configs")
    if isinstance(blocks, list) and len(blocks) == layers:  # DeciLM: each layer is its own
        return [_heads_of_block(config, block, heads) for block in blocks]
    # Falcon says both: `multi_query` for one head, unless `num_kv_heads` or the newer kind of decoder is in use.
    has_one = config.flag("multi_query", default=False) and not config.flag("new_decoder_architecture", default=False)
    if has_one and not config.has("multi_query_group_num"):
        return [1] * layers
    return config.by_layer(*KV_HEADS, layer_count=layers, default=heads)


def _heads_of_block(config: ConfigReader, block: object, heads: int) -> int:
    attention = block.get("attention") if isinstance(block, dict) else None
    if not isinstance(attention, dict) or attention.get("no_op") or attention.get("replace_with_linear"):
        return 0
    group = attention.get("n_heads_in_group")
    if type(group) is not int or group < 1:
        raise config.senseless("n_heads_in_group", group)
    return max(1, heads // group)


def _layer_kinds(config: ConfigReader, layers: int) -> list[str]:
    """What kind of layer each is; "full_attention" where nothing is said."""
    pattern = config.raw("hybrid_override_pattern")  # Nemotron-H: "M-M*-", a star for attention
    if isinstance(pattern, str) and len(pattern) == layers:
        return ["attention" if sign == "*" else "other" for sign in pattern]
    kinds = (
        config.texts("layer_types")
        or config.texts("layers_block_type")
        or _repeated(config.texts("block_types"), layers)
    )
    if len(kinds) >= layers:
        return kinds[:layers]
    every = config.whole("full_attention_interval", "attn_layer_period", default=1) or 1
    offset = config.whole("attn_layer_offset", default=every - 1)
    return ["full_attention" if layer % every == offset % every else "other" for layer in range(layers)]


def _is_attention(kind: str) -> bool:
    """It keeps keys and values; "hybrid" is attention and something else in one layer."""
    return kind == "hybrid" or ("attention" in kind and "linear" not in kind)


def _repeated(kinds: list[str], layers: int) -> list[str]:
    return [kinds[layer % len(kinds)] for layer in range(layers)] if kinds else []


def _sliding_layers(config: ConfigReader, layers: int) -> list[bool]:
    if not _window(config):
        return [False] * layers
    if config.texts("layer_types"):
        return [kind in _SLIDING for kind in _layer_kinds(config, layers)]
    pattern = config.raw("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(pattern, str) and pattern:  # EXAONE 4: "LLLG", L for local
        return [pattern[layer % len(pattern)] == "L" for layer in range(layers)]
    if config.model_type in _ALL_SLIDE:
        return [True] * layers
    if config.flag("use_sliding_window", default=False):  # Qwen2: the layers from this one on
        first = config.whole("max_window_layers", default=layers)
        return [layer >= first for layer in range(layers)]
    every = config.whole(
        "sliding_window_pattern", "_sliding_window_pattern", default=_FULL_EVERY.get(config.model_type, 1)
    )
    return [every > 1 and (layer + 1) % every != 0 for layer in range(layers)]


def _window(config: ConfigReader) -> int:
    """Tokens that a sliding layer looks back; 0 when none slides."""
    if not config.flag("use_sliding_window", default=True):
        return 0
    return config.whole("sliding_window", "attention_chunk_size")


def _feed_forward_length(config: ConfigReader) -> int:
    """The widest that is computed at once: of a dense layer, or of all experts that one token uses."""
    dense = config.whole(*FEED_FORWARD, default=4 * config.whole(*HIDDEN))
    used = config.whole("num_experts_per_tok", "num_experts_per_token", "moe_topk")
    # Mixtral's `intermediate_size` is that of one expert; others name it apart.
    one = config.whole("moe_intermediate_size", "expert_ffn_hidden_size", default=dense if used else 0)
    return max(dense, used * one)


def _recurrent_bytes(config: ConfigReader, layers: int) -> int:
    """Bytes that the recurrent layers keep of one sequence: a convolution's last inputs and the state, as 32-bit numbers."""
    count = sum(1 for kind in _layer_kinds(config, layers) if not _is_attention(kind))
    key_heads, value_heads = config.whole("linear_num_key_heads"), config.whole("linear_num_value_heads")
    if value_heads:  # gated delta net: Qwen3-Next
        key, value = config.whole("linear_key_head_dim"), config.whole("linear_value_head_dim")
        channels = 2 * key_heads * key + value_heads * value
        return count * 4 * (config.whole("linear_conv_kernel_dim") * channels + value_heads * key * value)
    state = config.whole("ssm_state_size", "mamba_d_state")
    inner = config.whole("mamba_num_heads", "mamba_n_heads") * config.whole("mamba_head_dim", "mamba_d_head")
    inner = inner or config.whole("mamba_expand") * config.whole(*HIDDEN)
    channels = inner + 2 * config.whole("n_groups", "mamba_n_groups", default=1) * state
    return count * 4 * (config.whole("conv_kernel", "mamba_d_conv") * channels + inner * state)
