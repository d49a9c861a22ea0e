"""What the tests of the chain share: a look at the rows past the models, and the commands."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

from django.core.management import call_command
from django.db import connection
from typing_extensions import override

from models_admin.audit_hash import seal
from models_admin.models import AuditEntry
from tests.audit_rows import COLUMNS

TABLE = AuditEntry._meta.db_table


def sql(text: str, *parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(text, parameters)
        return cursor.fetchall() if cursor.description else []


def stored(number: int) -> dict[str, Any]:
    [row] = sql(f"SELECT {', '.join(COLUMNS)} FROM {TABLE} WHERE id = %s", number)
    return dict(zip(COLUMNS, row, strict=True))


def put(row: dict[str, Any]) -> None:
    marks = ", ".join(["%s"] * len(COLUMNS))
    sql(f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES ({marks})", *(row[name] for name in COLUMNS))


def resealed(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the hash that its values have: what a forger would do who knows how entries are sealed."""
    at = datetime.fromisoformat(str(row["at"])).replace(tzinfo=UTC)
    values = {**row, "at": at.isoformat(timespec="microseconds")}
    values |= {name: json.loads(row[name]) for name in ("before", "after")}
    del values["hash"]
    return {**row, "hash": seal(values)}


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and what was printed."""
    printed = io.StringIO()
    try:
        call_command(*arguments, stdout=printed)
    except SystemExit as exc:
        return int(str(exc.code)), printed.getvalue()
    return 0, printed.getvalue()


class AnyWith(str):
    """Equal to any text that holds this one."""

    __slots__ = ()
    __hash__ = str.__hash__

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in other
