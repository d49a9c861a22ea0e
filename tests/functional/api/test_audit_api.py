"""The audit log through the API: filters, pages, single entries, export."""

from __future__ import annotations

import csv
import io
import json

import pytest
from django.contrib.auth.models import User
from django.test import AsyncClient

from models_admin import audit
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry
from tests.functional.api.conftest import Program, code_of, fields_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def entries(admin: Program, admin_person: User) -> list[int]:
    """Six entries of two people, besides the one that made the key."""
    bob = User.objects.create_user("bob")
    return [
        audit.write(
            AuditEvent.MODEL_PIN if number % 2 else AuditEvent.MODEL_CHANGE,
            actor=Actor(bob if number < 2 else admin_person, "page", "10.0.0.7"),
            object_text=f"Model {number}",
            after={"is_pinned": True},
            outcome="succeeded",
        ).pk
        for number in range(6)
    ]


def test_list_goes_on_where_the_page_before_ended(admin: Program, entries: list[int]) -> None:
    first = admin.get("audit", {"limit": 4}).json()
    rest = admin.get("audit", {"limit": 4, "after": first["next"]}).json()
    assert [item["id"] for item in first["items"] + rest["items"]][:6] == entries[::-1]
    assert rest["next"] is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"who": "bob"}, [1, 0]),
        ({"what": "model:pin:change"}, [5, 3, 1]),
        ({"model": "Model 2"}, [2]),
        ({"q": "model 4"}, [4]),
        ({"who": "bob", "what": "model:pin:change"}, [1]),
        ({"outcome": "failed"}, []),
        ({"since": "2999-01-01"}, []),
        ({"until": "1999-01-01"}, []),
        ({"who": "no\x01body"}, []),
    ],
)
def test_filters_are_those_of_the_page(
    query: dict[str, str], found: list[int], admin: Program, entries: list[int]
) -> None:
    items = admin.get("audit", query).json()["items"]
    assert [item["id"] for item in items] == [entries[number] for number in found]


@pytest.mark.parametrize("query", [{"since": "yesterday"}, {"since": "9999-12-31"}, {"after": "x"}, {"after": 2**63}])
def test_filter_that_is_none_is_named(query: dict[str, object], admin: Program) -> None:
    response = admin.get("audit", query)
    assert (response.status_code, fields_of(response)) == (422, list(query))


def test_entry_is_read_with_its_hash_and_its_sentence(admin: Program, entries: list[int]) -> None:
    body = admin.get(f"audit/{entries[0]}").json()
    row = AuditEntry.objects.get(pk=entries[0])
    assert (body["hash"], body["actor_name"], body["address"]) == (row.hash, "bob", "10.0.0.7")
    assert "Model 0" in body["sentence"]
    missing = admin.get("audit/9999")
    assert (missing.status_code, code_of(missing)) == (404, "not_found")


def test_export_is_streamed_and_written_down(admin: Program, entries: list[int]) -> None:
    response = admin.get("audit/export", {"format": "jsonl", "who": "bob"})
    assert (response.streaming, response.headers["Content-Type"]) == (True, "application/jsonl")
    lines = [json.loads(line) for line in b"".join(response.streaming_content).splitlines()]
    assert [line["id"] for line in lines] == entries[:2]
    rows = list(csv.DictReader(io.StringIO(b"".join(admin.get("audit/export").streaming_content).decode())))
    assert {int(row["id"]) for row in rows} >= set(entries)
    last = AuditEntry.objects.filter(event=AuditEvent.AUDIT_EXPORT).order_by("pk")[0]
    assert (last.via, last.after) == ("rest", {"format": "jsonl", "filter": {"who": "bob"}})


@pytest.mark.django_db(transaction=True)
async def test_export_is_streamed_by_the_real_kind_of_server_too(admin: Program, entries: list[int]) -> None:
    headers = {"Authorization": f"Bearer {admin.token}"}
    response = await AsyncClient().get("/api/v1/audit/export?format=jsonl", headers=headers)
    text = b"".join([piece async for piece in response.streaming_content])  # type: ignore[attr-defined]
    assert len(text.splitlines()) >= 6
