"""Entries are only ever added: the database refuses the rest, and those from before are chained."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from models_admin import audit, audit_chain, audit_triggers
from models_admin.actor import SYSTEM
from models_admin.audit import AuditEvent
from models_admin.models import AuditAnchor, AuditEntry, AuditHead
from tests.audit_rows import fill_audit
from tests.integration.audit_chain.helpers import TABLE, sql

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE {TABLE} SET outcome = 'x' WHERE id = 2",
        f"UPDATE {TABLE} SET outcome = outcome",
        f"DELETE FROM {TABLE} WHERE id = 2",
        f"DELETE FROM {TABLE}",
        "DELETE FROM models_admin_auditanchor",
        "UPDATE models_admin_auditanchor SET count = 3",
    ],
)
def test_database_refuses_to_change_or_delete(triggers: None, statement: str) -> None:
    fill_audit(3)
    AuditAnchor.objects.create(entry_id=0, hash="", count=0)
    with pytest.raises(DatabaseError, match="only ever added"):
        sql(statement)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite replaces rows")
def test_database_refuses_to_replace(triggers: None) -> None:
    fill_audit(3)
    with pytest.raises(DatabaseError, match="only ever added"):
        sql(f"INSERT OR REPLACE INTO {TABLE} SELECT * FROM {TABLE} WHERE id = 2")


def test_database_lets_entries_be_added(triggers: None) -> None:
    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="host")
    assert audit_chain.verify().warnings == ()


def test_model_refuses_to_change_delete_or_add_past_the_chain() -> None:
    fill_audit(1)
    entry = AuditEntry.objects.get()
    for refused in (entry.save, entry.delete, lambda: AuditEntry.objects.bulk_create([AuditEntry()])):
        with pytest.raises(TypeError):
            refused()


def test_missing_triggers_are_told_and_made_again_by_migrate() -> None:
    fill_audit(1)
    [warning] = audit_chain.verify().warnings
    assert "run `manage.py migrate`" in warning
    call_command("migrate", verbosity=0)
    assert audit_chain.verify().warnings == ()


def test_emptying_the_tables_of_a_test_makes_no_triggers() -> None:
    call_command("flush", interactive=False, verbosity=0)
    assert audit_triggers.missing(connection)


def test_entries_from_before_the_chain_are_chained_by_the_migration() -> None:
    executor = MigrationExecutor(connection)
    newest = executor.loader.graph.leaf_nodes("models_admin")
    executor.migrate([("models_admin", "0003_policy_and_ledgers")])
    try:
        for number in (1, 2, 5):  # PostgreSQL leaves gaps where something was rolled back
            sql(
                f"INSERT INTO {TABLE} (id, at, actor_name, via, address, event, object_text, before, after, outcome) "
                "VALUES (%s, %s, 'ann', 'page', '', 'policy:change', 'Switch policy', %s, %s, '')",
                number, "2026-01-01 00:00:00.5", '{"a": 1.0, "b": [1e20, -0.0, 0.1]}', "{}",
            )  # fmt: skip
    finally:
        MigrationExecutor(connection).migrate(newest)

    assert audit_triggers.missing(connection) == []
    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="host")
    report = audit_chain.verify()
    assert (report.is_whole, report.count, report.last_id, AuditHead.current().count) == (True, 4, 6, 4)
