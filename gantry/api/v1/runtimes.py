"""Runtimes: list, read, create, change, delete, refresh."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse
from ninja import Query, Status

from gantry.api.idempotency import PARAMETER
from gantry.api.v1.bodies import Page, RowId
from gantry.api.v1.bodies_runtimes import RefreshAnswer, Runtime, RuntimeChange, RuntimeIn, RuntimeList, runtime_body
from gantry.api.v1.common import NotThere, allowed, answers, need_all_models, new_router
from models_admin import actions, runtimes
from models_admin import models as rows
from models_admin.actor import Actor
from models_admin.exceptions import InvalidRequest

router = new_router("Runtimes")


@router.get("", response=answers({200: RuntimeList}), operation_id="list_runtimes", summary="List runtimes")
def list_runtimes(request: HttpRequest, page: Query[Page]) -> dict[str, Any]:
    """All runtimes by name. Needs the right to see runtimes."""
    allowed(request, "view_runtime", "see runtimes")
    found = rows.Runtime.objects.select_related("pool").order_by("name")
    items = [runtime_body(row) for row in found[page.offset : page.offset + page.limit]]
    return {"items": items, "count": found.count()}


@router.post(
    "",
    response=answers({201: Runtime}),
    operation_id="create_runtime",
    summary="Add a runtime",
    openapi_extra=PARAMETER,
)
def create(request: HttpRequest, wanted: RuntimeIn, response: HttpResponse) -> Status[Any]:
    """Add a runtime; its worker looks after it within seconds. Needs the right to add runtimes."""
    actor = allowed(request, "add_runtime", "add runtimes")
    need_all_models(actor)
    values = {name: value for name, value in wanted.model_dump(exclude_unset=True).items() if value is not None}
    row = _save(rows.Runtime(), {"host": "", **values}, actor)
    response.headers["Location"] = f"/api/v1/runtimes/{row.pk}"
    return Status(201, runtime_body(row))


@router.get("/{runtime_id}", response=answers({200: Runtime}), operation_id="read_runtime", summary="Read a runtime")
def read(request: HttpRequest, runtime_id: RowId) -> dict[str, Any]:
    """A runtime and its health. Its keys are never shown."""
    allowed(request, "view_runtime", "see runtimes")
    return runtime_body(_find(runtime_id))


@router.patch(
    "/{runtime_id}", response=answers({200: Runtime}), operation_id="change_runtime", summary="Change a runtime"
)
def change(request: HttpRequest, runtime_id: RowId, wanted: RuntimeChange) -> dict[str, Any]:
    """Change some fields; what is left out stays. Needs the right to change runtimes."""
    actor = allowed(request, "change_runtime", "change runtimes")
    need_all_models(actor)
    row, values = _find(runtime_id), wanted.model_dump(exclude_unset=True)
    nulls = [(name, "must not be null") for name, value in values.items() if value is None]
    if nulls:
        raise InvalidRequest("The runtime has errors.", nulls)
    return runtime_body(_save(row, values, actor))


@router.delete(
    "/{runtime_id}", response=answers({204: None}), operation_id="delete_runtime", summary="Delete a runtime"
)
def delete(request: HttpRequest, runtime_id: RowId) -> Status[Any]:
    """Delete a runtime that no model belongs to. Needs the right to delete runtimes."""
    actor = allowed(request, "delete_runtime", "delete runtimes")
    need_all_models(actor)
    runtimes.delete_runtime(_find(runtime_id), actor=actor)
    return Status(204, None)


@router.post(
    "/{runtime_id}/refresh",
    response=answers({202: RefreshAnswer}),
    operation_id="refresh_runtime",
    summary="Ask a runtime for its models",
)
def refresh(request: HttpRequest, runtime_id: RowId) -> Status[Any]:
    """Have its worker compare now which models the server offers with those that are known. For whoever may switch models or change runtimes."""
    actor = allowed(request, "view_runtime", "see runtimes")
    row = _find(runtime_id)
    actions.request_refresh(row, actor=actor)
    return Status(202, {"host": row.pool.host, "sent": True})


def _find(runtime_id: int) -> rows.Runtime:
    row = rows.Runtime.objects.select_related("pool").filter(pk=runtime_id).first()
    if row is None:
        raise NotThere(f"There is no runtime {runtime_id}.", "GET /api/v1/runtimes lists them.")
    return row


def _save(row: rows.Runtime, values: dict[str, Any], actor: Actor) -> rows.Runtime:
    if "host" in values:
        values["pool"] = _pool_of(values.pop("host"))
    values = {name: value for name, value in values.items() if row.pk is None or getattr(row, name) != value}
    for name, value in values.items():
        setattr(row, name, value)
    row.url = runtimes.checked_address(row.kind, row.url)
    try:
        row.full_clean()
        runtimes.save_runtime(row, changed=list(values), actor=actor)
    except ValidationError as exc:
        errors = [(name, text) for name, texts in exc.message_dict.items() for text in texts]
        raise InvalidRequest("The runtime has errors.", errors) from exc
    except IntegrityError as exc:  # somebody else took the name in the same moment
        raise InvalidRequest("The runtime has errors.", [("name", "is taken")]) from exc
    return row


def _pool_of(host: str) -> rows.MemoryPool:
    """The memory of a host, or the only one there is."""
    pools = list(rows.MemoryPool.objects.filter(**({"host": host} if host else {}))[:2])
    if len(pools) != 1:
        known = ", ".join(rows.MemoryPool.objects.order_by("host").values_list("host", flat=True)) or "none"
        raise InvalidRequest("The runtime has errors.", [("host", f"must be one of: {known}")])
    return pools[0]
