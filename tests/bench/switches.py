"""Cold switches: the same two models in turn, through Gantry and by a bare script, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.bare import BareScript, BareSwitch, Recipe
from tests.bench.person import Click, Person
from tests.bench.rows import Job, Model, read_jobs, read_models
from tests.functional.stack import Stack, start_stack

AIM = 1.02  # of the medians, Gantry to bare
# Stages of a switch, in the order in which they pass, and what does the same in the bare script.
STAGES = ("request", "waiting", "planning", "drain", "unload", "free", "load", "verify", "rest", "shown")
SAME_IN_BARE = {"unload": "stop", "load": "load", "verify": "verify"}
MEANING = {
    "request": "from the click until the job is written down",
    "waiting": "until the worker has taken it",
    "planning": "until the first step",
    "rest": "between the steps, and until the job has ended",
    "shown": "until the page says so",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """The same switch both ways."""

    to: str  # the model's id
    gantry: Click
    bare: BareSwitch


def measure(folder: Path, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Do `count` switches each way, interleaved, so that a machine that slows down slows both. Gives the figures."""
    # The demo's own memory: room for one of the two, so every switch is a cold one.
    stack = start_stack(folder / "data", {"GANTRY_MEMORY": ""}, ["--demo"])
    try:
        pairs, version = _alternate(stack, folder, count, say)
        jobs = read_jobs(stack)
    finally:
        stack.stop()
    return {"llama_server": version, **_figures(pairs, jobs)}


def _alternate(stack: Stack, folder: Path, count: int, say: Callable[[str], None]) -> tuple[list[Pair], str]:
    bare = BareScript(folder / "bare.log")
    try:
        with Person(stack.url) as person:
            recipes, version = _learn(stack, person, folder)
            (first, _), (second, _) = recipes.items()
            bare.switch(recipes[second])  # both hold the one that was loaded last
            pairs = []
            for number in range(count):
                to = (first, second)[number % 2]
                pairs.append(Pair(to.model_id, person.switch(to.pk), bare.switch(recipes[to])))
                say(
                    f"switch {number + 1} of {count}: {pairs[-1].gantry.seconds:.2f} s, {pairs[-1].bare.seconds:.2f} s bare"
                )
            return pairs, version
    finally:
        bare.close()


def _learn(stack: Stack, person: Person, folder: Path) -> tuple[dict[Model, Recipe], str]:
    """Load each model once: then their command lines are known, and their files in the page cache."""
    recipes = {}
    models, version = read_models(stack)
    for model in models:
        person.switch(model.pk)
        loaded = [row for row in read_models(stack)[0] if row.pid]
        assert [row.pk for row in loaded] == [model.pk], "the models fit together: the switch is not cold"
        recipes[model] = Recipe.of(loaded[0].pid or 0, folder)
    return recipes, version


def stages_of(click: Click, job: Job) -> dict[str, float]:
    """Where the time of a switch went, in seconds; all stages together are what its asker waited."""
    spans = job.spans
    first, last = min(start for start, _ in spans.values()), max(end for _, end in spans.values())
    worked = {kind: end - start for kind, (start, end) in spans.items()}
    between = last - first - sum(worked.values())
    return {
        "request": job.created_at - click.asked_at,
        "waiting": job.started_at - job.created_at,
        "planning": first - job.started_at,
        **worked,
        "rest": between + job.finished_at - last,
        "shown": click.shown_at - job.finished_at,
    }


def to_token(click: Click, job: Job) -> float:
    """Seconds until the model has given its first token, which is where the bare script ends; what follows is the telling."""
    return job.spans["verify"][1] - click.asked_at


def _figures(pairs: list[Pair], jobs: dict[int, Job]) -> dict[str, Any]:
    """By target, for the two take so differently long that a median over both says nothing; and a whole round from those."""
    directions = {
        to: _direction([pair for pair in pairs if pair.to == to], jobs) for to in dict.fromkeys(p.to for p in pairs)
    }
    gantry, token, bare = (
        sum(figures[key]["median"] for figures in directions.values())
        for key in ("gantry_seconds", "gantry_seconds_to_token", "bare_seconds")
    )
    return {
        "count": len(pairs),
        "directions": directions,
        "round_seconds": {"gantry": round(gantry, 4), "gantry_to_token": round(token, 4), "bare": round(bare, 4)},
        "ratio": round(gantry / bare, 4),
        "ratio_to_token": round(token / bare, 4),
        "aim": AIM,
        "pairs": [
            {
                "to": pair.to,
                "gantry_seconds": round(pair.gantry.seconds, 4),
                "bare_seconds": round(pair.bare.seconds, 4),
            }
            for pair in pairs
        ],
    }


def _direction(pairs: list[Pair], jobs: dict[int, Job]) -> dict[str, Any]:
    rows = [jobs[pair.gantry.job] for pair in pairs]
    gantry, bare = [pair.gantry.seconds for pair in pairs], [pair.bare.seconds for pair in pairs]
    stages = [stages_of(pair.gantry, row) for pair, row in zip(pairs, rows, strict=True)]
    unforeseen = sorted({name for row in stages for name in row} - set(STAGES))
    return {
        "count": len(pairs),
        "gantry_seconds": spread(gantry),
        "gantry_seconds_to_token": spread([to_token(pair.gantry, row) for pair, row in zip(pairs, rows, strict=True)]),
        "bare_seconds": spread(bare),
        "ratio": round(median(gantry) / median(bare), 4),
        "stages": {
            name: _stage(name, stages, pairs)
            for name in (*STAGES[:-2], *unforeseen, *STAGES[-2:])
            if any(name in row for row in stages)
        },
    }


def _stage(name: str, stages: list[dict[str, float]], pairs: list[Pair]) -> dict[str, float]:
    gantry = median(row.get(name, 0.0) for row in stages)
    bare = median(getattr(pair.bare, SAME_IN_BARE[name]) for pair in pairs) if name in SAME_IN_BARE else 0.0
    return {"gantry_seconds": round(gantry, 4), "bare_seconds": round(bare, 4)}


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": round(median(values), 4), "least": round(min(values), 4), "most": round(max(values), 4)}
