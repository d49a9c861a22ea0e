"""Database triggers that refuse to change or delete an audit entry, for SQLite and PostgreSQL; anchors of archives too.

Made by a migration, and again after every `migrate`: SQLite drops the triggers of a table that a later migration rebuilds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

TABLES = ("models_admin_auditentry", "models_admin_auditanchor")
_MESSAGE = "audit entries are only ever added"
_FUNCTION = "models_admin_audit_refuse"


def create(connection: BaseDatabaseWrapper) -> None:
    """Make those that are missing. Other databases than the two get none."""
    with connection.cursor() as cursor:
        for statement in _creating(connection.vendor):
            cursor.execute(statement)


def drop(connection: BaseDatabaseWrapper) -> None:
    """Remove them, for an archive or before the tables go."""
    with connection.cursor() as cursor:
        for name, table in _names(connection.vendor):
            on_table = f" ON {table}" if connection.vendor == "postgresql" else ""
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}{on_table}")


def missing(connection: BaseDatabaseWrapper) -> list[str]:
    """Names of triggers that should be there and are not."""
    source = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'",
    }.get(connection.vendor)
    if source is None:
        return []
    with connection.cursor() as cursor:
        cursor.execute(source)
        there = {row[0] for row in cursor.fetchall()}
    return [name for name, _table in _names(connection.vendor) if name not in there]


@contextmanager
def lifted(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """A transaction in which entries may be deleted. Nobody else is free of the triggers meanwhile: both databases lock them out."""
    with transaction.atomic(using=connection.alias):
        drop(connection)
        yield
        create(connection)


def after_migrate(*, using: str, **kwargs: Any) -> None:
    """Receiver of post_migrate. `flush` sends it as well, without a plan: then tables were emptied, not rebuilt."""
    from django.db import connections

    connection = connections[using]
    if "plan" in kwargs and set(TABLES) <= set(connection.introspection.table_names()):
        create(connection)


def _names(vendor: str) -> list[tuple[str, str]]:
    """(trigger, table)."""
    verbs = {"sqlite": ("update", "delete", "replace"), "postgresql": ("change", "truncate")}.get(vendor, ())
    return [(f"{table}_no_{verb}", table) for table in TABLES for verb in verbs]


def _creating(vendor: str) -> Iterator[str]:
    if vendor == "postgresql":
        yield (
            f"CREATE OR REPLACE FUNCTION {_FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_MESSAGE}'; END $$"
        )
    for name, table in _names(vendor):
        verb = name.rpartition("_no_")[2]
        yield _for_sqlite(name, table, verb) if vendor == "sqlite" else _for_postgresql(name, table, verb)


def _for_sqlite(name: str, table: str, verb: str) -> str:
    # INSERT OR REPLACE takes a row away without asking the trigger for deletions.
    when = {"replace": f"INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)"}  # noqa: S608
    event = when.get(verb, f"{verb.upper()} ON {table}")
    return f"CREATE TRIGGER IF NOT EXISTS {name} BEFORE {event} BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"


def _for_postgresql(name: str, table: str, verb: str) -> str:
    when, each = ("TRUNCATE", "STATEMENT") if verb == "truncate" else ("UPDATE OR DELETE", "ROW")
    return f"CREATE OR REPLACE TRIGGER {name} BEFORE {when} ON {table} FOR EACH {each} EXECUTE FUNCTION {_FUNCTION}()"
