"""The audit log: read and export. Nothing here changes it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, StreamingHttpResponse
from ninja import Query

from gantry.api.v1.bodies import RowId
from gantry.api.v1.bodies_audit import AuditPageQuery, Entry, EntryList, ExportQuery, entry_body
from gantry.api.v1.common import NotThere, allowed, answers, new_router
from models_admin import audit_export, audit_review
from models_admin.models import AuditEntry

router = new_router("Audit")
_SEE = ("view_auditentry", "see the audit log")
_FILES = {
    "responses": {
        200: {
            "content": {"text/csv": {"schema": {"type": "string"}}, "application/jsonl": {"schema": {"type": "string"}}}
        }
    }
}


@router.get("", response=answers({200: EntryList}), operation_id="list_audit", summary="List audit entries")
def list_entries(request: HttpRequest, query: Query[AuditPageQuery]) -> dict[str, Any]:
    """Who did what, newest first. Needs the right to see the audit log."""
    allowed(request, *_SEE)
    page = audit_review.read_page(query.as_filter(), below=query.after, limit=query.limit)
    return {"items": [entry_body(entry) for entry in page.entries], "next": page.older}


@router.get(
    "/export",
    response=answers({200: None}),
    operation_id="export_audit",
    summary="Export audit entries",
    openapi_extra=_FILES,
)
def export(request: HttpRequest, query: Query[ExportQuery]) -> StreamingHttpResponse:
    """The entries as CSV or JSON Lines, oldest first, streamed. JSON Lines hold exactly what each hash covers, and the hash.

    That somebody exported them is written to the log too.
    """
    actor = allowed(request, *_SEE)
    return audit_export.answer_with_file(request, query.as_filter(), query.format, actor=actor)


@router.get(
    "/{entry_id}", response=answers({200: Entry}), operation_id="read_audit_entry", summary="Read an audit entry"
)
def read(request: HttpRequest, entry_id: RowId) -> dict[str, Any]:
    """One entry."""
    allowed(request, *_SEE)
    entry = AuditEntry.objects.filter(pk=entry_id).first()
    if entry is None:
        raise NotThere(f"There is no audit entry {entry_id}.", "It may have been archived.")
    return entry_body(entry)
