"""Models: list, read, create, change, delete, pin, unload, restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Status

from gantry.api.idempotency import PARAMETER
from gantry.api.v1.bodies_jobs import JobAnswer
from gantry.api.v1.bodies_models import (
    Model,
    ModelChange,
    ModelDetail,
    ModelIn,
    ModelList,
    ModelQuery,
    detail_body,
    model_body,
)
from gantry.api.v1.common import allowed, answers, need_all_models, need_model, new_router
from gantry.api.v1.decisions import answer_decision
from gantry.api.v1.model_changes import change_model, create_model
from models_admin import actions
from models_admin.definitions import delete_definition
from models_admin.model_list import ListQuery, lines_of
from models_admin.models import ModelDefinition
from models_admin.overview import current_job, model_rows

router = new_router("Models")
_SEE = ("view_modeldefinition", "see models")
_CHANGE = ("change_modeldefinition", "change models")


@router.get("", response=answers({200: ModelList}), operation_id="list_models", summary="List models")
def list_models(request: HttpRequest, query: Query[ModelQuery]) -> dict[str, Any]:
    """All models with their states, filtered and sorted like the list in the Models tab."""
    allowed(request, *_SEE)
    wanted = ListQuery(text=query.q, tag=query.tag, state=query.state, sort=query.sort)
    lines = wanted.apply(lines_of(model_rows(current_job(), with_people=True)))
    rows = [line.row for line in lines if not line.is_hidden]
    rows = [row for row in rows if query.runtime in {"", row.model.runtime.name}]
    page = rows[query.offset : query.offset + query.limit]
    return {"items": [model_body(row) for row in page], "count": len(rows)}


@router.post(
    "",
    response=answers({201: ModelDetail}),
    operation_id="create_model",
    summary="Describe a model",
    openapi_extra=PARAMETER,
)
def create(request: HttpRequest, wanted: ModelIn, response: HttpResponse) -> Status[Any]:
    """Add a definition; what can be read of the model's file is read. Needs the right to add models."""
    actor = allowed(request, "add_modeldefinition", "add models")
    need_all_models(actor)
    model = create_model(wanted.model_dump(exclude_unset=True), actor)
    response.headers["Location"] = f"/api/v1/models/{model.model_id}"
    return Status(201, _detail(model))


@router.put("/{path:model_id}/pin", response=answers({200: Model}), operation_id="pin_model", summary="Pin a model")
def pin(request: HttpRequest, model_id: str) -> dict[str, Any]:
    """From now on no switch to another model unloads it."""
    return _set_pinned(request, model_id, is_pinned=True)


@router.delete(
    "/{path:model_id}/pin", response=answers({200: Model}), operation_id="unpin_model", summary="Unpin a model"
)
def unpin(request: HttpRequest, model_id: str) -> dict[str, Any]:
    """From now on a switch to another model may unload it."""
    return _set_pinned(request, model_id, is_pinned=False)


@router.post(
    "/{path:model_id}/unload",
    response=answers({200: JobAnswer, 201: JobAnswer}),
    operation_id="unload_model",
    summary="Unload a model",
    openapi_extra=PARAMETER,
)
def unload(request: HttpRequest, model_id: str, response: HttpResponse) -> Status[Any]:
    """Unload a model without loading another: short for a job of kind `unload`. 200 when that is under way already."""
    return _act(request, model_id, actions.request_unload, response)


@router.post(
    "/{path:model_id}/restart",
    response=answers({200: JobAnswer, 201: JobAnswer}),
    operation_id="restart_model",
    summary="Restart a model",
    openapi_extra=PARAMETER,
)
def restart(request: HttpRequest, model_id: str, response: HttpResponse) -> Status[Any]:
    """Unload a model, or clear away what is left of it, and load it again: short for a job of kind `restart`."""
    return _act(request, model_id, actions.request_restart, response)


@router.get("/{path:model_id}", response=answers({200: ModelDetail}), operation_id="read_model", summary="Read a model")
def read(request: HttpRequest, model_id: str) -> dict[str, Any]:
    """Everything that is known of a model. Its id may hold slashes, which stand in the address as they are."""
    allowed(request, *_SEE)
    return _detail(actions.find_model(model_id))


@router.patch(
    "/{path:model_id}", response=answers({200: ModelDetail}), operation_id="change_model", summary="Change a model"
)
def change(request: HttpRequest, model_id: str, wanted: ModelChange) -> dict[str, Any]:
    """Change some fields; what is left out stays. Takes effect with the next load. Needs the right to change models."""
    actor = allowed(request, *_CHANGE)
    model = actions.find_model(model_id)
    need_model(actor, model)
    return _detail(change_model(model, wanted.model_dump(exclude_unset=True), actor))


@router.delete("/{path:model_id}", response=answers({204: None}), operation_id="delete_model", summary="Delete a model")
def delete(request: HttpRequest, model_id: str) -> Status[Any]:
    """Delete a definition; its file stays where it is. Not while it is loaded. Needs the right to delete models."""
    actor = allowed(request, "delete_modeldefinition", "delete models")
    model = actions.find_model(model_id)
    need_model(actor, model)
    delete_definition(model, actor=actor)
    return Status(204, None)


def _set_pinned(request: HttpRequest, model_id: str, *, is_pinned: bool) -> dict[str, Any]:
    actor = allowed(request, *_CHANGE)
    model = actions.find_model(model_id)
    need_model(actor, model)
    actions.set_pinned(model, is_pinned, actor=actor)
    return model_body(model_rows(current_job(), model_ids=[model.model_id], with_people=True)[0])


def _act(
    request: HttpRequest, model_id: str, act: Callable[..., actions.SwitchDecision], response: HttpResponse
) -> Status[Any]:
    actor = allowed(request, "switch_model", "unload or restart models")
    decision = act(actions.find_model(model_id), actor=actor)
    return answer_decision(decision, response)


def _detail(model: ModelDefinition) -> dict[str, Any]:
    return detail_body(model_rows(current_job(), model_ids=[model.model_id], with_people=True)[0])
