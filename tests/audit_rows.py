"""Many audit entries at once, chained as the application would, for tests and measurements of long logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from django.db import connection, transaction

from models_admin.audit_hash import moment_text, seal
from models_admin.models import AuditEntry, AuditHead

PEOPLE = ("ann", "ben", "cleo", "dora", "emil")
MODELS = ("SmolLM2", "Gemma 3", "Qwen 3", "Mistral Small", "Llama 3.2")
START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = (
    "id", "at", "actor_id", "actor_name", "via", "address", "event", "object_text", "job_id", "before", "after", "outcome",
    "previous_hash", "hash",
)  # fmt: skip
_BATCH = 5000


def fill_audit(count: int, *, start: datetime = START, every: timedelta = timedelta(seconds=30)) -> None:
    """Add `count` entries behind those that are there, from `start` on."""
    with transaction.atomic():
        head = AuditHead.locked()
        rows = _rows(head, count, start, every)
        marks = ", ".join(["%s"] * len(COLUMNS))
        sql = f"INSERT INTO {AuditEntry._meta.db_table} ({', '.join(COLUMNS)}) VALUES ({marks})"
        with connection.cursor() as cursor:
            while batch := list(islice(rows, _BATCH)):
                cursor.executemany(sql, batch)
        head.count += count
        head.keep(is_genuine=True)


def _rows(head: AuditHead, count: int, start: datetime, every: timedelta) -> Iterator[list[Any]]:
    for number in range(count):
        at = start + number * every
        values = {**_values(number), "id": head.entry_id + 1, "at": moment_text(at), "previous_hash": head.hash}
        head.entry_id, head.hash = head.entry_id + 1, seal(values)
        stored = {
            **values,
            "at": connection.ops.adapt_datetimefield_value(at),
            "before": json.dumps(values["before"]),
            "after": json.dumps(values["after"]),
            "hash": head.hash,
        }
        yield [stored[name] for name in COLUMNS]


def _values(number: int) -> dict[str, Any]:
    """A switch that succeeded, mostly; every 1,000th of another kind."""
    model, is_odd = MODELS[number * 7 % len(MODELS)], number % 1000 == 999
    return {
        "actor_id": None,
        "actor_name": "rare" if is_odd else PEOPLE[number % len(PEOPLE)],
        "via": "page",
        "address": "192.0.2.77" if is_odd else "127.0.0.1",
        "event": "policy:change" if is_odd else "job:end",
        "object_text": "Switch policy" if is_odd else model,
        "job_id": None,
        "before": {"active": MODELS[number % len(MODELS)]},
        "after": {"kind": "switch", "seconds": 14.2, "stages": [{"step": "load", "seconds": 12.5}]},
        "outcome": "failed" if is_odd else "succeeded",
    }
