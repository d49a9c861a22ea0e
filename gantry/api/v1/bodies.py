"""What several things of the API share: base classes, pages of lists, numbers in addresses."""

from __future__ import annotations

from typing import Annotated

from ninja import Path, Schema
from pydantic import ConfigDict, Field

LARGEST_ID = 2**63 - 1  # what a column holds
MOST_ITEMS = 200

# A row's number in an address.
RowId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


class Strict(Schema):
    """What a client sends. A name that is none of ours is refused: it would be a wish that nobody fulfils."""

    model_config = ConfigDict(extra="forbid")


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
