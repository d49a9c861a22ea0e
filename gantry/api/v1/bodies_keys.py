"""Keys of programs as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.utils import timezone
from ninja import Schema
from pydantic import AwareDatetime, Field

from gantry.api.v1.bodies import Strict
from models_admin.models import ApiKey
from models_admin.models.api_key import Scope


class KeyIn(Strict):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=100, description="What it is for.")
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=10,
        description="status: see models, switches and memory. chat. switch: also switch, unload, restart, and cancel switches of its "
        "user. admin: everything that its user may do.",
    )
    model_ids: list[str] = Field(
        default_factory=list, max_length=1000, description="Models that it may be used for; empty: all."
    )
    expires_at: AwareDatetime | None = Field(None, description="In the future, before the year 2200; null: never.")
    switches_per_minute: int | None = Field(
        None, ge=0, le=1000, description="Instead of the limit for its user; 0: no limit. For administrators."
    )
    user: str | None = Field(None, max_length=150, description="Whose key; null: of whoever asks.")


class Key(Schema):
    """A key, without its secret."""

    id: int
    name: str
    prefix: str = Field(description="Its readable beginning.")
    user: str
    scopes: list[str]
    model_ids: list[str]
    switches_per_minute: int | None
    state: Literal["valid", "expired", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Exact to a minute.")
    revoked_at: datetime | None


class NewKey(Schema):
    """A key that was just made."""

    key: Key
    token: str = Field(description="What the program sends: “Authorization: Bearer gty_…”. Shown now and never again.")


class KeyList(Schema):
    """A page of keys."""

    items: list[Key]
    count: int = Field(description="How many there are in all pages.")


def key_body(row: ApiKey) -> dict[str, Any]:
    """Key of a row with its user."""
    own = {name: getattr(row, name) for name in Key.model_fields if name not in {"user", "state"}}
    return {**own, "user": row.user.get_username(), "state": _state(row)}


def _state(row: ApiKey) -> str:
    if row.revoked_at is not None:
        return "revoked"
    return "valid" if row.is_valid(timezone.now()) else "expired"
