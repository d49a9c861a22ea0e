"""The live parts of the Models tab and of a switch's page as HTML: the same templates for page, htmx answer and socket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from django.template.loader import render_to_string

from gantry.live import JobSnapshot
from models_admin import overview, switch_requests
from models_admin.actor import Actor
from models_admin.audience import Audience
from models_admin.audit_words import audit_sentence
from models_admin.job_view import JobView, job_view
from models_admin.model_list import ListQuery, lines_of
from models_admin.models import ModelDefinition, SwitchJob
from models_admin.overview import MemoryView, ModelRow, Segment
from models_admin.plan_view import plan_view
from models_admin.runtime_access import lists_models
from models_admin.snapshots import job_snapshot

EVENTS_SHOWN = 500
_TINTS = 4  # neighbouring models in a memory bar differ in shade


@dataclass(frozen=True, slots=True)
class Part:
    """A segment in its place: `start` is percent of the bar, `tint` a shade."""

    segment: Segment
    start: float
    tint: int


def panel_context(job: JobSnapshot | None, target: ModelDefinition | None) -> dict[str, Any]:
    """What the panel above the list shows: the job that runs, or how the last one ended while that is news."""
    view = job_view(job) if job else None
    if view and view.job["is_finished"] and not view.is_failure and not view.is_recent():
        view = None
    return {"view": view, "target": target}


def memory_context(now: MemoryView) -> dict[str, Any]:
    """What the memory part shows: each pool with the parts of its bar in their places, the runtimes, and which list their models."""
    pools = [
        {
            "view": pool,
            "parts": _placed(pool.segments),
            "devices": [{"view": device, "parts": _placed(device.segments)} for device in pool.devices],
        }
        for pool in now.pools
    ]
    listing = {runtime.pk for runtime in now.runtimes if runtime.is_enabled and lists_models(runtime)}
    return {"pools": pools, "runtimes": now.runtimes, "listing": listing}


def render_job_update(job: JobSnapshot, audience: Audience) -> str:
    """The panel, and the sign in the target's row. Two small queries, and a third once it is loaded."""
    row = target_row(job)
    panel = _render("_panel.html", audience, panel_context(job, row.model if row else None), oob=True)
    return panel + (_render("_row_state.html", audience, {"row": row}, oob=True) if row else "")


def render_memory(now: MemoryView) -> str:
    """Memory bars and runtimes: the same for everybody."""
    return _render("_memory.html", None, memory_context(now), oob=True)


def render_requests(audience: Audience) -> str:
    """What people ask for and nobody has answered, for those who may answer; one query. Nothing for others."""
    return _render("_requests.html", audience, requests_context(audience), oob=True) if audience.may_answer else ""


def requests_context(audience: Audience) -> dict[str, Any]:
    """What the part about requests shows: nothing to those who may not answer them."""
    return {"requests": list(switch_requests.open_requests()) if audience.may_answer else []}


def render_list(rows: Sequence[ModelRow], audience: Audience) -> str:
    """The whole body of the list, by name; the browser narrows and sorts it again."""
    return _render("_rows.html", audience, {"lines": ListQuery().apply(lines_of(rows))}, oob=True)


def render_rows(rows: Sequence[ModelRow], audience: Audience) -> str:
    """Some rows of the list. Table rows must not stand beside other elements in one message: the HTML parser would drop them."""
    return "".join(_render("_row.html", audience, {"line": line}, oob=True) for line in lines_of(rows))


def render_present(audience_of: Callable[[JobSnapshot | None], Audience]) -> tuple[str, str]:
    """Everything as it is now, for a page that has just connected: first the parts outside of the table, then the table's body.

    Args:
        audience_of: callable that gives the audience for a job snapshot (or None).
    """
    now = overview.overview()
    job = now.job or now.last_job
    audience = audience_of(job)
    panel = _render("_panel.html", audience, panel_context(job, model_of(job, now.rows)), oob=True)
    return panel + render_requests(audience) + render_memory(now), render_list(now.rows, audience)


def job_story(job: SwitchJob, *, with_audit: bool) -> dict[str, Any]:
    """What a switch's page tells: four queries, whatever the job went through."""
    view: JobView = job_view(job_snapshot(job))
    newest = list(job.events.order_by("-seq")[:EVENTS_SHOWN])
    return {
        "job": job,
        "view": view,
        "target": job.target,
        "plan": plan_view(job.plan) if job.plan else None,
        "events": newest[::-1],
        "events_left_out": max(0, job.seq - len(newest)),
        "audit": [(entry, audit_sentence(entry)) for entry in job.audit_entries.order_by("id")] if with_audit else [],
    }


def find_job(pk: int) -> SwitchJob | None:
    """A job with what its page needs."""
    return SwitchJob.objects.select_related("target").filter(pk=pk).first()


def render_story(pk: int, audience: Audience, *, with_audit: bool) -> str:
    """The live part of a switch's page; empty when the job is gone."""
    job = find_job(pk)
    return _render("_job_story.html", audience, job_story(job, with_audit=with_audit), oob=True) if job else ""


def story_with_rights(pk: int, actor: Actor) -> str:
    """The live part of a switch's page as this actor may see it."""
    job = find_job(pk)
    if job is None:
        return ""
    audience = Audience.of(actor, job_snapshot(job))
    return render_story(pk, audience, with_audit=actor.may("view_auditentry"))


def target_row(job: JobSnapshot) -> ModelRow | None:
    """The row of the model that a job is about."""
    if not job["target_id"]:
        return None
    models = ModelDefinition.objects.with_runtime().filter(model_id=job["target_id"])
    return next(iter(overview.model_rows(job, models=list(models), with_people=True)), None)


def model_of(job: JobSnapshot | None, rows: Sequence[ModelRow]) -> ModelDefinition | None:
    """The model that a job is about, out of rows already read."""
    return next((row.model for row in rows if job and row.model.model_id == job["target_id"]), None)


def _placed(segments: Sequence[Segment]) -> list[Part]:
    starts = accumulate((segment.percent for segment in segments), initial=0.0)
    models = 0
    parts = []
    for segment, start in zip(segments, starts, strict=False):  # `starts` has one more: the end
        models += segment.kind == "model"
        parts.append(Part(segment, round(start, 2), models % _TINTS))
    return parts


def _render(template: str, audience: Audience | None, context: dict[str, Any], *, oob: bool) -> str:
    return render_to_string(f"models_admin/{template}", {**context, "audience": audience, "oob": oob})
