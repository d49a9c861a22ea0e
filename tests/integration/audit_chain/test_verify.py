"""The command that verifies the chain: how many entries are right, and which is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.management import CommandError
from django.test import override_settings

from models_admin import audit_chain
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, AuditHead
from tests.audit_rows import fill_audit
from tests.integration.audit_chain.helpers import TABLE, AnyWith, run, sql

pytestmark = pytest.mark.django_db(transaction=True)


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


def test_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be read"):
        run("audit_verify", "--file", str(tmp_path / "none"))
