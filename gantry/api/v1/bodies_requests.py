"""Requests of those who may not switch, as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Schema
from pydantic import Field

from gantry.api.v1.bodies import Strict
from models_admin.models import SwitchRequest as Row


class RequestIn(Strict):
    """Asking for a model."""

    model_id: str = Field(min_length=1, max_length=200)
    reason: str = Field("", max_length=300, description="For those who answer.")


class ApproveIn(Strict):
    """Saying yes."""

    confirm: bool = Field(
        False, description="As for a job: what was answered with `needs_confirmation` is done all the same."
    )


class DeclineIn(Strict):
    """Saying no."""

    answer: str = Field("", max_length=300, description="A word to the one who asked.")


class SwitchRequest(Schema):
    """Somebody who may not switch asks for a model."""

    id: int
    user: str
    model_id: str
    model_name: str
    reason: str
    state: Literal["open", "approved", "declined", "withdrawn", "expired"]
    created_at: datetime
    answered_at: datetime | None
    answered_by_name: str
    answer: str
    job_id: int | None = Field(description="The switch that an approval began.")


class RequestList(Schema):
    """Requests, oldest first."""

    items: list[SwitchRequest]


def request_body(row: Row) -> dict[str, Any]:
    """SwitchRequest of a row with its user and model."""
    names = ("id", "reason", "state", "created_at", "answered_at", "answered_by_name", "answer", "job_id")
    return {
        **{name: getattr(row, name) for name in names},
        "user": row.user.get_username(),
        "model_id": row.model.model_id,
        "model_name": row.model.name,
    }
