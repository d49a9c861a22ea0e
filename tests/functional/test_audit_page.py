"""The audit review page, its filters and exports, and what is written down when people sign in or are changed."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.http import HttpRequest
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone

from models_admin import audit, audit_chain, audit_review
from models_admin.actor import COMMAND, SYSTEM, Actor
from models_admin.audit import AuditEvent
from models_admin.audit_hash import seal
from models_admin.audit_review import AuditFilter
from models_admin.audit_signals import note_failure
from models_admin.models import AuditEntry, AuditHead, MemoryPool, ModelDefinition, Runtime, SwitchJob
from tests.audit_rows import fill_audit
from tests.factories import make_job, make_model
from tests.functional.admin_world import ended_job, staff

LIST = "/admin/models_admin/auditentry/"


@pytest.fixture
def signed_in(client: Client, admin_person: User) -> Client:
    client.force_login(admin_person)
    return client


@pytest.fixture
def gemma(null_runtime: Runtime) -> ModelDefinition:
    return make_model(null_runtime, model_id="gemma", name="Gemma 3")


def page(client: Client, address: str = LIST) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def lines(client: Client, query: str = "") -> list[str]:
    """The sentences on the page, top first, with how long it took and how it ended."""
    rows = re.findall(r"<tr>\s*<td.*?</tr>", page(client, f"{LIST}?{query}"), re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)[1:] for row in rows]
    return [" · ".join(filter(None, (_text(cell) for cell in row))) for row in cells]


def _text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).replace("&amp;", "&").split())


def switched(job: SwitchJob, person: User, outcome: str = "succeeded", took: float = 14) -> AuditEntry:
    return audit.write(
        AuditEvent.JOB_END,
        actor=Actor(person, "page", "192.0.2.1"),
        object_text=job.target_name,
        job=job,
        before={"active": "SmolLM2"},
        after={"kind": "switch", "seconds": took, "stages": [{"step": "load", "model": "Gemma 3", "seconds": 12.5}]},
        outcome=outcome,
    )


# Reading


def test_entry_reads_like_a_sentence_and_leads_to_the_story(
    signed_in: Client, admin_person: User, gemma: ModelDefinition
) -> None:
    job = ended_job(gemma, admin_person, "succeeded")
    entry = switched(job, admin_person)

    [line] = lines(signed_in)

    assert line == (
        f"ann switched SmolLM2 → Gemma 3 from the Models tab at 192.0.2.1 story #{job.pk} · 14 s · succeeded"
    )
    assert job.get_absolute_url() in page(signed_in)
    assert "ann switched SmolLM2 → Gemma 3 from the Models tab · 14 s · succeeded" in page(
        signed_in, f"{LIST}{entry.pk}/change/"
    )


@pytest.mark.parametrize(
    ("event", "actor", "fields", "words"),
    [
        (AuditEvent.JOB_END, SYSTEM, {"after": {"kind": "switch"}, "outcome": "failed"}, "Gantry tried to switch to X · failed"),
        (AuditEvent.JOB_END, SYSTEM, {"after": {"kind": "unload"}, "outcome": "succeeded"}, "Gantry unloaded X · succeeded"),
        (AuditEvent.JOB_END, SYSTEM, {"after": {"kind": "call"}, "outcome": "cancelled"}, "The call to X was cancelled · cancelled"),
        (AuditEvent.JOB_ROLLBACK, SYSTEM, {"after": {"aftermath": "Y was put back."}}, "Gantry cleaned up after the job for X: Y was put back"),
        (AuditEvent.RECOVERY, COMMAND, {}, "The command line asked for a recovery on X"),
        (AuditEvent.MODEL_CRASH, SYSTEM, {}, "Gantry noticed that X crashed"),
    ],
)  # fmt: skip
def test_sentences(signed_in: Client, event: AuditEvent, actor: Actor, fields: dict[str, Any], words: str) -> None:
    audit.write(event, actor=actor, object_text="X", **fields)
    assert lines(signed_in) == [words]


def test_every_event_has_words(signed_in: Client) -> None:
    for event in AuditEvent:
        audit.write(event, actor=SYSTEM, object_text="X")
    assert not [line for line in lines(signed_in) if re.search(r"\w:\w", line)]


def test_entry_page_shows_before_and_after_stages_plan_and_seal(
    signed_in: Client, admin_person: User, gemma: ModelDefinition
) -> None:
    entry = switched(ended_job(gemma, admin_person, "succeeded"), admin_person)
    audit.write(
        AuditEvent.SWITCH_REQUEST, actor=SYSTEM, object_text="Gemma 3", after={"plan": {"order": "unload_first"}}
    )
    html = page(signed_in, f"{LIST}{entry.pk}/change/")
    for words in ("Before and after", "SmolLM2", "load Gemma 3", "12 s", entry.hash, entry.previous_hash):
        assert words in html
    assert "unload_first" in page(signed_in, f"{LIST}{entry.pk + 1}/change/")


def test_entry_of_a_deleted_job_still_opens(signed_in: Client, admin_person: User, gemma: ModelDefinition) -> None:
    job = make_job(gemma.runtime.pool, gemma, state="succeeded")
    entry, number = switched(job, admin_person), job.pk
    job.delete()

    assert f"Job #{number}, which was deleted" in page(signed_in, f"{LIST}{entry.pk}/change/")
    assert len(lines(signed_in)) == 1


def test_odd_values_do_not_break_the_page(signed_in: Client) -> None:
    entry = AuditEntry(event="made:up", actor_name="<b>", via="?", object_text="{x}", before=[1], after="text")
    entry.save()
    page(signed_in)
    assert "&lt;b&gt;" in page(signed_in, f"{LIST}{entry.pk}/change/")


# The chain's state


def test_state_of_the_chain_stands_on_top(signed_in: Client) -> None:
    fill_audit(1234)
    assert "1,234 entries, not verified yet" in page(signed_in)

    audit_chain.verify_and_note()
    assert f"1,234 entries, verified today {timezone.localtime():%H:}" in page(signed_in)

    AuditEntry.objects.filter(pk=700).update(actor_name="eve")
    audit_chain.verify_and_note()
    assert "The chain is broken: entry 700 was changed" in page(signed_in)

    AuditHead.objects.update(broken_text="", hash="0" * 64)
    assert "The end of the chain is not signed" in page(signed_in)


# Filters and pages


@pytest.fixture
def many(db: None) -> int:
    fill_audit(3000)
    return 3000


def shown(query: str) -> list[int]:
    from django.http import QueryDict

    page = audit_review.read_page(AuditFilter.from_query(QueryDict(query)), limit=5000)
    return [entry.pk for entry in page.entries]


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


# Export


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


# Who may


@pytest.mark.parametrize("address", [LIST, f"{LIST}1/change/", f"{LIST}export/?format=csv"])
def test_only_who_may_see_the_audit_sees_it(client: Client, many: int, address: str) -> None:
    client.force_login(staff("eve", "view_modeldefinition"))
    assert client.get(address).status_code == 403
    client.force_login(staff("oli", "view_auditentry"))
    assert client.get(address).status_code == 200
    assert client.post(address).status_code == 403
    client.logout()
    assert client.get(address).status_code == 302


# Sign-ins and people


def last() -> AuditEntry:
    return AuditEntry.objects.latest("pk")


def sign_in(client: Client, name: str, password: str) -> None:
    client.post("/sign-in/", {"username": name, "password": password}, REMOTE_ADDR="192.0.2.9")


def test_sign_in_and_sign_out_are_written_down(client: Client, admin_person: User) -> None:
    sign_in(client, "ann", "pass-ann")
    entry = last()
    assert (entry.event, entry.actor_name, entry.address) == (AuditEvent.SIGN_IN, "ann", "192.0.2.9")

    client.post("/sign-out/")
    assert (last().event, last().actor_name) == (AuditEvent.SIGN_OUT, "ann")


def test_failed_sign_in_names_only_people_who_exist(client: Client, admin_person: User) -> None:
    sign_in(client, "ann", "wrong-secret")
    assert (last().event, last().actor_name, last().object_text) == (AuditEvent.SIGN_IN_FAILED, "somebody", "ann")

    sign_in(client, "my-password-in-the-wrong-field", "x")
    assert last().object_text == "an unknown name"
    assert not AuditEntry.objects.filter(object_text__contains="password").exists()


@override_settings(AXES_ENABLED=True, AXES_FAILURE_LIMIT=3)
def test_too_many_failures_are_written_once(client: Client, admin_person: User) -> None:
    for _ in range(8):
        sign_in(client, "ann", "wrong")

    events = list(AuditEntry.objects.order_by("pk").values_list("event", flat=True))
    assert events == [AuditEvent.SIGN_IN_FAILED] * 2 + [AuditEvent.SIGN_IN_LOCKED]


def test_failure_without_a_request_is_written_down_too(db: None) -> None:
    note_failure(credentials={}, request=None)
    assert last().event == AuditEvent.SIGN_IN_FAILED
    locked = HttpRequest()
    locked.axes_locked_out = True  # type: ignore[attr-defined]
    note_failure(credentials={}, request=locked)
    assert AuditEntry.objects.count() == 1


def test_users_are_written_down_when_added_changed_and_deleted(signed_in: Client) -> None:
    new = {"username": "fay", "password1": "Long-enough-1", "password2": "Long-enough-1", "usable_password": "true"}
    signed_in.post("/admin/auth/user/add/", new)
    fay = User.objects.get(username="fay")
    entry = last()
    assert (entry.event, entry.actor_name, entry.object_text) == (AuditEvent.USER_CREATE, "ann", "fay")
    assert entry.after["password"] == "changed"

    group = Group.objects.create(name="Night shift")
    joined = {"date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    form = {"username": "fay", "is_active": "on", "is_staff": "on", "groups": [group.pk], **joined}
    signed_in.post(f"/admin/auth/user/{fay.pk}/change/", form)
    assert last().event == AuditEvent.USER_CHANGE
    assert last().before == {"is_staff": False, "groups": ["Member"]}
    assert last().after == {"is_staff": True, "groups": ["Night shift"]}

    signed_in.post(f"/admin/auth/user/{fay.pk}/change/", form)
    assert AuditEntry.objects.count() == 2

    signed_in.post(
        f"/admin/auth/user/{fay.pk}/password/", {**new, "password1": "Another-long-1", "password2": "Another-long-1"}
    )
    assert (last().event, last().before, last().after) == (AuditEvent.USER_CHANGE, {}, {"password": "changed"})

    signed_in.post(f"/admin/auth/user/{fay.pk}/delete/", {"post": "yes"})
    assert (last().event, last().before["groups"]) == (AuditEvent.USER_DELETE, ["Night shift"])
    assert audit_chain.verify().is_whole


def test_groups_are_written_down_when_added_changed_and_deleted(signed_in: Client) -> None:
    right = Permission.objects.get(codename="switch_model")
    signed_in.post("/admin/auth/group/add/", {"name": "Operators", "permissions": [right.pk]})
    assert (last().event, last().after) == (
        AuditEvent.GROUP_CREATE,
        {"name": "Operators", "permissions": ["switch_model"]},
    )
    group = Group.objects.get(name="Operators")

    signed_in.post(f"/admin/auth/group/{group.pk}/change/", {"name": "Operators"})
    assert (last().before, last().after) == ({"permissions": ["switch_model"]}, {"permissions": []})

    selected = {"action": "delete_selected", "_selected_action": [group.pk], "post": "yes"}
    signed_in.post("/admin/auth/group/", selected)
    assert (last().event, last().object_text) == (AuditEvent.GROUP_DELETE, "Operators")


# I8


def test_no_secret_stands_in_any_entry(
    client: Client, admin_person: User, pool: MemoryPool, gemma: ModelDefinition
) -> None:
    secrets = [
        "pass-ann",
        "wrong-secret",
        "typed-in-the-name-field",
        "key-0123456789",
        "admin-key-98765",
        "New-pass-word-1",
    ]
    sign_in(client, "ann", "wrong-secret")
    sign_in(client, "typed-in-the-name-field", "wrong-secret")
    sign_in(client, "ann", "pass-ann")
    runtime = {"name": "tabby", "kind": "tabby", "pool": pool.pk, "is_enabled": "on", "url": "http://127.0.0.1:5000"}
    keys = {"api_key": "key-0123456789", "admin_key": "admin-key-98765", "options": "{}"}
    assert client.post("/admin/models_admin/runtime/add/", {**runtime, **keys}).status_code == 302
    saved = Runtime.objects.get(name="tabby")
    client.post(f"/admin/models_admin/runtime/{saved.pk}/change/", {**runtime, **keys, "api_key": "key-0123456789x"})
    passwords = {"password1": "New-pass-word-1", "password2": "New-pass-word-1", "usable_password": "true"}
    client.post("/admin/auth/user/add/", {"username": "gus", **passwords})
    client.post(f"/admin/auth/user/{admin_person.pk}/password/", passwords)
    client.post(f"/admin/models/{gemma.pk}/pin/", {"is_pinned": "1"})
    hashes = list(User.objects.values_list("password", flat=True))
    client.post("/sign-out/")

    everything = "\n".join(json.dumps(entry.sealed_values()) for entry in AuditEntry.objects.all())

    assert AuditEntry.objects.count() >= 9
    assert not [secret for secret in [*secrets, *hashes] if secret in everything]
