"""How well times were foretold: what was expected of each job and load beside what it took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from gantry.planning.states import JobState
from models_admin.models import LoadRecord, SwitchJob

SHOWN = 200  # the latest jobs, and the latest loads


@dataclass(frozen=True, slots=True)
class Foretold:
    """One expectation and what came of it, in seconds."""

    at: datetime
    name: str
    expected: float
    took: float
    url: str = ""

    @property
    def error_percent(self) -> float:
        """How far it was off, in percent of what it took: above 0 when it was foretold too long."""
        return 100.0 * (self.expected - self.took) / self.took if self.took else 0.0


@dataclass(frozen=True, slots=True)
class ModelTimes:
    """The loads of one model, in seconds; errors are medians of the absolute error in percent."""

    name: str
    loads: int
    usual_seconds: float
    error_before: float | None  # of what was foretold before the load began
    error_at_quarter: float | None  # of what was foretold when a quarter of it was done


def jobs_foretold() -> list[Foretold]:
    """The latest jobs that ended well, oldest first. One query."""
    jobs = (
        SwitchJob.objects.filter(
            state=JobState.SUCCEEDED, expected_seconds__gt=0, started_at__isnull=False, finished_at__isnull=False
        )
        .only("target_name", "expected_seconds", "started_at", "finished_at")
        .order_by("-id")[:SHOWN]
    )
    return [
        Foretold(
            at=job.finished_at,
            name=job.target_name,
            expected=job.expected_seconds,
            took=(job.finished_at - job.started_at).total_seconds(),
            url=job.get_absolute_url(),
        )
        for job in reversed(jobs)
        if job.started_at and job.finished_at
    ]


def models_foretold() -> list[ModelTimes]:
    """The models that were loaded lately, by name. One query."""
    loads: dict[str, list[LoadRecord]] = defaultdict(list)
    for load in LoadRecord.objects.filter(load_seconds__gt=0).select_related("model").order_by("-id")[:SHOWN]:
        loads[load.model.name].append(load)
    return [_times(name, loads[name]) for name in sorted(loads, key=str.casefold)]


def median_error(foretold: Sequence[Foretold]) -> float | None:
    """Median of the absolute error in percent; None when nothing was foretold."""
    return median(abs(one.error_percent) for one in foretold) if foretold else None


def _times(name: str, loads: Sequence[LoadRecord]) -> ModelTimes:
    before = [
        Foretold(load.at, name, load.expected_seconds, load.load_seconds) for load in loads if load.expected_seconds
    ]
    at_quarter = [
        Foretold(load.at, name, load.at_quarter_seconds, load.load_seconds)
        for load in loads
        if load.at_quarter_seconds is not None
    ]
    return ModelTimes(
        name=name,
        loads=len(loads),
        usual_seconds=median(load.load_seconds for load in loads),
        error_before=median_error(before),
        error_at_quarter=median_error(at_quarter),
    )
