"""Jobs: make, foresee, list, read, cancel, and follow as they go."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Query, Status

from gantry.api import sse
from gantry.api.idempotency import PARAMETER
from gantry.api.v1.bodies import RowId
from gantry.api.v1.bodies_jobs import (
    Job,
    JobAnswer,
    JobDetail,
    JobIn,
    JobList,
    JobQuery,
    Preview,
    Wanted,
    job_body,
    job_detail,
    plan_body,
)
from gantry.api.v1.common import NotThere, actor_of, allowed, answers, new_router
from gantry.api.v1.decisions import answer_decision
from gantry.api.v1.wishes import foresee, request_job
from models_admin import actions, keys
from models_admin.actor import Actor
from models_admin.exceptions import NotAllowed
from models_admin.models import SwitchJob
from models_admin.plan_view import plan_view

router = new_router("Jobs")
_EVENT_STREAM = {
    "parameters": [
        {
            "in": "header",
            "name": "Last-Event-ID",
            "required": False,
            "schema": {"type": "string"},
            "description": "Number of the last event that was seen; the stream goes on behind it.",
        }
    ],
    "responses": {200: {"content": {sse.CONTENT_TYPE: {"schema": {"type": "string"}}}}},
}


@router.get("", response=answers({200: JobList}), operation_id="list_jobs", summary="List jobs")
def list_jobs(request: HttpRequest, query: Query[JobQuery]) -> dict[str, Any]:
    """Switches, unloads, restarts …, newest first. Needs the right to see switches."""
    allowed(request, "view_switchjob", "see switches")
    jobs = SwitchJob.objects.select_related("target").defer("log_tail").order_by("-id")
    jobs = jobs.unfinished() if query.unfinished else jobs
    given = {"kind": query.kind, "state": query.state, "target__model_id": query.model_id, "pk__lt": query.after}
    found = list(jobs.filter(**{name: value for name, value in given.items() if value})[: query.limit + 1])
    page = found[: query.limit]
    return {"items": [job_body(job) for job in page], "next": page[-1].pk if len(found) > query.limit else None}


@router.post(
    "",
    response=answers({200: JobAnswer, 201: JobAnswer}),
    operation_id="create_job",
    summary="Switch, unload, restart, load or call",
    openapi_extra=PARAMETER,
)
def create(request: HttpRequest, wanted: JobIn, response: HttpResponse) -> Status[Any]:
    """Have something done. 201: a new job does it. 200: one does it already, or there is nothing to do.

    409 `needs_confirmation`: nothing was done yet, because another switch is half done (`data.percent`) or because policy wants the
    plan (`data.plan`) confirmed. To confirm, send the same again with `confirm` true.
    429: too often or too soon; `Retry-After` and `data.retry_after` say in how many seconds it will work.
    """
    actor = allowed(request, "switch_model", "switch models")
    return answer_decision(request_job(wanted, actor), response)


@router.post("/preview", response=answers({200: Preview}), operation_id="preview_job", summary="Foresee a job")
def preview(request: HttpRequest, wanted: Wanted) -> dict[str, Any]:
    """What such a job would do now: what is unloaded, how long it takes, who has to wait. Nothing is done."""
    plan, taken_over = foresee(wanted, allowed(request, "switch_model", "switch models"))
    words = plan_view(plan.as_dict())
    return {
        "plan": plan_body(plan.as_dict()),
        "title": words.title,
        "wait_text": words.wait_text,
        "time_text": words.range_text,
        "takes_over_job": taken_over.pk if taken_over else None,
    }


@router.get("/{job_id}", response=answers({200: JobDetail}), operation_id="read_job", summary="Read a job")
def read(request: HttpRequest, job_id: RowId) -> dict[str, Any]:
    """A job as it is now. Whoever asked for it may read it; of others, whoever may see switches."""
    actor = actor_of(request)
    return job_detail(_find(job_id, actor), actor)


@router.post(
    "/{job_id}/cancel", response=answers({200: Job, 202: Job}), operation_id="cancel_job", summary="Cancel a job"
)
def cancel(request: HttpRequest, job_id: RowId) -> Status[Any]:
    """Ask a job to end; it puts back what it has unloaded. 202: asked. 200: it had ended before.

    Whoever asked for it may cancel it; those of others, whoever has the right to cancel any.
    """
    actor = actor_of(request)
    job = _find(job_id, actor)
    if job.is_finished:
        return Status(200, job_body(job))
    actions.cancel_job(job, actor=actor)
    return Status(202, job_body(_find(job_id, actor)))


@router.get(
    "/{job_id}/events",
    response=answers({200: None}),
    operation_id="follow_job",
    summary="Follow a job",
    openapi_extra=_EVENT_STREAM,
)
async def events(request: HttpRequest, job_id: RowId) -> StreamingHttpResponse:
    """Its events as server-sent events, from the first one on or behind `Last-Event-ID`, each once and in order.

    `progress`: something happened (seq, state, step_kind, percent, bytes, eta_seconds, text, at). `end`: the same of the last event,
    with the whole job as `job`; then the stream ends. A comment comes every 10 seconds when nothing happens. Leaving does not cancel.
    """
    actor = actor_of(request)
    await sync_to_async(_find)(job_id, actor)
    after = sse.last_event_id(request.headers)
    pieces = sse.follow_as_text(sse.follow_job(job_id, after=after))
    return sse.stream(sse.while_allowed(pieces, lambda: _find(job_id, keys.recheck(actor))))


def _find(job_id: int, actor: Actor) -> SwitchJob:
    """The job, for whoever may see it.

    Raises:
        NotAllowed, NotThere: as the names say; without the right to see switches nobody learns which there are.
    """
    job = SwitchJob.objects.select_related("target").filter(pk=job_id).first()
    is_own = job is not None and actor.user is not None and job.requested_by_id == actor.user.pk
    if not (actor.may("view_switchjob") or (is_own and actor.has_scope("status"))):
        raise NotAllowed("You may not see this switch.", "Ask an administrator.")
    if job is None:
        raise NotThere(f"There is no job {job_id}.", "GET /api/v1/jobs lists them.")
    return job
