"""What several things of the API share: base classes, pages of lists, numbers in addresses."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from ninja import Path, Schema
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

LARGEST_ID = 2**63 - 1  # what a column holds
MOST_ITEMS = 200

# A row's number in an address.
RowId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


class Strict(Schema):
    """What a client sends. A name that is none of ours is refused: it would be a wish that nobody fulfils. `true` is no number."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic would take `true` for 1, which nobody has meant."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and int in (annotation, *get_args(annotation)):
            raise PydanticKnownError("int_type")
        return value


class Page(Schema):
    """Which part of a list: for lists that are short and seldom change."""

    limit: int = Field(50, ge=1, le=MOST_ITEMS, description="How many at most.")
    offset: int = Field(0, ge=0, le=1_000_000, description="How many are passed over.")


class Cursor(Schema):
    """Which part of a list: for lists that are long and grow at their beginning."""

    limit: int = Field(50, ge=1, le=MOST_ITEMS, description="How many at most.")
    after: int | None = Field(
        None, ge=1, le=LARGEST_ID, description="The `next` of the page before: what follows that row, which is older."
    )
