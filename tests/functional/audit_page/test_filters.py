"""The filters and pages of the audit review: exactly what is wanted, and never a look at every row."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from models_admin.models import AuditEntry
from tests.audit_rows import fill_audit
from tests.functional.audit_page.helpers import LIST, page, shown


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("who=ann", lambda entry: entry.actor_name == "ann"),
        ("what=policy:change", lambda entry: entry.event == "policy:change"),
        ("model=Gemma 3", lambda entry: entry.object_text == "Gemma 3"),
        ("outcome=failed", lambda entry: entry.outcome == "failed"),
        ("since=2026-01-02", lambda entry: entry.at.date() >= date(2026, 1, 2)),
        ("until=2026-01-01", lambda entry: entry.at.date() <= date(2026, 1, 1)),
        ("since=2026-01-01&until=2026-01-01", lambda entry: entry.at.date() == date(2026, 1, 1)),
        ("since=2027-01-01", lambda entry: False),
        ("q=gemma", lambda entry: entry.object_text == "Gemma 3"),
        ("q=.77", lambda entry: entry.address == "192.0.2.77"),
        ("q=AR", lambda entry: entry.actor_name == "rare"),
        ("q=xyz", lambda entry: False),
        ("who=ben&model=SmolLM2", lambda entry: (entry.actor_name, entry.object_text) == ("ben", "SmolLM2")),
        ("who=cleo&q=qwen&until=2026-01-01", lambda e: (e.actor_name, e.object_text, e.at.day) == ("cleo", "Qwen 3", 1)),
        ("since=nonsense&who=", lambda entry: True),
    ],
)  # fmt: skip
def test_filter_shows_exactly_what_is_wanted(many: int, query: str, holds: Callable[[AuditEntry], bool]) -> None:
    assert shown(query) == [entry.pk for entry in AuditEntry.objects.order_by("-pk") if holds(entry)]


def test_pages_lead_to_every_entry_and_back(signed_in: Client, many: int) -> None:
    def numbers(html: str) -> list[int]:
        return [int(number) for number in re.findall(r"auditentry/(\d+)/change/", html)]

    def link(html: str, label: str) -> str | None:
        found = re.search(rf'href="\?([^"]*)">\s*{label}<', html)
        return found[1].replace("&amp;", "&") if found else None

    html, seen = page(signed_in, f"{LIST}?who=ann"), []
    assert link(html, "Newer") is None
    while True:
        seen += numbers(html)
        older = link(html, "Older")
        if older is None:
            break
        html = page(signed_in, f"{LIST}?{older}")
    assert seen == shown("who=ann")
    back = page(signed_in, f"{LIST}?{link(html, 'Newer')}")
    assert numbers(back) == seen[-50 - len(numbers(html)) : -len(numbers(html))]


def test_filter_that_leaves_nothing_says_so(signed_in: Client, many: int) -> None:
    assert "No entry is like that" in page(signed_in, f"{LIST}?who=nobody")


def test_first_page_says_what_will_stand_there(signed_in: Client) -> None:
    assert "Nothing was done yet" in page(signed_in)


def test_choices_hold_deleted_people_and_keep_what_was_chosen(signed_in: Client, many: int) -> None:
    html = page(signed_in, f"{LIST}?who=emil&what=job:end&outcome=failed&model=Gemma+3&since=2026-01-01&q=x")
    for chosen in ("<option selected>emil<", '"job:end" selected', "<option selected>failed<", 'value="2026-01-01"'):
        assert chosen in re.sub(r"\s+", " ", html)


# Speed: never a look at every row


def plans_of(act: Callable[[], object]) -> list[tuple[str, str]]:
    """(query, plan) of every query on the audit log."""
    with CaptureQueriesContext(connection) as captured:
        act()
    found = []
    for query in captured:
        if "models_admin_auditentry" in query["sql"] and query["sql"].startswith(("SELECT", "WITH")):
            with connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN QUERY PLAN {query['sql'].replace('%', '%%')}")
                found.append((query["sql"], " | ".join(str(row[3]) for row in cursor.fetchall())))
    return found


@pytest.mark.skipif(connection.vendor != "sqlite", reason="reads SQLite's plans")
@pytest.mark.parametrize(
    "query",
    ["", "who=ann", "what=job:end", "model=Gemma+3", "outcome=failed", "since=2026-01-01", "until=2026-01-02", "q=gemma",
     "who=ann&outcome=failed&since=2026-01-01", "below=500", "above=500&who=ann", "who=ben&q=smol&until=2026-02-01"],
)  # fmt: skip
def test_no_page_looks_at_every_row_or_sorts(signed_in: Client, many: int, query: str) -> None:
    plans = plans_of(lambda: page(signed_in, f"{LIST}?{query}"))

    assert plans
    for sql, plan in plans:
        # The whole log, newest first, is read along its primary key until the page is full.
        is_first_page = not query and "LIMIT 51" in sql and plan == "SCAN models_admin_auditentry"
        assert is_first_page or "SCAN models_admin_auditentry" not in plan, (sql, plan)
        assert "ORDER BY" not in plan or "LIMIT" not in sql, (sql, plan)
        assert "COUNT(" not in sql


def test_number_of_queries_does_not_grow(signed_in: Client) -> None:
    fill_audit(100)
    with CaptureQueriesContext(connection) as few:
        page(signed_in)
    fill_audit(3000)
    with CaptureQueriesContext(connection) as many:
        page(signed_in)
    assert len(few) == len(many) <= 12
