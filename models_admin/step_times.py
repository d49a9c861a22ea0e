"""How long unloads, waits for memory and first tokens take on a host: learned from the steps of jobs that ended well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Self

from django.db.models import F, Window
from django.db.models.functions import RowNumber

from gantry.planning.states import StepKind, StepState
from models_admin.models import ModelDefinition, StepRecord, SwitchJob

STEPS_LOOKED_AT = 10  # the latest of a kind and model
KEPT_KINDS = (StepKind.UNLOAD, StepKind.FREE, StepKind.VERIFY)  # loads are in LoadRecord, drains depend on people

# Before anything was seen on a host.
UNLOAD_SECONDS = 1.0
FREE_SECONDS = 0.3
VERIFY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Usual seconds by host, kind and model, with the median over all models of a host behind it."""

    seconds: Mapping[tuple[str, str, int | None], Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of_hosts(cls, hosts: Iterable[str]) -> Self:
        """The latest steps of these hosts. One query."""
        latest = Window(RowNumber(), partition_by=[F("host"), F("kind"), F("model_id")], order_by=F("id").desc())
        rows = (
            StepRecord.objects.filter(host__in=set(hosts))
            .annotate(nth=latest)
            .filter(nth__lte=STEPS_LOOKED_AT)
            .values_list("host", "kind", "model_id", "seconds")
        )
        seconds: dict[tuple[str, str, int | None], list[float]] = defaultdict(list)
        for host, kind, model, took in rows:
            seconds[host, kind, model].append(took)
        return cls(dict(seconds))

    def unload_seconds(self, host: str, model: int) -> float:
        """Until the model is gone."""
        return self._usual(host, StepKind.UNLOAD, model, UNLOAD_SECONDS)

    def verify_seconds(self, host: str, model: int) -> float:
        """Until the model's first token."""
        return self._usual(host, StepKind.VERIFY, model, VERIFY_SECONDS)

    def free_seconds(self, host: str) -> float:
        """Until the memory of what was unloaded shows as free."""
        return self._usual(host, StepKind.FREE, None, FREE_SECONDS)

    def _usual(self, host: str, kind: StepKind, model: int | None, otherwise: float) -> float:
        own = self.seconds.get((host, kind.value, model))
        if own:
            return median(own)
        others = [took for (at, of, _), all_ in self.seconds.items() if (at, of) == (host, kind.value) for took in all_]
        return median(others) if others else otherwise


def record_steps(job: SwitchJob) -> None:
    """Keep what the steps of a job took that are done. Called once, when the job has ended."""
    done = [step for step in job.steps if step["state"] == StepState.DONE and step["kind"] in KEPT_KINDS]
    ids = dict(
        ModelDefinition.objects.filter(model_id__in={step.get("model_id") for step in done}).values_list(
            "model_id", "pk"
        )
    )
    StepRecord.objects.bulk_create(
        StepRecord(
            host=job.pool.host,
            model_id=ids.get(step.get("model_id", "")),
            kind=step["kind"],
            seconds=step["seconds"] or 0.0,
        )
        for step in done
        if step["kind"] == StepKind.FREE or step.get("model_id") in ids
    )
