"""From model definitions to what plans are made from: memory need and load time, from history or estimated."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from django.db.models import F, Window, prefetch_related_objects
from django.db.models.functions import RowNumber

from gantry.planning import estimates
from gantry.planning.types import ModelSpec
from gantry.runtimes.llama_parameters import validate_parameters
from gantry.runtimes.typed_fields import ParameterInvalid
from models_admin.models import LoadRecord, ModelDefinition

LOADS_OF_A_MODEL = 10  # the latest that its expected time is taken from
LOADS_ON_A_HOST = 20  # the latest that a host's rate is taken from

_History = Mapping[tuple[int, str], Sequence[LoadRecord]]  # by model and host, latest first


def parameters_hash(model: ModelDefinition) -> str:
    """SHA-256 (hex) over everything that decides what a load takes: file, parameters and arguments."""
    parts = [model.path, model.size_bytes, model.parameters, list(model.extra_args)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def spec_for(model: ModelDefinition, host: str) -> ModelSpec:
    """What a load of the model on the host takes. Two queries, beside those for its runtime and pool if they are not there."""
    return _specs([model], {model.pk: host})[model.pk]


def specs_for(models: Iterable[ModelDefinition]) -> dict[int, ModelSpec]:
    """What loads of these models take, each on its own host, by primary key. Four queries at most, however many models."""
    models = list(models)
    prefetch_related_objects(models, "runtime__pool")
    return _specs(models, {model.pk: model.runtime.pool.host for model in models})


def _specs(models: Sequence[ModelDefinition], hosts: Mapping[int, str]) -> dict[int, ModelSpec]:
    hashes = {model.pk: parameters_hash(model) for model in models}
    history = _history(hashes, hosts)
    rates = _rates(set(hosts.values()))
    return {
        model.pk: _spec(model, history.get((model.pk, hosts[model.pk]), ()), rates.get(hosts[model.pk]))
        for model in models
    }


def _spec(model: ModelDefinition, loads: Sequence[LoadRecord], rate: float | None) -> ModelSpec:
    measured = next((load.held_bytes for load in loads if load.held_bytes > 0), 0)
    seconds = [load.load_seconds for load in loads if load.load_seconds > 0]
    return ModelSpec(
        model_id=model.model_id,
        name=model.name,
        need_bytes=estimates.need_from_history(measured) if measured else _estimated_need(model),
        file_bytes=model.size_bytes,
        load_time=estimates.load_time_from_history(seconds)
        if seconds
        else estimates.load_time_for_size(model.size_bytes, rate or estimates.DEFAULT_LOAD_RATE),
        is_measured=bool(measured),
    )


def _estimated_need(model: ModelDefinition) -> int:
    facts = estimates.ModelFacts.from_dict(model.metadata.get("memory"))
    settings = _load_settings(model)
    if facts is None or settings is None:
        return estimates.estimate_need_from_size(model.size_bytes)
    return estimates.estimate_need(facts, settings, is_ram=model.runtime.pool.kind != "nvml")


def _load_settings(model: ModelDefinition) -> estimates.LoadSettings | None:
    """None when the definition's parameters make no sense; they were checked when they were given."""
    try:
        given = validate_parameters(model.parameters).as_dict()
    except ParameterInvalid:
        return None
    names = estimates.LoadSettings.__dataclass_fields__
    return estimates.LoadSettings(**{name: value for name, value in given.items() if name in names})


def _history(hashes: Mapping[int, str], hosts: Mapping[int, str]) -> _History:
    """The latest loads of each model with its present parameters on its host, by model and host."""
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
