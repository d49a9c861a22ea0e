"""The chain of audit entries: what is changed by SQL is found and named, writers never fork it, old entries can be archived."""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.test import override_settings
from typing_extensions import override

from gantry.planning.states import JobState
from models_admin import audit, audit_archive, audit_chain, audit_triggers, job_moves
from models_admin.actor import COMMAND, SYSTEM, Actor
from models_admin.audit import AuditEvent
from models_admin.audit_hash import GENESIS, plain, seal
from models_admin.models import AuditAnchor, AuditEntry, AuditHead, ModelDefinition
from tests.audit_rows import COLUMNS, START, fill_audit
from tests.factories import make_job

pytestmark = pytest.mark.django_db(transaction=True)
TABLE = AuditEntry._meta.db_table
ROWS = 24
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_triggers_left(transactional_db: None) -> Iterator[None]:
    """An archive makes them again, and then the tables could not be emptied after the test."""
    yield
    audit_triggers.drop(connection)


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


def shift(first: int, by: int) -> None:
    """Move rows to other numbers, over free ones so that no two meet."""
    sql(f"UPDATE {TABLE} SET id = id + 1000000 WHERE id >= %s", first)
    sql(f"UPDATE {TABLE} SET id = id - 1000000 + %s WHERE id >= 1000000", by)


# Each does something to the log and gives the number of the entry that has to be named.


def edit(chance: random.Random) -> int:
    number = chance.randint(1, ROWS)
    column, value = chance.choice(
        [("actor_name", "eve"), ("outcome", "failed"), ("at", "2020-01-01 00:00:00"), ("after", '{"seconds": 1}'),
         ("actor_id", 77), ("address", "192.0.2.1"), ("previous_hash", "0" * 63 + "1"), ("hash", "f" * 64)]
    )  # fmt: skip
    sql(f"UPDATE {TABLE} SET {column} = %s WHERE id = %s", value, number)
    return number


def edit_and_reseal(chance: random.Random) -> int:
    number = chance.randint(1, ROWS)
    row = resealed({**stored(number), "actor_name": "eve"})
    sql(f"UPDATE {TABLE} SET actor_name = 'eve', hash = %s WHERE id = %s", row["hash"], number)
    return number


def delete(chance: random.Random) -> int:
    number = chance.randint(1, ROWS)
    sql(f"DELETE FROM {TABLE} WHERE id = %s", number)
    return number


def delete_and_close_the_gap(chance: random.Random) -> int:
    number = chance.randint(1, ROWS - 1)
    sql(f"DELETE FROM {TABLE} WHERE id = %s", number)
    shift(number + 1, -1)
    return number


def insert_between(chance: random.Random) -> int:
    number = chance.randint(2, ROWS)
    shift(number, 1)
    before = stored(number - 1)
    row = {**before, "id": number, "actor_name": "eve", "previous_hash": before["hash"]}
    put(chance.choice([row, resealed(row)]))
    return number


def insert_outside(chance: random.Random) -> int:
    last = stored(ROWS)
    number, previous = chance.choice([(0, GENESIS), (-5, GENESIS), (ROWS + 1, last["hash"])])
    put(resealed({**last, "id": number, "actor_name": "eve", "previous_hash": previous}))
    return number


def reorder(chance: random.Random) -> int:
    first, second = sorted(chance.sample(range(1, ROWS + 1), 2))
    sql(f"UPDATE {TABLE} SET id = -1 WHERE id = %s", first)
    sql(f"UPDATE {TABLE} SET id = %s WHERE id = %s", first, second)
    sql(f"UPDATE {TABLE} SET id = %s WHERE id = -1", second)
    return first


def reorder_moments(chance: random.Random) -> int:
    first, second = sorted(chance.sample(range(1, ROWS + 1), 2))
    one, other = stored(first)["at"], stored(second)["at"]
    sql(f"UPDATE {TABLE} SET at = %s WHERE id = %s", other, first)
    sql(f"UPDATE {TABLE} SET at = %s WHERE id = %s", one, second)
    return first


TAMPERING: list[Callable[[random.Random], int]] = [
    edit, edit_and_reseal, delete, delete_and_close_the_gap, insert_between, insert_outside, reorder, reorder_moments,
]  # fmt: skip


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda function: function.__name__)
def test_tampering_is_found_in_100_of_100_tries_and_the_right_entry_named(
    tamper: Callable[[random.Random], int],
) -> None:
    fill_audit(ROWS)
    assert audit_chain.verify().is_whole
    wrong = []
    for attempt in range(100):
        with transaction.atomic():
            expected = tamper(random.Random(f"{tamper.__name__}-{attempt}"))
            broken = audit_chain.verify().broken
            if broken is None or broken.entry_id != expected:
                wrong.append((attempt, expected, broken))
            transaction.set_rollback(True)
    assert not wrong
    assert audit_chain.verify().is_whole


def test_a_chain_rewritten_from_some_entry_to_its_end_is_found() -> None:
    fill_audit(ROWS)
    previous = stored(9)["hash"]
    for number in range(10, ROWS + 1):
        row = resealed({**stored(number), "actor_name": "eve", "previous_hash": previous})
        previous = row["hash"]
        sql(f"DELETE FROM {TABLE} WHERE id = %s", number)
        put(row)
    sql("UPDATE models_admin_audithead SET hash = %s", previous)

    assert not audit_chain.verify().is_whole
    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="later entries do not hide it")
    assert not audit_chain.verify().is_whole


def test_a_removed_head_is_found() -> None:
    fill_audit(3)
    AuditHead.objects.all().delete()

    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="host")

    assert AuditEntry.objects.order_by("pk").values_list("pk", flat=True).last() == 4
    assert "not signed" in (audit_chain.verify().broken or audit_chain.Break(None, "")).text


def test_entries_name_the_one_before_and_are_numbered_without_a_gap(admin_person: User) -> None:
    for number in range(3):
        audit.write(AuditEvent.MODEL_PIN, actor=Actor(admin_person, "page"), object_text=f"Model {number}")
    one, two, three = AuditEntry.objects.order_by("pk")

    assert (one.pk, two.pk, three.pk) == (1, 2, 3)
    assert (one.previous_hash, two.previous_hash, three.previous_hash) == (GENESIS, one.hash, two.hash)
    assert audit_chain.verify().count == 3


def test_values_that_databases_store_differently_do_not_break_the_chain() -> None:
    odd: dict[Any, Any] = {
        "big": 1e20,
        "small": 1e-7,
        "zero": -0.0,
        "whole": 5.0,
        "nan": float("nan"),
        "text": "a\0\ud800",
        3: (1, 2),
    }
    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="x\0" * 300, before=odd, after={"at": START})

    assert audit_chain.verify().is_whole
    entry = AuditEntry.objects.get()
    assert entry.before == plain(odd)
    assert len(entry.object_text) == 200


def test_entry_of_a_mutation_that_is_rolled_back_leaves_no_trace() -> None:
    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="one")
    with transaction.atomic():
        audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="never")
        transaction.set_rollback(True)
    audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text="two")

    assert list(AuditEntry.objects.order_by("pk").values_list("pk", "object_text")) == [(1, "one"), (2, "two")]
    assert audit_chain.verify().is_whole


def test_deleting_a_user_or_a_job_leaves_the_entry_as_it_was(null_runtime: Any, small: ModelDefinition) -> None:
    ann = User.objects.create_user("ann")
    job = make_job(null_runtime.pool, small)
    audit.write(AuditEvent.SWITCH_REQUEST, actor=Actor(ann, "page"), object_text="Small", job=job)
    user_id, job_id = ann.pk, job.pk

    ann.delete()
    job.delete()

    entry = AuditEntry.objects.get()
    assert (entry.actor_id, entry.actor_name, entry.job_id) == (user_id, "ann", job_id)
    assert audit_chain.verify().is_whole


def test_end_of_a_job_keeps_its_seconds_by_stage(null_runtime: Any, small: ModelDefinition) -> None:
    steps = [
        {"kind": "load", "model_name": "Small", "state": "done", "seconds": 12.5, "percent": 100},
        {"kind": "verify", "model_name": "Small", "state": "pending", "seconds": None, "percent": 0},
    ]
    job = make_job(null_runtime.pool, small, state="loading", steps=steps)

    job_moves.finish(job, JobState.FAILED, text="Failed", rolled_back=True, aftermath="Other was put back.")

    rollback, end = AuditEntry.objects.order_by("pk")
    assert (rollback.event, rollback.after["aftermath"]) == (AuditEvent.JOB_ROLLBACK, "Other was put back.")
    assert end.after["stages"] == [{"step": "load", "model": "Small", "seconds": 12.5, "state": "done"}]


# Writers


def _write_some(label: str, count: int) -> None:
    for number in range(count):
        with transaction.atomic():
            audit.write(AuditEvent.RECOVERY, actor=SYSTEM, object_text=f"{label}-{number}")
    connection.close()


PROCESS = """
import sys, django
django.setup()
from django.db import connection, transaction
from django.conf import settings
connection.settings_dict["NAME"], settings.SECRET_KEY = sys.argv[1], sys.argv[3]
from models_admin import audit
from models_admin.actor import SYSTEM
for number in range(25):
    with transaction.atomic():
        audit.write(audit.AuditEvent.RECOVERY, actor=SYSTEM, object_text=f"{sys.argv[2]}-{number}")
"""


def test_threads_keep_one_chain() -> None:
    threads = [threading.Thread(target=_write_some, args=(f"thread {n}", 25)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    report = audit_chain.verify()
    assert (report.is_whole, report.count, report.last_id) == (True, 100, 100)


def test_processes_keep_one_chain() -> None:
    command = [sys.executable, "-c", PROCESS, str(connection.settings_dict["NAME"])]
    processes = [
        subprocess.Popen([*command, f"process {number}", settings.SECRET_KEY], cwd=ROOT) for number in range(3)
    ]

    assert [process.wait(60) for process in processes] == [0, 0, 0]
    report = audit_chain.verify()
    assert (report.is_whole, report.count, report.last_id) == (True, 75, 75)


# Only ever added


@pytest.fixture
def triggers(transactional_db: None) -> None:
    audit_triggers.create(connection)


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


# Commands


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and what was printed."""
    printed = io.StringIO()
    try:
        call_command(*arguments, stdout=printed)
    except SystemExit as exc:
        return int(str(exc.code)), printed.getvalue()
    return 0, printed.getvalue()


def test_verify_says_how_many_are_right() -> None:
    assert run("audit_verify") == (0, AnyWith("There is no entry yet."))
    fill_audit(1200)
    assert run("audit_verify") == (0, AnyWith("1,200 entries are right, 1 to 1200."))
    head = AuditHead.current()
    assert (head.verified_count, head.broken_text) == (1200, "")


def test_verify_names_the_broken_entry_and_exits_with_1() -> None:
    fill_audit(9)
    sql(f"UPDATE {TABLE} SET actor_name = 'eve' WHERE id = 5")

    assert run("audit_verify") == (1, AnyWith("entry 5 was changed"))
    code, printed = run("audit_verify", "--json")
    assert (code, json.loads(printed)["broken"]["entry"]) == (1, 5)
    assert AuditHead.current().broken_entry_id == 5


def test_changed_secret_key_is_told_and_healed_by_signing_anew() -> None:
    fill_audit(2)
    with override_settings(SECRET_KEY="another"):
        code, printed = run("audit_verify")
        assert (code, "SECRET_KEY was changed" in printed) == (1, True)
        assert run("audit_verify", "--sign") == (0, AnyWith("3 entries are right"))
        entry = AuditEntry.objects.latest("pk")
        assert (entry.event, "SECRET_KEY" in entry.before["broken"]) == (AuditEvent.AUDIT_SIGN, True)
    with override_settings(SECRET_KEY="third", SECRET_KEY_FALLBACKS=["another"]):
        assert audit_chain.verify().is_whole


def test_archive_then_verify(triggers: None, tmp_path: Path) -> None:
    fill_audit(100)
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"

    assert run("audit_archive", "--before", "2025-12-31", "--to", str(first)) == (0, AnyWith("No entry is older"))
    assert audit_archive.archive(START + timedelta(seconds=30 * 40), first, actor=COMMAND)
    assert run("audit_verify") == (0, AnyWith("61 entries are right, 41 to 101."))
    assert run("audit_verify", "--file", str(first)) == (0, AnyWith("40 entries are right, 1 to 40."))

    assert audit_archive.archive(START + timedelta(seconds=30 * 70), second, actor=COMMAND)
    assert run("audit_verify") == (0, AnyWith("32 entries are right, 71 to 102."))
    assert run("audit_verify", "--file", str(second)) == (0, AnyWith("30 entries are right, 41 to 70."))
    assert AuditHead.current().count == 32
    assert oct(first.stat().st_mode & 0o777) == "0o600"
    with pytest.raises(DatabaseError, match="only ever added"):
        sql(f"DELETE FROM {TABLE}")


def test_everything_can_be_archived(tmp_path: Path) -> None:
    fill_audit(5)
    assert run("audit_archive", "--before", "2030-01-01", "--to", str(tmp_path / "all.jsonl"))[0] == 0
    assert list(AuditEntry.objects.values_list("pk", "event")) == [(6, "audit:entries:archive")]
    assert audit_chain.verify().is_whole


def archived(tmp_path: Path) -> Path:
    fill_audit(20)
    path = tmp_path / "old.jsonl"
    assert audit_archive.archive(START + timedelta(seconds=300), path, actor=COMMAND)
    audit_triggers.drop(connection)
    return path


def test_after_an_archive_a_missing_entry_and_a_changed_anchor_are_found(tmp_path: Path) -> None:
    archived(tmp_path)
    mark = stored(11)
    sql(f"DELETE FROM {TABLE} WHERE id = 11")
    assert run("audit_verify") == (1, AnyWith("entry 11 is missing before entry 12"))
    put({**mark, "id": 4})
    assert run("audit_verify") == (1, AnyWith("entry 4 was inserted"))
    sql(f"DELETE FROM {TABLE} WHERE id = 4")
    put(mark)
    assert run("audit_verify")[0] == 0
    sql("UPDATE models_admin_auditanchor SET entry_id = 9")
    assert run("audit_verify") == (1, AnyWith("the anchor of the archive old.jsonl was changed"))
    sql("DELETE FROM models_admin_auditanchor")
    assert run("audit_verify") == (1, AnyWith("entries 1 to 10 are missing before entry 11"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lines: [*lines[:3], lines[3].replace("job:end", "job:fun"), *lines[4:]], "entry 4 was changed"),
        (lambda lines: [*lines[:3], *lines[4:]], "entry 4 is missing"),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], "entry 3 is missing"),
        (lambda lines: [*lines[:5], "nonsense\n", *lines[5:]], "entry 6 cannot be read"),
        (lambda lines: lines[1:], "does not hold what its anchor stands for"),
        (lambda lines: [*lines[:9], lines[10]], "does not hold what its anchor stands for"),
        (lambda lines: lines[:-1], "without its anchor"),
        (lambda lines: [*lines[:-1], lines[-1].replace('"count":10', '"count":9')], "the anchor at the end"),
        (lambda lines: [], "without its anchor"),
    ],
    ids=["edit", "delete", "reorder", "nonsense", "first", "last", "no-anchor", "anchor", "empty"],
)
def test_spoiled_archive_is_found(tmp_path: Path, spoil: Callable[[list[str]], list[str]], words: str) -> None:
    path = archived(tmp_path)
    path.write_text("".join(spoil(path.read_text().splitlines(keepends=True))))
    assert run("audit_verify", "--file", str(path)) == (1, AnyWith(words))


def test_broken_chain_is_not_archived(tmp_path: Path) -> None:
    fill_audit(20)
    sql(f"UPDATE {TABLE} SET actor_name = 'eve' WHERE id = 5")
    path = tmp_path / "old.jsonl"

    with pytest.raises(CommandError, match=r"entry 5 was changed.* Nothing was archived"):
        run("audit_archive", "--before", "2030-01-01", "--to", str(path))

    assert not path.exists()
    assert AuditEntry.objects.count() == 20


def test_archive_overwrites_no_file(tmp_path: Path) -> None:
    fill_audit(3)
    path = tmp_path / "old.jsonl"
    path.write_text("mine")
    with pytest.raises(CommandError, match="Nothing was archived"):
        run("audit_archive", "--before", "2030-01-01", "--to", str(path))
    assert (path.read_text(), AuditEntry.objects.count()) == ("mine", 3)


def test_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        run("audit_verify", "--file", str(tmp_path / "none"))


class AnyWith(str):
    """Equal to any text that holds this one."""

    __slots__ = ()
    __hash__ = str.__hash__

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in other
