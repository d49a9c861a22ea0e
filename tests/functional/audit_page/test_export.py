"""The exports of the audit log, from the page and from the command line."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import AsyncClient, Client

from models_admin import audit
from models_admin.actor import SYSTEM
from models_admin.audit import AuditEvent
from models_admin.audit_hash import seal
from models_admin.models import AuditEntry
from tests.audit_rows import fill_audit
from tests.functional.audit_page.helpers import LIST, shown


def exported(client: Client, query: str) -> bytes:
    response = client.get(f"{LIST}export/?{query}")
    assert response.status_code == 200
    assert response.streaming
    return b"".join(response)


def test_json_lines_hold_exactly_what_each_hash_covers(signed_in: Client, many: int) -> None:
    rows = [json.loads(line) for line in exported(signed_in, "format=jsonl&who=ann").splitlines()]

    assert [row["id"] for row in rows] == sorted(shown("who=ann"))
    for row in rows:
        stored = row.pop("hash")
        assert seal(row) == stored


def test_csv_has_a_line_for_each_entry_with_its_sentence(signed_in: Client, many: int) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(signed_in, "format=csv&outcome=failed").decode())))

    assert [int(row["id"]) for row in rows] == sorted(shown("outcome=failed"))
    assert rows[0]["sentence"] == "rare changed the switch policy"
    assert json.loads(rows[0]["before"])["active"]


def test_csv_holds_no_formula(signed_in: Client) -> None:
    audit.write(AuditEvent.MODEL_CREATE, actor=SYSTEM, object_text='=HYPERLINK("http://192.0.2.1")')
    row = next(csv.DictReader(io.StringIO(exported(signed_in, "format=csv&what=model:definition:create").decode())))
    assert row["object_text"].startswith("'=")


def test_export_is_written_down_with_its_filters(signed_in: Client, many: int) -> None:
    exported(signed_in, "format=csv&who=ann&q=gemma")
    entry = AuditEntry.objects.latest("pk")
    assert (entry.event, entry.actor_name) == (AuditEvent.AUDIT_EXPORT, "ann")
    assert entry.after == {"format": "csv", "filter": {"who": "ann", "q": "gemma"}}


@pytest.mark.django_db(transaction=True)
def test_export_is_streamed_from_an_asgi_server_too(admin_person: User) -> None:
    fill_audit(1200)

    async def fetch() -> bytes:
        client = AsyncClient()
        await client.aforce_login(admin_person)
        response = await client.get(f"{LIST}export/?format=jsonl&what=job:end")
        return b"".join([piece async for piece in response])  # type: ignore[attr-defined]

    assert asyncio.run(fetch()).count(b"\n") == 1199


def test_unknown_format_is_not_found(signed_in: Client) -> None:
    assert signed_in.get(f"{LIST}export/?format=xml").status_code == 404


def run_export(*arguments: str) -> str:
    printed = io.StringIO()
    call_command("audit", "export", *arguments, stdout=printed)
    return printed.getvalue()


def test_command_exports_with_the_same_filters(many: int, tmp_path: Path) -> None:
    numbers = [json.loads(line)["id"] for line in run_export("--who", "ann", "--since", "2026-01-02").splitlines()]
    assert numbers == sorted(shown("who=ann&since=2026-01-02"))

    path = tmp_path / "audit.csv"
    run_export("--format", "csv", "--search", "gemma", "--to", str(path))
    with path.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(shown("q=gemma"))
    with pytest.raises(CommandError, match="cannot be written"):
        run_export("--to", str(path))
    assert AuditEntry.objects.latest("pk").event == AuditEvent.AUDIT_EXPORT


def test_command_refuses_a_day_that_is_none() -> None:
    with pytest.raises(CommandError, match="no day"):
        run_export("--since", "soon")
