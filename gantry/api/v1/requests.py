"""Requests: who may chat and not switch asks for a model; who may switch answers."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Status

from gantry.api.idempotency import PARAMETER
from gantry.api.v1.bodies import MOST_ITEMS, RowId
from gantry.api.v1.bodies_jobs import JobAnswer
from gantry.api.v1.bodies_requests import ApproveIn, DeclineIn, RequestIn, RequestList, SwitchRequest, request_body
from gantry.api.v1.common import NotThere, actor_of, answers, new_router
from gantry.api.v1.decisions import answer_decision
from models_admin import actions, switch_requests
from models_admin import models as rows
from models_admin.actor import Actor
from models_admin.exceptions import NotAllowed

router = new_router("Requests")


@router.get("", response=answers({200: RequestList}), operation_id="list_requests", summary="List requests")
def list_requests(request: HttpRequest) -> dict[str, Any]:
    """What is asked for and not answered, oldest first: for those who answer, of everybody; for those who chat, their own."""
    actor = actor_of(request)
    found = switch_requests.open_requests()
    if not switch_requests.may_answer(actor):
        found = found.filter(user=_asker(actor).user)
    return {"items": [request_body(row) for row in found[:MOST_ITEMS]]}


@router.post(
    "",
    response=answers({201: SwitchRequest}),
    operation_id="create_request",
    summary="Ask for a model",
    openapi_extra=PARAMETER,
)
def create(request: HttpRequest, wanted: RequestIn) -> Status[Any]:
    """Ask those who may switch. Asking twice for the same model gives the request that is open. For those who may chat and not switch."""
    actor = _asker(actor_of(request))
    row = switch_requests.ask(actions.find_model(wanted.model_id), actor=actor, reason=wanted.reason)
    return Status(201, request_body(row))


@router.post(
    "/{request_id}/approve",
    response=answers({200: JobAnswer, 201: JobAnswer}),
    operation_id="approve_request",
    summary="Approve a request",
    openapi_extra=PARAMETER,
)
def approve(
    request: HttpRequest, request_id: RowId, response: HttpResponse, wanted: ApproveIn | None = None
) -> Status[Any]:
    """Switch to the model in one's own name; both names stand in the audit log. For those who may switch and see requests."""
    actor = actor_of(request)
    row = _find(request_id, actor)
    decision = switch_requests.approve(row, actor=actor, confirm=wanted.confirm if wanted else False)
    return answer_decision(decision, response)


@router.post(
    "/{request_id}/decline",
    response=answers({200: SwitchRequest}),
    operation_id="decline_request",
    summary="Decline a request",
)
def decline(request: HttpRequest, request_id: RowId, wanted: DeclineIn | None = None) -> dict[str, Any]:
    """Say no, with a word to the one who asked. For those who may switch and see requests."""
    actor = actor_of(request)
    switch_requests.decline(_find(request_id, actor), actor=actor, answer=wanted.answer if wanted else "")
    return request_body(_find(request_id, actor))


@router.post(
    "/{request_id}/withdraw",
    response=answers({200: SwitchRequest}),
    operation_id="withdraw_request",
    summary="Withdraw a request",
)
def withdraw(request: HttpRequest, request_id: RowId) -> dict[str, Any]:
    """Take back what one has asked for. Twice, or after an answer, changes nothing."""
    actor = actor_of(request)
    switch_requests.withdraw(_find(request_id, actor), actor=actor)
    return request_body(_find(request_id, actor))


def _asker(actor: Actor) -> Actor:
    if actor.user is None or not actor.may("chat"):
        raise NotAllowed("You may not ask for models.", "Ask an administrator.")
    return actor


def _find(request_id: int, actor: Actor) -> rows.SwitchRequest:
    """A request, for those who answer and for the one who asked; the others do not learn which there are."""
    row = rows.SwitchRequest.objects.select_related("user", "model").filter(pk=request_id).first()
    if switch_requests.may_answer(actor):
        if row is None:
            raise NotThere(f"There is no request {request_id}.", "GET /api/v1/requests lists them.")
        return row
    if row is None or row.user_id != getattr(_asker(actor).user, "pk", None):
        raise NotAllowed("You may not see this request.", "Ask an administrator.")
    return row
