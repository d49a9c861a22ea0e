"""From model definitions to what plans are made from: memory need and load time, from history or estimated."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from django.db.models import F, Window, prefetch_related_objects
from django.db.models.functions import RowNumber

from gantry.planning import estimates
from gantry.planning.types import ModelSpec
from models_admin.estimated_need import estimate_for, estimated_bytes
from models_admin.models import LoadRecord, ModelDefinition, Runtime
from models_admin.step_times import StepTimes

LOADS_OF_A_MODEL = 10  # the latest that its expected time is taken from
FEW_MODELS = 4  # up to so many, a query for each is faster than one for all
LOADS_ON_A_HOST = 20  # the latest that a host's rate is taken from

# What the length of the context is called in the parameters of each kind of runtime.
CONTEXT_PARAMETER = {
    Runtime.Kind.LLAMA_SERVER: "ctx_size",
    Runtime.Kind.LLAMA_ROUTER: "ctx_size",
    Runtime.Kind.NULL: "ctx_size",
    Runtime.Kind.TABBY: "max_seq_len",
}

_History = Mapping[tuple[int, str], Sequence[LoadRecord]]  # by model and host, latest first


def parameters_for(model: ModelDefinition, context: int | None = None) -> dict[str, Any]:
    """What the model is loaded with: its definition's parameters, with another length of context for this one load if given."""
    if context is None:
        return dict(model.parameters)
    changed = {CONTEXT_PARAMETER[Runtime.Kind(model.runtime.kind)]: context}
    if "cache_size" in model.parameters:  # TabbyAPI's memory depends on this one, which holds at least one full context
        changed["cache_size"] = -(-context // 256) * 256
    return {**model.parameters, **changed}


def parameters_hash(model: ModelDefinition, parameters: Mapping[str, Any] | None = None) -> str:
    """SHA-256 (hex) over everything that decides what a load takes: file, parameters (the definition's unless given) and arguments."""
    given = model.parameters if parameters is None else dict(parameters)
    parts = [model.path, model.size_bytes, given, list(model.extra_args)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def with_context(model: ModelDefinition, context: int | None) -> ModelDefinition:
    """The model as it is to be loaded once, with another length of context. Not to be saved."""
    if context is None:
        return model
    other = copy.copy(model)
    other.parameters = parameters_for(model, context)
    return other


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of some models, as the ledgers tell at one moment."""

    specs: Mapping[int, ModelSpec]  # by primary key
    times: StepTimes


def expected_of(models: Iterable[ModelDefinition], host: str) -> Expected:
    """What loads of these models on the host take, and how long its other steps do. A few queries, however many models."""
    models = list(models)
    return _expected(models, dict.fromkeys((model.pk for model in models), host))


def spec_for(model: ModelDefinition, host: str) -> ModelSpec:
    """What a load of the model on the host takes. Three queries at most, beside those for its runtime and pool if they are not there."""
    return expected_of([model], host).specs[model.pk]


def need_of_context(model: ModelDefinition) -> Callable[[int], int] | None:
    """Bytes that the model would need with so many tokens of context; None where that cannot be worked out.

    What was measured with the definition's own context anchors the estimate: the difference is worked out, the rest was seen.
    """
    estimate = estimate_for(model)
    if estimate is None:
        return None
    known = spec_for(model, model.runtime.pool.host).need_bytes
    estimated = estimate(None).total_bytes

    def need(context: int) -> int:
        return max(0, known + estimate(context).total_bytes - estimated)

    return need


def specs_for(models: Iterable[ModelDefinition]) -> Mapping[int, ModelSpec]:
    """What loads of these models take, each on its own host, by primary key. A few queries, however many models."""
    models = list(models)
    prefetch_related_objects(models, "runtime__pool")
    return _expected(models, {model.pk: model.runtime.pool.host for model in models}).specs


def _expected(models: Sequence[ModelDefinition], hosts: Mapping[int, str]) -> Expected:
    hashes = {model.pk: parameters_hash(model) for model in models}
    history = _history(hashes, hosts)
    untimed = {hosts[model.pk] for model in models if not _timed(history.get((model.pk, hosts[model.pk]), ()))}
    rates = _rates(untimed) if untimed else {}
    times = StepTimes.of_hosts(hosts.values())
    specs = {
        model.pk: replace(
            _spec(model, history.get((model.pk, hosts[model.pk]), ()), rates.get(hosts[model.pk])),
            verify_seconds=times.verify_seconds(hosts[model.pk], model.pk),
        )
        for model in models
    }
    return Expected(specs, times)


def _spec(model: ModelDefinition, loads: Sequence[LoadRecord], rate: float | None) -> ModelSpec:
    measured = next((load.held_bytes for load in loads if load.held_bytes > 0), 0)
    timed = _timed(loads)
    return ModelSpec(
        model_id=model.model_id,
        name=model.name,
        need_bytes=estimates.need_from_history(measured) if measured else estimated_bytes(model),
        file_bytes=model.size_bytes,
        load_time=estimates.load_time_from_history(
            [load.load_seconds for load in timed], [load.reading_seconds for load in timed]
        )
        if timed
        else estimates.load_time_for_size(model.size_bytes, rate or estimates.DEFAULT_LOAD_RATE),
        is_measured=bool(measured),
        is_need_known=bool(measured or model.size_bytes or estimate_for(model)),
        devices=tuple(model.devices),
    )


def _timed(loads: Sequence[LoadRecord]) -> list[LoadRecord]:
    return [load for load in loads if load.load_seconds > 0]


def _history(hashes: Mapping[int, str], hosts: Mapping[int, str]) -> _History:
    """The latest loads of each model with its present parameters on its host, by model and host."""
    if len(hashes) <= FEW_MODELS:
        return {(pk, hosts[pk]): _latest_loads(pk, hashes[pk], hosts[pk]) for pk in hashes}
    latest = Window(RowNumber(), partition_by=[F("model_id"), F("parameters_hash"), F("host")], order_by=F("id").desc())
    records = (
        LoadRecord.objects.filter(
            model__in=hashes, parameters_hash__in=set(hashes.values()), host__in=set(hosts.values())
        )
        .annotate(nth=latest)
        .filter(nth__lte=LOADS_OF_A_MODEL)
        .order_by("-id")
    )
    loads: dict[tuple[int, str], list[LoadRecord]] = defaultdict(list)
    for record in records:
        if record.parameters_hash == hashes[record.model_id]:
            loads[record.model_id, record.host].append(record)
    return loads


def _latest_loads(pk: int, parameters: str, host: str) -> list[LoadRecord]:
    loads = LoadRecord.objects.filter(model=pk, parameters_hash=parameters, host=host)
    return list(loads.order_by("-id")[:LOADS_OF_A_MODEL])


def _rates(hosts: Iterable[str]) -> dict[str, float]:
    """Bytes per second at which each host has lately loaded models; a host that never did is left out."""
    latest = Window(RowNumber(), partition_by=[F("host")], order_by=F("id").desc())
    records = (
        LoadRecord.objects.filter(host__in=hosts, load_seconds__gt=0, file_bytes__gt=0)
        .annotate(nth=latest)
        .filter(nth__lte=LOADS_ON_A_HOST)
    )
    rates: dict[str, list[float]] = defaultdict(list)
    for host, file_bytes, seconds in records.values_list("host", "file_bytes", "load_seconds"):
        rates[host].append(file_bytes / seconds)
    return {host: median(values) for host, values in rates.items()}
