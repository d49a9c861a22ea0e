"""What Gantry wrote down about its jobs, read once at the end so that nobody looks over its shoulder while it works."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.functional.stack import Stack

_DUMP = """
import json
from models_admin.models import SwitchJob
def at(moment): return moment.timestamp() if moment else None
print(json.dumps([{
    "id": job.pk, "created_at": at(job.created_at), "started_at": at(job.started_at), "finished_at": at(job.finished_at),
    "steps": job.plan.get("steps", []), "done": [step for step in job.steps if step["started_at"]],
    "events": [
        {"kind": e.step_kind, "state": e.state, "percent": e.percent, "eta_seconds": e.eta_seconds, "at": at(e.at)}
        for e in job.events.order_by("seq")
    ],
} for job in SwitchJob.objects.filter(state="succeeded").prefetch_related("events")]))
"""
_MODELS = """
import json
from models_admin.models import ModelDefinition, ModelInstance, Runtime
pids = dict(ModelInstance.objects.values_list("model__model_id", "pid"))
print(json.dumps({
    "models": [
        {"pk": model.pk, "model_id": model.model_id, "pid": pids.get(model.model_id)}
        for model in ModelDefinition.objects.order_by("pk")
    ],
    "version": Runtime.objects.get().version,
}))
"""


@dataclass(frozen=True, slots=True)
class Model:
    """A definition, and the process that holds it now."""

    pk: int
    model_id: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class Event:
    """One stored event of a job; `at` in seconds since the epoch."""

    kind: str  # of its step, "" between steps
    state: str
    percent: float
    eta_seconds: float | None
    at: float


@dataclass(frozen=True, slots=True)
class Job:
    """A job that ended well; instants in seconds since the epoch."""

    id: int
    created_at: float
    started_at: float
    finished_at: float
    expected_seconds: dict[str, float]  # by kind of step, in order
    events: tuple[Event, ...]
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # by kind: when its steps began and ended

    def told(self, kind: str) -> tuple[float, float]:
        """When the first and the last word of the steps of a kind came."""
        instants = [event.at for event in self.events if event.kind == kind]
        return min(instants), max(instants)


def read_models(stack: Stack) -> tuple[list[Model], str]:
    """All models, and which llama-server it is."""
    found = _ask(stack, _MODELS)
    return [Model(**row) for row in found["models"]], found["version"]


def read_jobs(stack: Stack) -> dict[int, Job]:
    """All jobs that ended well, by number."""
    return {row["id"]: _job(row) for row in _ask(stack, _DUMP)}


def _job(row: dict[str, Any]) -> Job:
    expected: dict[str, float] = {}
    for step in row.pop("steps"):
        expected[step["kind"]] = expected.get(step["kind"], 0.0) + step["expected_seconds"]
    events = tuple(Event(**event) for event in row.pop("events"))
    spans = _spans(row.pop("done"))
    return Job(**row, expected_seconds=expected, events=events, spans=spans)


def _spans(steps: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    spans: dict[str, tuple[float, float]] = {}
    for step in steps:
        begun = datetime.fromisoformat(step["started_at"]).timestamp()
        first, last = spans.get(step["kind"], (begun, begun))
        spans[step["kind"]] = min(first, begun), max(last, begun + step["seconds"])
    return spans


def _ask(stack: Stack, script: str) -> Any:
    done = stack.manage("shell", "-v", "0", "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
