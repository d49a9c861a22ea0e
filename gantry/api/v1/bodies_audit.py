"""Audit entries as the API gives them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from ninja import Schema
from pydantic import Field

from gantry.api.v1.bodies import Cursor
from models_admin.audit_review import AuditFilter
from models_admin.audit_words import audit_sentence
from models_admin.models import AuditEntry

FIRST_DAY, LAST_DAY = date(1970, 1, 2), date(9000, 1, 1)


class AuditQuery(Schema):
    """Which entries; what is left out leaves nothing out."""

    who: str = Field("", max_length=200, description="A user's name.")
    what: str = Field("", max_length=200, description="A kind of event, such as `model:switch:request`.")
    model: str = Field("", max_length=200, description="The object: a model's name, or a runtime's, a user's …")
    outcome: str = Field("", max_length=200, description="succeeded, failed, cancelled …")
    since: date | None = Field(None, ge=FIRST_DAY, le=LAST_DAY, description="First day, in the server's time zone.")
    until: date | None = Field(None, ge=FIRST_DAY, le=LAST_DAY, description="Last day.")
    q: str = Field("", max_length=200, description="Looked for in the names of people and objects, and in addresses.")

    def as_filter(self) -> AuditFilter:
        """The same as the review page's own filter."""
        given = {name: str(getattr(self, name) or "") for name in AuditQuery.model_fields}
        return AuditFilter.from_query(given)


class AuditPageQuery(Cursor, AuditQuery):
    """Which entries, and which part of them; newest first."""


class ExportQuery(AuditQuery):
    """Which entries, and as what."""

    format: Literal["csv", "jsonl"] = "csv"


class Entry(Schema):
    """One thing that somebody did or that happened by itself. Never changed."""

    id: int
    at: datetime
    actor_name: str = Field(description="“system” when nobody asked.")
    via: str
    address: str
    event: str
    object_text: str
    job_id: int | None
    before: Any
    after: Any
    outcome: str
    sentence: str = Field(description="The same for people.")
    previous_hash: str
    hash: str = Field(description="SHA-256 over the entry and `previous_hash`.")


class EntryList(Schema):
    """A page of entries. They are not counted: there may be millions."""

    items: list[Entry]
    next: int | None = Field(description="`after` of the next page; null: this is the last one.")


def entry_body(entry: AuditEntry) -> dict[str, Any]:
    """Entry of a row."""
    own = {name: getattr(entry, name) for name in Entry.model_fields if name != "sentence"}
    return {**own, "sentence": audit_sentence(entry)}
