"""Old entries can be archived, and what is spoiled afterwards is found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError
from django.db import DatabaseError, connection

from models_admin import audit_archive, audit_chain, audit_triggers
from models_admin.actor import COMMAND
from models_admin.models import AuditEntry, AuditHead
from tests.audit_rows import START, fill_audit
from tests.integration.audit_chain.helpers import TABLE, AnyWith, put, run, sql, stored

pytestmark = pytest.mark.django_db(transaction=True)


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
