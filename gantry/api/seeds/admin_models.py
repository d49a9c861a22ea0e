"""The admin dashboard's addresses: the models, a switch, and an unload, each answered when it is done."""

from __future__ import annotations

from ninja import Router, Schema, Status
from pydantic import Field

from gantry.api import status_cache
from gantry.api.auth import ApiRequest
from gantry.api.errors import ERRORS
from gantry.api.seeds.asking import SwitchWish, UnderWay, Wait, ask_of_loaded, ask_switch, end_of
from gantry.planning.states import ModelState
from models_admin import actions

router = Router(tags=["Admin dashboard"])


class AdminModel(Schema):
    """A model in the list."""

    id: str = Field(description="For a model of TabbyAPI, the name of its folder.", examples=["Llama-3.1-8B-Instruct"])
    name: str = Field(description="As people know it.")
    active: bool = Field(description="It is the one that answers.")
    state: str = Field(
        description="active, loaded, loading, draining, unloading, crashed, paused, failed, idle or not_downloaded."
    )


class AdminModels(Schema):
    """All models, by name."""

    models: list[AdminModel]


class Switched(Schema):
    """It serves now."""

    message: str = Field(examples=["Model switched to Llama-3.1-8B-Instruct"])
    model_id: str


class Unloaded(Schema):
    """It is gone from the memory."""

    message: str = Field(examples=["Model unloaded successfully"])
    model_id: str = Field(description="Which one it was.")


@router.get(
    "/api/admin/models",
    response={200: AdminModels, **ERRORS},
    operation_id="admin_models",
    summary="All models, and which one answers",
)
async def admin_models(request: ApiRequest) -> AdminModels:
    """Never older than a second during a switch."""
    status = await status_cache.visible_status(request.auth)
    return AdminModels(
        models=[
            AdminModel(
                id=row.model.model_id,
                name=row.model.name,
                active=row.state == ModelState.ACTIVE,
                state=row.state.value,
            )
            for row in status.overview.rows
        ]
    )


@router.post(
    "/api/admin/models/switch",
    response={200: Switched, 202: UnderWay, **ERRORS},
    operation_id="admin_switch",
    summary="Switch to a model",
)
async def admin_switch(request: ApiRequest, wanted: SwitchWish, wait: Wait) -> Status[Switched] | Status[UnderWay]:
    """Answers when the model serves; at once when it did already. A switch that fails: 409 with the reason in `detail`."""
    model, decision = await ask_switch(request.auth, wanted.model_id, confirm=wanted.confirm)
    if decision.job is not None and await end_of(decision.job.pk, wait) is None:
        doing = f"Switching to {model.model_id}"
        return Status(202, UnderWay(message=doing, model_id=model.model_id, job_id=decision.job.pk))
    return Status(200, Switched(message=f"Model switched to {model.model_id}", model_id=model.model_id))


@router.post(
    "/api/admin/models/unload",
    response={200: Unloaded, 202: UnderWay, **ERRORS},
    operation_id="admin_unload",
    summary="Unload the model that answers",
)
async def admin_unload(request: ApiRequest, wait: Wait) -> Status[Unloaded] | Status[UnderWay]:
    """Frees its memory and loads no other; answers when it is gone.

    Where none serves, it is the one that is loaded; 409 `not_loaded` when there is none.
    """
    model, decision = await ask_of_loaded(request.auth, lambda model, actor: actions.request_unload(model, actor=actor))
    if decision.job is not None and await end_of(decision.job.pk, wait) is None:
        doing = f"Unloading {model.model_id}"
        return Status(202, UnderWay(message=doing, model_id=model.model_id, job_id=decision.job.pk))
    return Status(200, Unloaded(message="Model unloaded successfully", model_id=model.model_id))
