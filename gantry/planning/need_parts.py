"""The memory that a model needs, part by part, as it is shown to people."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gantry.planning import estimates
from gantry.planning.estimates import LoadSettings, ModelFacts


@dataclass(frozen=True, slots=True)
class NeedParts:
    """What an estimate is made of, in bytes."""

    weight_bytes: int
    cache_bytes: int  # keys and values, and the state of recurrent layers
    compute_bytes: int  # for what is being computed
    process_bytes: int  # the program itself
    margin_bytes: int

    @property
    def total_bytes(self) -> int:
        """The estimate."""
        return self.weight_bytes + self.cache_bytes + self.compute_bytes + self.process_bytes + self.margin_bytes


def with_margin(weight_bytes: int, cache_bytes: int, compute_bytes: int, process_bytes: int) -> NeedParts:
    """The parts with the usual margin on top of them."""
    total = weight_bytes + cache_bytes + compute_bytes + process_bytes
    return NeedParts(weight_bytes, cache_bytes, compute_bytes, process_bytes, int(total * estimates.MARGIN))


def parts_for_llama(facts: ModelFacts, settings: LoadSettings, *, is_ram: bool) -> NeedParts:
    """What `estimates.estimate_need` is made of; the sum is its result.

    The cache is what the estimate loses when no layer keeps anything, so that both always agree on which share of it counts.
    """
    total = estimates.estimate_need(facts, settings, is_ram=is_ram)
    bare = replace(facts, kv_heads=(0,) * facts.layer_count, recurrent_bytes=0)
    cache = int((total - estimates.estimate_need(bare, settings, is_ram=is_ram)) / (1 + estimates.MARGIN))
    compute = estimates.compute_bytes(facts, settings)
    process = estimates.PROCESS_BYTES_DEVICE
    if is_ram:
        process = estimates.PROCESS_BYTES_RAM + facts.vocabulary_size * estimates.WORD_BYTES
    margin = total - int(total / (1 + estimates.MARGIN))
    return NeedParts(total - cache - compute - process - margin, cache, compute, process, margin)
