"""The entries as the audit review page tells them, each on its own page, and the state of the chain."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from models_admin import audit, audit_chain
from models_admin.actor import COMMAND, SYSTEM, Actor
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, AuditHead, ModelDefinition
from tests.audit_rows import fill_audit
from tests.factories import make_job
from tests.functional.admin_world import ended_job
from tests.functional.audit_page.helpers import LIST, lines, page, switched


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
