"""The control panel's addresses: status, switch and restart of the one server that answers."""

from __future__ import annotations

from django.http.response import HttpResponseBase
from ninja import Router, Schema, Status
from pydantic import Field

from gantry.api import status_cache
from gantry.api.auth import ApiRequest
from gantry.api.errors import ERRORS
from gantry.api.seeds.asking import SwitchWish, UnderWay, Wait, ask_of_loaded, ask_switch, end_of
from gantry.api.ws_board import model_info
from gantry.api.ws_messages import ModelInfo
from gantry.planning.states import SERVING_KINDS
from models_admin import actions
from models_admin.templatetags.gantry_format import seconds

router = Router(tags=["Control panel"])


class LlmStatus(Schema):
    """Which model answers, and all there are."""

    running: bool = Field(description="A model answers.")
    current_model: str | None = Field(description="Its id; null when none answers.", examples=["gpt-oss-20b-mxfp4"])
    current_model_name: str | None
    switching_to: str | None = Field(description="Id of the model that a switch or restart under way is for.")
    job_id: int | None = Field(description="Of the job under way.")
    models: list[ModelInfo] = Field(description="All there are, by name. `is_available` false: not downloaded.")


class Done(Schema):
    """It is done."""

    success: bool = Field(
        description="Always true: what was not done is told by the status and the shape of a refusal."
    )
    message: str = Field(examples=["Switched to GPT-OSS 20B in 12 s."])
    model_id: str
    job_id: int | None = Field(description="Null when there was nothing to do.")


@router.get(
    "/api/llm-status", response={200: LlmStatus, **ERRORS}, operation_id="llm_status", summary="Which model answers"
)
async def llm_status(request: ApiRequest) -> HttpResponseBase:
    """Never older than a second during a switch; it lies ready, so it may be asked for as often as you like."""
    return await status_cache.answer(request, request.auth, llm_status_of)


@router.post(
    "/api/llm-switch",
    response={200: Done, 202: UnderWay, **ERRORS},
    operation_id="llm_switch",
    summary="Switch to a model",
)
async def llm_switch(request: ApiRequest, wanted: SwitchWish, wait: Wait) -> Status[Done] | Status[UnderWay]:
    """Answers when the model serves. The client leaving does not cancel the switch."""
    model, decision = await ask_switch(request.auth, wanted.model_id, confirm=wanted.confirm)
    if decision.job is None:
        message = f"{model.name} serves already."
        return Status(200, Done(success=True, message=message, model_id=model.model_id, job_id=None))
    return await _answer(
        decision.job.pk, wait, model.model_id, f"Switching to {model.name}", f"Switched to {model.name}"
    )


@router.post(
    "/api/llm-restart",
    response={200: Done, 202: UnderWay, **ERRORS},
    operation_id="llm_restart",
    summary="Restart the model that answers",
)
async def llm_restart(request: ApiRequest, wait: Wait) -> Status[Done] | Status[UnderWay]:
    """Ends the model that answers and loads it again; answers when it serves. When none is loaded: 409, `not_loaded`."""
    model, decision = await ask_of_loaded(
        request.auth, lambda model, actor: actions.request_restart(model, actor=actor)
    )
    assert decision.job is not None  # noqa: S101 - a restart is always a job
    return await _answer(decision.job.pk, wait, model.model_id, f"Restarting {model.name}", f"Restarted {model.name}")


async def _answer(job_id: int, wait: float, model_id: str, doing: str, done: str) -> Status[Done] | Status[UnderWay]:
    job = await end_of(job_id, wait)
    if job is None:
        return Status(202, UnderWay(message=doing, model_id=model_id, job_id=job_id))
    message = f"{done} in {seconds(job['elapsed_seconds'])}."
    return Status(200, Done(success=True, message=message, model_id=model_id, job_id=job_id))


def llm_status_of(status: status_cache.Status) -> LlmStatus:
    """The document about a moment."""
    seen, active = status.overview, status.overview.active
    is_switching = seen.job is not None and seen.job["kind"] in SERVING_KINDS
    return LlmStatus(
        running=active is not None,
        current_model=active.model.model_id if active else None,
        current_model_name=active.model.name if active else None,
        switching_to=seen.job["target_id"] if seen.job and is_switching else None,
        job_id=seen.job["id"] if seen.job else None,
        models=[model_info(row) for row in seen.rows],
    )
