"""Typed access to a model's config.json, which may hold anything.

Names differ between the classes of models: GPT-2 says `n_layer` where Llama says `num_hidden_layers`. A multimodal model keeps
what its language model has under `text_config`, and leaves out there what its class has by default.

Source: the configuration classes of https://github.com/huggingface/transformers (src/transformers/models/*/configuration_*.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_keys import LARGEST_NUMBER, MOST_LAYERS, clean

_NESTED: Final = ("text_config", "llm_config", "language_config")  # where multimodal models keep the language model

LAYERS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN: Final = ("hidden_size", "n_embd", "d_model")
HEADS: Final = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS: Final = (
    "num_key_value_heads",
    "num_kv_heads",
    "num_key_value_heads_per_layer",
    "n_head_kv",
    "multi_query_group_num",
)
FEED_FORWARD: Final = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
CONTEXT: Final = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
VOCABULARY: Final = ("vocab_size", "padded_vocab_size")

# What a nested configuration of these classes means when it says nothing.
_CLASS_DEFAULTS: Final[Mapping[str, Mapping[str, int]]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131_072,
        "vocab_size": 262_208,
    },
    "llama": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "intermediate_size": 11_008,
        "max_position_embeddings": 2048,
        "vocab_size": 32_000,
    },
    "mistral": {
        "num_hidden_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14_336,
        "max_position_embeddings": 131_072,
        "vocab_size": 32_000,
    },
}


class ConfigReader:
    """Reads a configuration; each lookup takes several names and gives the first that is set (null counts as not set).

    Raises (all methods): ModelFileInvalid, when a value is of a type or size that makes no sense.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self._path = path
        nested = next((config[name] for name in _NESTED if isinstance(config.get(name), dict)), None)
        self._whole = config
        self._config: Mapping[str, Any] = config if nested is None else nested
        model_type = self._config.get("model_type")
        defaults = _CLASS_DEFAULTS.get(model_type) if nested is not None and isinstance(model_type, str) else None
        self._defaults: Mapping[str, int] = defaults or {}
        self.is_nested = nested is not None

    @property
    def model_type(self) -> str:
        """Of the language model: "llama", "gemma3_text"; "" when it does not say."""
        return self.text("model_type", 100)

    def has(self, *names: str) -> bool:
        """Whether one of these is set."""
        return self._get(names)[1] is not None

    def raw(self, *names: str) -> Any:
        """The value as it is; None when there is none."""
        return self._get(names)[1]

    def from_whole(self, name: str) -> Any:
        """A value of the model as a whole, or else of its language model: where both places are in use."""
        value = self._whole.get(name)
        return self._config.get(name) if value is None else value

    def text(self, name: str, limit: int) -> str:
        """A text, cleaned and cut to so many characters; "" when there is none."""
        value = self._config.get(name)
        return clean(value[:1000])[:limit] if isinstance(value, str) else ""

    def whole(self, *names: str, default: int = 0, most: int = LARGEST_NUMBER) -> int:
        """A whole number from 0; for a list its largest entry."""
        name, value = self._get(names)
        if value is None:
            return default
        numbers = value if isinstance(value, list) else [value]
        return max((self._checked(name, number, most) for number in numbers), default=default)

    def flag(self, name: str, *, default: bool) -> bool:
        """Yes or no."""
        value = self._config.get(name)
        return default if value is None else bool(value)

    def by_layer(self, *names: str, layer_count: int, default: int) -> list[int]:
        """One whole number for each layer, whether one is given for all or one for each."""
        name, value = self._get(names)
        if not isinstance(value, list):
            return [self.whole(*names, default=default)] * layer_count
        # A null stands for a layer that has none.
        numbers = [
            0 if number is None else self._checked(name, number, LARGEST_NUMBER) for number in value[:layer_count]
        ]
        return numbers + [default] * (layer_count - len(numbers))

    def texts(self, name: str) -> list[str]:
        """A list of words; [] when there is none."""
        value = self._config.get(name)
        return [str(entry)[:100] for entry in value[:MOST_LAYERS]] if isinstance(value, list) else []

    def senseless(self, name: str, value: Any) -> ModelFileInvalid:
        """What to raise for a value that cannot be."""
        shown = clean(str(value)[:60]) if not isinstance(value, dict | list) else "a list"
        return ModelFileInvalid(self._path, f"has a config.json in which {clean(name)} is {shown!r}, which cannot be")

    def _get(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for source in (self._config, self._defaults):
            for name in names:
                if source.get(name) is not None:
                    return name, source[name]
        return names[0], None

    def _checked(self, name: str, value: Any, most: int) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise self.senseless(name, value)
        return value
