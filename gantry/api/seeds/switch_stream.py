"""A switch as a stream of server-sent events: `stage`, `progress`, and at the end `complete` or `error`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from channels.db import database_sync_to_async
from django.http.response import HttpResponseBase
from ninja import Query, Router, Schema
from pydantic import Field

from gantry.api import sse, status_cache
from gantry.api.auth import ApiRequest
from gantry.api.errors import ERRORS
from gantry.api.seeds.asking import CONFIRM_DESCRIPTION, ask_switch
from gantry.api.sse import JobUpdate
from gantry.api.ws_messages import ModelId
from gantry.live import JobSnapshot, StepSnapshot
from gantry.planning.states import ErrorCode, JobState, StepKind
from models_admin import actions, keys
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused, DoesNotFitNow
from models_admin.models import SwitchJob

log = structlog.get_logger(__name__)
router = Router(tags=["Models and switching"])

CANCEL_HEADER = "X-Cancel-On-Disconnect"
_WORDS: dict[str, str] = {
    StepKind.DRAIN: "unloading",
    StepKind.UNLOAD: "unloading",
    StepKind.FREE: "unloading",
    StepKind.VERIFY: "initializing",
}  # of progress; else: loading
_DESCRIPTION = f"""
Answers with `text/event-stream`, as it happens. `progress` is percent of the whole switch and never falls.

| event | data |
|---|---|
| `stage` | `{{"stage": "checking_memory", "progress": 0}}`: always first |
| `stage` | `{{"stage": "unloading_models", "progress", "unloading": [ids of all models that go]}}`: when something is unloaded |
| `progress` | `{{"stage": "unloading", "progress", "model", "eta"}}`: a model finishes its answers, is unloaded, its memory comes back |
| `stage` | `{{"stage": "loading_target", "progress", "model"}}` |
| `progress` | `{{"stage": "loading", "progress", "model", "eta"}}`; then with `"stage": "initializing"` until the first word came |
| `stage` | `{{"stage": "restoring", "progress", "model"}}`: it failed or was cancelled, and what was unloaded is put back |
| `complete` | `{{"status": "success" or "already_loaded", "model", "total_time_seconds"}}`: the last one |
| `error` | `{{"error": code, "message", "hint"}}`: the last one instead; with `insufficient_memory` also `required_gb`, `available_gb` and `can_free_gb`, null where nobody knows |

`eta` is seconds until the end, null when nobody knows. Models load first and are unloaded afterwards where both fit. A comment is sent
after ten seconds without an event. What is refused at once (unknown model, no right, too often, confirmation needed …) has its HTTP
status and the shape of all refusals, except `insufficient_memory`, which is an `error` event. Whoever asks for a switch that is under
way already gets its events from the beginning.

The client leaving does not cancel the switch, unless it was asked to: `?cancel_on_disconnect=true`, or the header `{CANCEL_HEADER}: true`.
A switch that somebody else asked for is cancelled so only by those who may cancel everybody's.
"""
_OPENAPI: dict[str, Any] = {
    "parameters": [
        {
            "in": "header",
            "name": CANCEL_HEADER,
            "required": False,
            "schema": {"type": "string"},
            "description": "`true`: the same as `cancel_on_disconnect`.",
        }
    ],
    "responses": {200: {"description": "The events.", "content": {sse.CONTENT_TYPE: {"schema": {"type": "string"}}}}},
}


class TargetModel(Schema):
    """Which model is to serve."""

    target_model: ModelId = Field(description="Its id.", examples=["gpt-oss-120b"])
    confirm: bool = Field(False, description=CONFIRM_DESCRIPTION)


@router.post(
    "/v1/models/switch",
    response=ERRORS,
    operation_id="switch_stream",
    summary="Switch to a model and follow it",
    description=_DESCRIPTION,
    openapi_extra=_OPENAPI,
)
async def switch(
    request: ApiRequest,
    wanted: TargetModel,
    cancel_on_disconnect: Annotated[
        bool, Query(False, description="The switch is cancelled when the client leaves before its end.")
    ],
) -> HttpResponseBase:
    """Begin, and answer with the stream."""
    try:
        model, decision = await ask_switch(request.auth, wanted.target_model, confirm=wanted.confirm)
    except DoesNotFitNow as exc:
        return sse.stream(_one_after_another(_checking(), sse.encode("error", _does_not_fit(exc))))
    if decision.job is None:
        complete = {"status": "already_loaded", "model": model.model_id, "total_time_seconds": 0}
        return sse.stream(_one_after_another(_checking(), sse.encode("complete", complete)))
    pieces = sse.while_allowed(_follow(decision.job.pk), lambda: keys.recheck(request.auth), _not_any_more)
    if cancel_on_disconnect or request.headers.get(CANCEL_HEADER, "").strip().lower() == "true":
        pieces = _cancelling(pieces, decision.job, request.auth)
    return sse.stream(pieces)


def _not_any_more(exc: ActionRefused) -> str:
    return sse.encode("error", {"error": exc.code, "message": str(exc), "hint": exc.hint})


async def _one_after_another(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


async def _follow(job_id: int) -> AsyncGenerator[str]:
    """The events of a job as they are written, from its first to its last."""
    translation = Translation()
    yield _checking()
    async with aclosing(sse.follow_job(job_id)) as updates:
        async for update in updates:
            if update is None:
                yield sse.KEEP_ALIVE
                continue
            if update.is_last:
                status_cache.forget()
            for name, data in translation.of(update):
                yield sse.encode(name, data)


async def _cancelling(pieces: AsyncGenerator[str], job: SwitchJob, actor: Actor) -> AsyncGenerator[str]:
    """The same pieces; cancels the job when the reader leaves before the last of them."""
    is_over = False
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
        is_over = True
    finally:
        if not is_over:
            # On its own: whoever closes this stream does not wait, and cancels whatever it waits for.
            task = asyncio.ensure_future(_cancel(job, actor))
            _cancelling_now.add(task)
            task.add_done_callback(_cancelling_now.discard)


_cancelling_now: set[asyncio.Future[None]] = set()  # an event loop holds its tasks weakly


@database_sync_to_async  # type: ignore[untyped-decorator]
def _cancel(job: SwitchJob, actor: Actor) -> None:
    try:
        actions.cancel_job(job, actor=actor)
    except ActionRefused as exc:  # somebody else's, which was joined
        log.info("switch_not_cancelled", job=job.pk, reason=str(exc))


@dataclass(slots=True)
class Translation:
    """Turns the events of one job into those of the stream. Keeps which stage and model were told last."""

    stage: str = ""
    model: str = ""

    def of(self, update: JobUpdate) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, data) of each event that this one becomes; none when it tells nothing new."""
        if update.is_last:
            yield _last(update.job)
            return
        step = _step_of(update)
        if step is None:
            return
        word = _WORDS.get(step["kind"], "loading")
        stage, model = self._about(step, update.job)
        progress = int(update.event["percent"])
        if stage != self.stage:
            yield "stage", {"stage": stage, "progress": progress, **_of_stage(stage, model, update.job)}
        self.stage, self.model = stage, model
        eta = update.event["eta_seconds"]
        data = {"stage": word, "progress": progress, "model": model, "eta": None if eta is None else round(eta, 1)}
        yield "progress", data

    def _about(self, step: StepSnapshot, job: JobSnapshot) -> tuple[str, str]:
        """The stage that a step belongs to, and its model."""
        if step["kind"] == StepKind.FREE:  # is about the memory of what was unloaded before it
            return self.stage or "unloading_models", self.model
        is_unloading, is_target = _WORDS.get(step["kind"]) == "unloading", step.get("model_id") == job["target_id"]
        model = step.get("model_id") or step["model_name"]
        # A switch unloads others and loads its target; the other way round, it puts things back.
        if is_unloading == is_target:
            return "restoring", model
        return ("unloading_models" if is_unloading else "loading_target"), model


def _checking() -> str:
    return sse.encode("stage", {"stage": "checking_memory", "progress": 0})


def _step_of(update: JobUpdate) -> StepSnapshot | None:
    """The step that an event is about: of its kind, the one that had begun last when it happened. The job may be further by now."""
    kind, at = update.event["step_kind"], update.event["at"]
    begun = [
        step
        for step in update.job["steps"]
        if step["kind"] == kind and step["started_at"] is not None and step["started_at"] <= at
    ]
    return max(begun, key=lambda step: step["started_at"] or "", default=None)


def _of_stage(stage: str, model: str, job: JobSnapshot) -> Mapping[str, Any]:
    if stage != "unloading_models":
        return {"model": model}
    going = (step for step in job["steps"] if step["kind"] == StepKind.UNLOAD)
    ids = (step.get("model_id") or step["model_name"] for step in going)
    return {"unloading": [model_id for model_id in dict.fromkeys(ids) if model_id != job["target_id"]]}


def _last(job: JobSnapshot) -> tuple[str, dict[str, Any]]:
    if job["state"] == JobState.SUCCEEDED:
        seconds = job["elapsed_seconds"]
        return "complete", {"status": "success", "model": job["target_id"], "total_time_seconds": seconds}
    code = job["error_code"] or job["state"]
    sentence = job["error_text"] or f"{job['stage_text'].rstrip('.')}."
    data: dict[str, Any] = {
        "error": code,
        "message": f"{sentence} {job['aftermath']}".strip(),
        "hint": job["error_hint"],
    }
    if code == ErrorCode.INSUFFICIENT_MEMORY:  # found by the worker
        data |= _shortage(job.get("error_data", {}))
    return "error", data


def _does_not_fit(exc: DoesNotFitNow) -> dict[str, Any]:
    return {"error": exc.code, "message": str(exc), "hint": exc.hint, **_shortage(vars(exc))}


def _shortage(found: Mapping[str, int]) -> dict[str, float | None]:
    """Null for what nobody knows, as of a job of an older version."""
    names = {"required_gb": "required_bytes", "available_gb": "available_bytes", "can_free_gb": "freeable_bytes"}
    return {gb: None if (size := found.get(name)) is None else round(size / 1e9, 3) for gb, name in names.items()}
