"""Begin a switch and poll until the server is ready; and a restart of the web server."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal

from asgiref.sync import sync_to_async
from django.http.response import HttpResponseBase
from ninja import Query, Router, Schema
from pydantic import Field

from gantry.api import status_cache
from gantry.api.auth import ApiRequest
from gantry.api.errors import ERRORS
from gantry.api.seeds.asking import CONFIRM_DESCRIPTION, ask_switch
from gantry.api.ws_messages import ModelId
from gantry.live import JobSnapshot
from gantry.planning.states import SERVING_KINDS, JobKind, JobState
from models_admin import web_restart
from models_admin.models import ModelDefinition
from models_admin.overview import ModelRow, Overview

router = Router(tags=["Switch and poll"])

STATUS_PATH = "/api/model-loading-status"
_BEGUN = frozenset({JobState.LOADING, JobState.WARMING})


class Switching(Schema):
    """What was begun."""

    status: Literal["switching", "ready"] = Field(description="`ready`: it serves already, and nothing was begun.")
    message: str = Field(examples=["Switching to Qwen/Qwen2.5-0.5B-Instruct"])
    model_id: str = Field(examples=["Qwen/Qwen2.5-0.5B-Instruct"])
    info: str = Field(examples=[f"vLLM is loading the new model. Check {STATUS_PATH} for progress."])
    estimated_time_seconds: int | None = Field(
        description="Of the whole switch, rounded up; null when nobody can tell, because another job has to end first.",
        examples=[60],
    )
    job_id: int | None = Field(description="Null when nothing was begun.")


class LoadingStatus(Schema):
    """Whether a model serves."""

    status: Literal["ready", "loading", "starting", "error"] = Field(
        description="`starting`: a switch or restart has begun, and its model's load has not. `loading`: it loads. `ready`: a model serves, "
        "and none is on its way. `error`: none serves and none is on its way; `message` says why."
    )
    model_loaded: bool = Field(description="True exactly when the status is `ready`.")
    current_model: str | None = Field(
        description="Id of the model that answers now. During a switch that is the former one, as long as it can. After a switch "
        "that failed and was rolled back it is the former one again, with `ready`."
    )
    message: str = Field(examples=["llama-server is ready"])
    target_model: str | None = Field(description="Id of the model that is on its way.")
    progress: int | None = Field(description="Percent of the switch or restart under way.")
    eta_seconds: float | None = Field(description="How long it will still take; null when nobody knows.")


class Restarting(Schema):
    """The web server ends and is started again."""

    status: Literal["restarting"]
    message: str
    delay_seconds: float = Field(description="From this answer until it ends.")


@router.post(
    "/api/switch-model", response={200: Switching, **ERRORS}, operation_id="switch_model", summary="Begin a switch"
)
async def switch_model(
    request: ApiRequest,
    model_id: Annotated[ModelId, Query(..., description="Its id.", examples=["Qwen/Qwen2.5-0.5B-Instruct"])],
    confirm: Annotated[bool, Query(False, description=CONFIRM_DESCRIPTION)],
) -> Switching:
    """Answers at once; `/api/model-loading-status` says how it goes."""
    model, decision = await ask_switch(request.auth, model_id, confirm=confirm)
    if decision.job is None:
        return _serves_already(model)
    # An empty plan: another job has to end first, and nobody can tell what there will be to do then.
    seconds = decision.job.expected_seconds if decision.job.plan.get("total_bytes") else None
    return Switching(
        status="switching",
        message=f"Switching to {model.model_id}",
        model_id=model.model_id,
        info=f"{model.runtime.name} is loading the new model. Check {STATUS_PATH} for progress.",
        estimated_time_seconds=None if seconds is None else ceil(seconds),
        job_id=decision.job.pk,
    )


@router.get(
    STATUS_PATH,
    response={200: LoadingStatus, **ERRORS},
    operation_id="model_loading_status",
    summary="Whether the model is ready",
)
async def model_loading_status(request: ApiRequest) -> HttpResponseBase:
    """Made for polling every few seconds."""
    return await status_cache.answer(request, request.auth, loading_status_of)


@router.post(
    "/api/restart-api",
    response={200: Restarting, **ERRORS},
    operation_id="restart_api",
    summary="Restart the web server",
)
async def restart_api(request: ApiRequest) -> Restarting:
    """Answers at once; two seconds later this web server process ends, and what runs it starts it again.

    Models and switches go on, and pages connect again by themselves. For administrators. 409 `not_supervised` where nobody would
    start it again.
    """
    delay = await sync_to_async(web_restart.request_restart)(actor=request.auth)
    message = "The web server restarts; it answers again in a few seconds."
    return Restarting(status="restarting", message=message, delay_seconds=delay)


def loading_status_of(status: status_cache.Status) -> LoadingStatus:
    """The document about a moment."""
    seen, active = status.overview, status.overview.active
    current = active.model.model_id if active else None
    job = _on_its_way(seen)
    if job is not None:
        return LoadingStatus(
            status="loading" if job["state"] in _BEGUN else "starting",
            model_loaded=False,
            current_model=current,
            message=job["stage_text"] or "Waiting",
            target_model=job["target_id"] or None,
            progress=job["percent"],
            eta_seconds=job["eta_seconds"],
        )
    return LoadingStatus(
        status="ready" if active else "error",
        model_loaded=active is not None,
        current_model=current,
        message=_ready(seen, active) if active else _why_none(seen),
        target_model=None,
        progress=None,
        eta_seconds=None,
    )


def _serves_already(model: ModelDefinition) -> Switching:
    return Switching(
        status="ready",
        message=f"{model.model_id} serves already",
        model_id=model.model_id,
        info="There is nothing to do.",
        estimated_time_seconds=0,
        job_id=None,
    )


def _on_its_way(seen: Overview) -> JobSnapshot | None:
    """The job that brings a model which is to serve: a call does too while none serves, for the former one comes back."""
    job = seen.job
    if job is None:
        return None
    is_returning = job["kind"] == JobKind.CALL and seen.active is None
    return job if job["kind"] in SERVING_KINDS or is_returning else None


def _ready(seen: Overview, active: ModelRow) -> str:
    return f"{active.model.runtime.name} is ready.{_last_failure(seen)}"


def _why_none(seen: Overview) -> str:
    return f"No model is loaded.{_last_failure(seen)}"


def _last_failure(seen: Overview) -> str:
    last = seen.last_job
    if last is None or last["state"] == JobState.SUCCEEDED or last["kind"] not in SERVING_KINDS:
        return ""
    reason = last["error_text"] or f"{last['stage_text'].rstrip('.')}."
    return f" {last['target_name']}: {reason}"
