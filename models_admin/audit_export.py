"""Audit entries as CSV and JSON Lines, a batch at a time, so that the whole log needs no more memory than a page of it."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils import timezone

from models_admin import audit, audit_review
from models_admin.actor import Actor
from models_admin.audit_hash import canonical
from models_admin.audit_review import AuditFilter
from models_admin.audit_words import audit_sentence
from models_admin.models import AuditEntry

Format = Literal["csv", "jsonl"]
CONTENT_TYPES: dict[str, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
COLUMNS = (
    "id", "at", "actor_name", "via", "address", "event", "object_text", "job_id", "before", "after", "outcome", "sentence",
    "previous_hash", "hash",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def answer_with_file(
    request: HttpRequest, wanted: AuditFilter, file_format: Format, *, actor: Actor
) -> StreamingHttpResponse:
    """The entries that are wanted as a file to be kept. That somebody took it away is written down too."""
    audit.write(
        audit.AuditEvent.AUDIT_EXPORT,
        actor=actor,
        object_text="Audit log",
        after={"format": file_format, "filter": wanted.as_query()},
    )
    pieces = export(wanted, file_format)
    # Each server takes one kind of iterator only; the other it would read to its end into memory.
    content = _in_threads(pieces) if isinstance(request, ASGIRequest) else pieces
    response = StreamingHttpResponse(content, content_type=CONTENT_TYPES[file_format])
    response.headers["Content-Disposition"] = f'attachment; filename="audit-{timezone.localdate()}.{file_format}"'
    return response


def export(wanted: AuditFilter, file_format: Format) -> Iterator[str]:
    """The entries that are wanted, oldest first, as pieces of a file.

    JSON Lines hold exactly what each hash covers, and the hash; CSV adds the sentence that people read.
    """
    if file_format == "csv":
        yield _csv([dict(zip(COLUMNS, COLUMNS, strict=True))])
    for batch in audit_review.read_all(wanted):
        yield _csv([_cells(entry) for entry in batch]) if file_format == "csv" else "".join(map(json_line, batch))


def json_line(entry: AuditEntry) -> str:
    """One entry as a line."""
    return canonical({**entry.sealed_values(), "hash": entry.hash}) + "\n"


def _cells(entry: AuditEntry) -> dict[str, Any]:
    values = {**entry.sealed_values(), "hash": entry.hash, "sentence": audit_sentence(entry)}
    return {**values, "before": canonical(values["before"]), "after": canonical(values["after"])}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([_harmless(row[name]) for name in COLUMNS] for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """A spreadsheet takes text that begins like a formula for one and carries it out."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


async def _in_threads(pieces: Iterator[str]) -> AsyncIterator[str]:
    """Piece by piece, each read where Django reads its database."""

    def next_piece() -> str | None:
        return next(pieces, None)

    while (piece := await sync_to_async(next_piece)()) is not None:
        yield piece
