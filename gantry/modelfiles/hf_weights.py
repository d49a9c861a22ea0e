"""What the tensors of a Hugging Face model come to, and how they are quantised.

Source for the names: the loaders of https://github.com/turboderp-org/exllamav3 and https://github.com/vllm-project/vllm, which take
the same files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gantry.modelfiles.gguf_keys import clean
from gantry.modelfiles.safetensors_header import StoredTensor

EXLLAMA: Final = frozenset({"exl2", "exl3"})
LEAST_BITS, MOST_BITS = 0.5, 32  # of a quantised weight

_BLOCK: Final = re.compile(r"(^|\.)(layers|h|blocks)\.\d+\.")
_OTHER_SENSE: Final = re.compile(r"vision|visual|audio|image")  # layers of an eye or ear, not of the language model
_INPUT: Final = re.compile(
    r"(^|\.)(embed_tokens|embed_tokens_per_layer|wte|word_embeddings|embed_in|tok_embeddings)\.weight$"
)
_OUTPUT: Final = re.compile(r"(^|\.)(lm_head|embed_out|output_layer)\.|^output\.")
# Quantised weights, several in one stored number; what stands beside them (scales, orders) is no weight of the model's.
_PACKED: Final = re.compile(r"\.(qweight|q_weight|trellis|weight_packed)$|_blocks$")
_BESIDE: Final = re.compile(
    r"\.(scales|qzeros|g_idx|q_scale|q_scale_max|q_perm|q_invperm|q_groups|q_group_map|suh|svh|su|sv|mcg|mul1"
    r"|weight_scale|weight_scale_inv|weight_zero_point|weight_shape|weight_g_idx|input_scale)$|_scales$|\.weight\.\w+$"
)
_DTYPE_LABELS: Final = {"F8_E4M3": "FP8", "F8_E5M2": "FP8", "F4": "FP4"}


@dataclass
class WeightTotals:
    """Sums over all tensors. Sizes in bytes."""

    total_bytes: int = 0
    block_bytes: int = 0  # of the layers
    input_bytes: int = 0  # of the token embedding
    has_output: bool = False  # a matrix of its own for the output; without one it is the embedding
    plain_count: int = 0  # numbers stored one by one
    packed_bits: int = 0  # in numbers that hold several
    type_bytes: Counter[str] = field(default_factory=Counter)

    def add(self, tensors: Iterable[StoredTensor]) -> None:
        """Count these too."""
        for tensor in tensors:
            self._add(tensor)

    def parameter_count(self, bits: float) -> int:
        """How many parameters the model has, with `bits` for each that is quantised (0: nobody knows, as if it were 4)."""
        return self.plain_count + int(self.packed_bits / (bits or 4))

    def commonest_type(self) -> str:
        """The type of most of the weights, as people say it: "BF16", "FP8"."""
        kind = self.type_bytes.most_common(1)[0][0] if self.type_bytes else ""
        return _DTYPE_LABELS.get(kind, kind)

    def _add(self, tensor: StoredTensor) -> None:
        name, size = tensor.name, tensor.size_bytes
        self.total_bytes += size
        self.type_bytes[tensor.kind] += size
        self.has_output = self.has_output or bool(_OUTPUT.search(name))
        if _INPUT.search(name):
            self.input_bytes += size
        elif _BLOCK.search(name) and not _OTHER_SENSE.search(name):
            self.block_bytes += size
        if _PACKED.search(name):
            self.packed_bits += size * 8
        elif not _BESIDE.search(name):
            self.plain_count += tensor.element_count


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a model is quantised, as its config.json says."""

    method: str = ""  # "exl3", "gptq", "awq"; "" when it is not, or does not say
    bits: float = 0.0  # for each weight; 0: it does not say

    @classmethod
    def read(cls, config: Any) -> Quantization:
        """From `quantization_config`, which may be anything."""
        if not isinstance(config, Mapping):
            return cls()
        method = config.get("quant_method")
        return cls(clean(method)[:30].lower() if isinstance(method, str) else "", _bits(config))

    @property
    def is_exllama(self) -> bool:
        """ExLlama's own formats."""
        return self.method in EXLLAMA

    def label(self, commonest_type: str) -> str:
        """As people say it: "EXL3 4.0 bpw", "GPTQ 4-bit", "FP8"; the type of the weights when they are not quantised."""
        name = _METHOD_LABELS.get(self.method, self.method.upper())
        if self.is_exllama:
            return (
                f"{name} {self.bits:.3g} bpw" if self.bits % 1 else f"{name} {self.bits:.1f} bpw" if self.bits else name
            )
        if not name or self.method in _SAYS_IT_ALL or not self.bits:
            return name or commonest_type
        return f"{name} {self.bits:g}-bit"


_METHOD_LABELS: Final = {"bitsandbytes": "BNB", "compressed-tensors": "CT", "fbgemm_fp8": "FP8"}
_SAYS_IT_ALL: Final = {"fp8", "mxfp4", "fbgemm_fp8", "nvfp4"}


def _bits(config: Mapping[str, Any]) -> float:
    for name in ("bits", "w_bit"):
        value = config.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and LEAST_BITS <= value <= MOST_BITS:
            return float(value)
    if config.get("load_in_4bit") or config.get("quant_method") == "mxfp4":
        return 4.0
    if config.get("load_in_8bit"):
        return 8.0
    return _bits_of_group(config.get("config_groups"))


def _bits_of_group(groups: Any) -> float:
    """compressed-tensors names the bits in groups of layers; the first stands for all."""
    group = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = group.get("weights") if isinstance(group, Mapping) else None
    value = weights.get("num_bits") if isinstance(weights, Mapping) else None
    return float(value) if isinstance(value, int) and LEAST_BITS <= value <= MOST_BITS else 0.0
