"""`manage.py status`: what the Models tab shows, in a terminal or as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db.utils import DatabaseError
from typing_extensions import override

from gantry.live import JobSnapshot
from gantry.planning.states import ModelState
from models_admin.models import Runtime
from models_admin.overview import ModelRow, Overview, PoolView, overview
from models_admin.templatetags.gantry_format import gigabytes, seconds, seconds_left


class Command(BaseCommand):
    """Prints memory, runtimes, the job at work and the models, from the records.

    With --json, one object; keys are only ever added, sizes are in bytes, times in seconds, instants in ISO 8601:

    memory      [{host, name, kind, total_bytes, free_bytes, held_bytes, others_bytes, checked_at}]
    runtimes    [{name, kind, host, is_enabled, is_healthy, version, detail, checked_at}]
    job         the unfinished job as `gantry.live.JobSnapshot`, or null
    last_job    the same of the last one that ended, when none is unfinished, or null
    active      id of the model that answers now, or null
    models      [{id, name, state, words, percent, size_bytes, held_bytes, quantization, parameters, context_length,
                  description, tags, is_pinned, usual_load_seconds, pid}]
    """

    help = "Show memory, runtimes, the running switch and all models, as the Models tab does."

    @override
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="as one JSON object with stable keys")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            view = overview()
        except DatabaseError as exc:
            raise CommandError(f"The database cannot be read ({exc}): start Gantry once with `manage.py up`.") from exc
        text = json.dumps(as_json(view), indent=2, default=str) if options["json"] else "\n".join(as_lines(view))
        self.stdout.write(text)


def as_json(view: Overview) -> dict[str, Any]:
    """The overview as data; `Command` describes the keys."""
    return {
        "memory": [_pool_json(item) for item in view.pools],
        "runtimes": [_runtime_json(row) for row in view.runtimes],
        "job": view.job,
        "last_job": view.last_job,
        "active": view.active.model.model_id if view.active else None,
        "models": [_model_json(row) for row in view.rows],
    }


def as_lines(view: Overview) -> Iterator[str]:
    """The overview for people."""
    for item in view.pools:
        yield _pool_line(item)
    for runtime in view.runtimes:
        yield _runtime_line(runtime)
    if view.job:
        yield _job_line(view.job)
    yield ""
    yield from _table(
        ["Model", "State", "Size", "Quantisation", "Parameters", "Tags"], [_cells(row) for row in view.rows]
    )
    if not view.rows:
        yield "No models yet: scan a folder or import a models.yaml under Models."


def _pool_json(item: PoolView) -> dict[str, Any]:
    pool = item.pool
    names = ("host", "name", "kind", "total_bytes", "free_bytes", "held_bytes", "others_bytes")
    return {**{name: getattr(pool, name) for name in names}, "checked_at": _instant(pool.checked_at)}


def _runtime_json(row: Runtime) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "host": row.pool.host,
        "is_enabled": row.is_enabled,
        "is_healthy": row.is_healthy,
        "version": row.version,
        "detail": row.health_text,
        "checked_at": _instant(row.checked_at),
    }


def _model_json(row: ModelRow) -> dict[str, Any]:
    model, instance = row.model, row.instance
    return {
        "id": model.model_id,
        "name": model.name,
        "state": row.state.value,
        "words": row.words,
        "percent": row.percent,
        "size_bytes": model.size_bytes,
        "held_bytes": instance.held_bytes if instance else 0,
        "quantization": model.quantization,
        "parameters": model.parameter_label,
        "context_length": model.context_length,
        "description": model.description,
        "tags": model.tags,
        "is_pinned": model.is_pinned,
        "usual_load_seconds": row.usual_load_seconds,
        "pid": instance.pid if instance else None,
    }


def _instant(value: Any) -> str | None:
    return value.isoformat() if value else None


def _pool_line(item: PoolView) -> str:
    pool = item.pool
    if not pool.checked_at:
        return f"Memory    {pool.host}: not looked at yet; its worker does that"
    parts = [f"{segment.name} {gigabytes(segment.size_bytes)}" for segment in item.segments]
    return f"Memory    {pool}: {gigabytes(item.used_bytes)} of {gigabytes(pool.total_bytes)} used ({', '.join(parts)})"


def _runtime_line(row: Runtime) -> str:
    if not row.is_enabled:
        return f"Runtime   {row.name}: switched off"
    if row.is_healthy:
        return f"Runtime   {row.name}: ready {row.version}".rstrip()
    return f"Runtime   {row.name}: {row.health_text or 'not looked at yet'}"


def _job_line(job: JobSnapshot) -> str:
    verb = {"unload": "Unloading", "restart": "Restarting"}.get(job["kind"], "Switching to")
    left = "time left unknown" if job["eta_seconds"] is None else f"about {seconds_left(job['eta_seconds'])} left"
    return f"Job {job['id']:<5} {verb} {job['target_name']}: {job['stage_text']}, {job['percent']} %, {left}"


def _cells(row: ModelRow) -> list[str]:
    model = row.model
    usual = (
        f", loads in {seconds(row.usual_load_seconds)}"
        if row.state == ModelState.IDLE and row.usual_load_seconds
        else ""
    )
    return [
        model.name,
        (row.words + usual).removeprefix(", "),
        gigabytes(model.size_bytes) if model.size_bytes else "",
        model.quantization,
        model.parameter_label,
        ", ".join(model.tags),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    for line in [head, *rows] if rows else []:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
