"""What a model would need that nobody has measured: the arithmetic of the runtime that loads it, with the definition's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gantry.planning import estimates, estimates_hf
from gantry.planning.need_parts import NeedParts, parts_for_llama
from gantry.runtimes.llama_parameters import validate_parameters
from gantry.runtimes.typed_fields import ParameterInvalid
from models_admin.models import ModelDefinition, Runtime

Estimate = Callable[[int | None], NeedParts]  # by tokens of context; None: as the definition says


def estimated_parts(model: ModelDefinition) -> NeedParts | None:
    """What the estimate of the model's need is made of; None when only its size is known. Needs its runtime and pool."""
    estimate = estimate_for(model)
    return estimate(None) if estimate else None


def estimated_bytes(model: ModelDefinition) -> int:
    """Bytes that the model should need, as well as it can be told."""
    parts = estimated_parts(model)
    return parts.total_bytes if parts else estimates.estimate_need_from_size(model.size_bytes)


def estimate_for(model: ModelDefinition) -> Estimate | None:
    """The estimate as a function of the context; None when the file was not read, or the parameters make no sense."""
    facts = estimates.ModelFacts.from_dict(model.metadata.get("memory"))
    if facts is None:
        return None
    if model.runtime.kind == Runtime.Kind.TABBY:
        return _tabby_estimate(facts, model.parameters)
    return _llama_estimate(facts, model.parameters, is_ram=model.runtime.pool.kind != "nvml")


def _llama_estimate(facts: estimates.ModelFacts, parameters: Mapping[str, Any], *, is_ram: bool) -> Estimate | None:
    try:
        given = validate_parameters(parameters).as_dict()
    except ParameterInvalid:  # they were checked when they were given
        return None
    names = estimates.LoadSettings.__dataclass_fields__
    settings = estimates.LoadSettings(**{name: value for name, value in given.items() if name in names})

    def estimate(context: int | None) -> NeedParts:
        chosen = settings if context is None else replace(settings, ctx_size=context)
        return parts_for_llama(facts, chosen, is_ram=is_ram)

    return estimate


def _tabby_estimate(facts: estimates.ModelFacts, parameters: Mapping[str, Any]) -> Estimate:
    defaults = estimates_hf.TabbySettings()
    settings = estimates_hf.TabbySettings(
        max_seq_len=_whole(parameters, "max_seq_len", defaults.max_seq_len),
        cache_size=_whole(parameters, "cache_size", defaults.cache_size),
        cache_mode=str(parameters.get("cache_mode") or defaults.cache_mode),
        chunk_size=_whole(parameters, "chunk_size", defaults.chunk_size),
    )

    def estimate(context: int | None) -> NeedParts:
        # A smaller context saves memory only when the cache shrinks with it.
        chosen = settings if context is None else replace(settings, max_seq_len=context, cache_size=0)
        return estimates_hf.tabby_parts(facts, chosen)

    return estimate


def _whole(parameters: Mapping[str, Any], name: str, default: int) -> int:
    value = parameters.get(name)
    return value if type(value) is int and value > 0 else default
