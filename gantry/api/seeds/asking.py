"""What these addresses have in common: asking for a job, and waiting for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Annotated

from asgiref.sync import sync_to_async
from ninja import Query, Schema
from pydantic import Field

from gantry.api import sse, status_cache
from gantry.api.errors import NeedsConfirmation
from gantry.api.ws_messages import ModelId
from gantry.live import JobSnapshot
from gantry.planning.states import InstanceState, JobState
from models_admin import actions
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused, NotLoaded
from models_admin.job_requests import SwitchDecision, need_permission
from models_admin.models import ModelDefinition, ModelInstance

USUAL_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 300.0, 600.0
WAIT_DESCRIPTION = "Seconds to wait for the end. When they are over and it is still under way, the answer is 202; it goes on. 0: do not wait."
CONFIRM_DESCRIPTION = (
    "Take over from another switch that is half done, and unload what the plan says where the policy asks first. "
    "Without it, the answer is then 409 with the code `needs_confirmation`."
)

Wait = Annotated[float, Query(USUAL_WAIT_SECONDS, ge=0, le=LONGEST_WAIT_SECONDS, description=WAIT_DESCRIPTION)]
Asked = tuple[ModelDefinition, SwitchDecision]
Act = Callable[[ModelDefinition, Actor], SwitchDecision]


class SwitchWish(Schema):
    """Which model is to serve."""

    model_id: ModelId = Field(description="Id of the model, as the lists say it.", examples=["gpt-oss-20b-mxfp4"])
    confirm: bool = Field(False, description=CONFIRM_DESCRIPTION)


class UnderWay(Schema):
    """It was begun and goes on."""

    message: str = Field(examples=["Switching to GPT-OSS 20B"])
    model_id: str
    job_id: int = Field(description="Its progress: /api/v1/jobs/{job_id}.")


class JobUnsuccessful(ActionRefused):
    """What was asked for was begun and did not come to a good end. `code` is the job's error code, or how it ended (`cancelled` …)."""

    def __init__(self, job: JobSnapshot) -> None:
        sentence = job["error_text"] or f"{job['stage_text'].rstrip('.')}."
        super().__init__(f"{sentence} {job['aftermath']}".strip(), job["error_hint"])
        self.code = job["error_code"] or job["state"]


async def ask_switch(actor: Actor, model_id: str, *, confirm: bool) -> Asked:
    """Ask for a switch to a model.

    Raises:
        ActionRefused: one of its kinds; NeedsConfirmation too.
    """

    def ask() -> Asked:
        model = actions.find_model(model_id)
        return model, actions.request_switch(model, actor=actor, confirm=confirm)

    model, decision = await _ask(ask)
    if decision.status == "needs_confirmation":
        raise NeedsConfirmation(decision)
    return model, decision


async def ask_of_loaded(actor: Actor, act: Act) -> Asked:
    """Ask for something about the model that serves; when none does, about the one that is loaded.

    Raises:
        NotLoaded: none is, or there are several and none of them serves.
        ActionRefused: one of its other kinds.
    """

    def ask() -> Asked:
        need_permission(actor, "switch_model", "unload or restart models")  # before anything is told of what is loaded
        model = _the_loaded_one()
        return model, act(model, actor)

    return await _ask(ask)


async def _ask(ask: Callable[[], Asked]) -> Asked:
    asked = await sync_to_async(ask)()
    status_cache.forget()
    return asked


async def end_of(job_id: int, wait_seconds: float) -> JobSnapshot | None:
    """How a job ended, which is well; None when it is still under way after so many seconds.

    Raises:
        JobUnsuccessful: it ended otherwise.
    """
    job = await _last_of(job_id, wait_seconds) if wait_seconds else None
    if job is not None and job["state"] != JobState.SUCCEEDED:
        raise JobUnsuccessful(job)
    return job


async def _last_of(job_id: int, wait_seconds: float) -> JobSnapshot | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_seconds), aclosing(sse.follow_job(job_id)) as updates:
            async for update in updates:
                if update is not None and update.is_last:
                    status_cache.forget()
                    return update.job
    return None


def _the_loaded_one() -> ModelDefinition:
    held = ModelInstance.objects.exclude(state=InstanceState.CRASHED).select_related("model")
    found = list(held.filter(is_active=True)) or list(held)
    if not found:
        raise NotLoaded("No model is loaded.", "Switch to one first.")
    if len(found) > 1:
        raise NotLoaded("Several models are loaded, and none of them serves.", "Use /api/v1/, and name the model.")
    return actions.find_model(found[0].model.model_id)
