"""Runtimes as the API takes and gives them. Keys go in and never come out."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Schema
from pydantic import Field

from gantry.api.v1.bodies import Strict
from gantry.runtimes.base import ProgressKind
from gantry.runtimes.registry import capabilities_of
from models_admin.models import Runtime as Row
from models_admin.runtime_access import model_limit

Kind = Literal["llama_server", "llama_router", "tabby", "null"]
_KEY = "Never shown again. “env:NAME” reads it from an environment variable of the worker; an empty text removes it."


class Abilities(Schema):
    """What a kind of runtime can do."""

    holds_many: bool = Field(description="Several models at once.")
    progress: ProgressKind = Field(description="What it tells of a load that runs.")
    can_cancel_load: bool
    owns_processes: bool = Field(description="Gantry starts and ends its servers.")


class Runtime(Schema):
    """A program that holds models, with its health as a worker saw it last."""

    id: int
    name: str
    kind: str
    host: str = Field(description="Name of the worker that drives it.")
    url: str = Field(description="Empty: Gantry starts it.")
    options: dict[str, Any]
    has_api_key: bool
    has_admin_key: bool
    is_enabled: bool
    is_healthy: bool
    health_text: str
    version: str
    checked_at: datetime | None
    most_models: int | None = Field(
        description="It holds so many at once at the most; null: as many as there is memory for."
    )
    abilities: Abilities


class RuntimeList(Schema):
    """A page of runtimes."""

    items: list[Runtime]
    count: int = Field(description="How many there are in all pages.")


class RuntimeChange(Strict):
    """What is to be different. What is left out stays as it is."""

    name: str | None = Field(None, min_length=1, max_length=100)
    kind: Kind | None = None
    host: str | None = Field(None, max_length=100, description="One of the hosts whose memory is known.")
    url: str | None = Field(None, max_length=500, description="Of a server that runs already: scheme, host and port.")
    options: dict[str, Any] | None = Field(None, description="Settings of this kind of runtime.")
    api_key: str | None = Field(None, max_length=2000, description=_KEY)
    admin_key: str | None = Field(None, max_length=2000, description=_KEY)
    is_enabled: bool | None = None


class RuntimeIn(RuntimeChange):
    """A new runtime. Its host may be left out where there is only one."""

    name: str = Field(min_length=1, max_length=100)
    kind: Kind


class RefreshAnswer(Schema):
    """A worker was asked to look."""

    host: str
    sent: bool


def runtime_body(row: Row) -> dict[str, Any]:
    """Runtime of a row with its pool."""
    own = ("id", "name", "kind", "url", "options", "is_enabled", "is_healthy", "health_text", "version", "checked_at")
    can = capabilities_of(row.kind)
    return {
        **{name: getattr(row, name) for name in own},
        "host": row.pool.host,
        "has_api_key": bool(row.api_key),
        "has_admin_key": bool(row.admin_key),
        "most_models": model_limit(row),
        "abilities": {name: getattr(can, name) for name in Abilities.model_fields},
    }
