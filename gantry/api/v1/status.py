"""Everything at a glance, the memory, and putting things right at once."""

from __future__ import annotations

import hashlib
from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from ninja import Status

from gantry.api.v1.bodies_status import MemoryAnswer, RecoverAnswer, RecoverIn, StatusAnswer, pool_body, status_body
from gantry.api.v1.common import actor_of, allowed, answers, need_all_models, new_router
from models_admin import recovery
from models_admin.job_requests import need_status
from models_admin.overview import memory_now, overview

router = new_router("Status")
_CONDITIONAL = {
    "parameters": [
        {
            "in": "header",
            "name": "If-None-Match",
            "required": False,
            "schema": {"type": "string"},
            "description": "The ETag of an earlier answer: 304, without a body, when nothing has changed since.",
        }
    ]
}


@router.get(
    "/status",
    response=answers({200: StatusAnswer, 304: None}),
    operation_id="read_status",
    summary="Everything at a glance",
    openapi_extra=_CONDITIONAL,
)
def read_status(request: HttpRequest) -> HttpResponse:
    """Models, memory, runtimes and the job that runs, of one moment. Every role may see it."""
    need_status(actor_of(request))
    body = StatusAnswer.model_validate(status_body(overview())).model_dump_json().encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    response = HttpResponse(body, content_type="application/json; charset=utf-8", headers=headers)
    return cast("HttpResponse", get_conditional_response(request, etag=etag, response=response))


@router.get("/memory", response=answers({200: MemoryAnswer}), operation_id="read_memory", summary="The memory")
def read_memory(request: HttpRequest) -> dict[str, Any]:
    """What the memory of each host holds. Needs the right to see memory."""
    allowed(request, "view_memorypool", "see memory")
    return {"pools": [pool_body(view) for view in memory_now().pools]}


@router.post("/recover", response=answers({202: RecoverAnswer}), operation_id="recover", summary="Put things right now")
def recover(request: HttpRequest, wanted: RecoverIn | None = None) -> Status[Any]:
    """Have the workers compare their records with what really runs, now. They do so every five seconds by themselves.

    What was mended shows in the models, the jobs and the audit log. For staff, and for whoever may cancel any switch.
    """
    actor = actor_of(request)
    need_all_models(actor)
    hosts = recovery.request_recovery(wanted.hosts if wanted else (), actor=actor)
    return Status(202, {"hosts": hosts, "sent": True})


# The address that it had first, for those who call it there.
first_router = new_router("Status")


@first_router.post(
    "/recover",
    response=answers({202: RecoverAnswer}),
    operation_id="recover_at_first_address",
    summary="Put things right now, on all hosts",
    deprecated=True,
)
def recover_at_first_address(request: HttpRequest) -> Status[Any]:
    """Like `POST /api/v1/recover`, whose place this was; a body is not read."""
    return recover(request)
