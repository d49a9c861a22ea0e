"""What an entry holds and how it follows the one before."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from gantry.planning.states import JobState
from models_admin import audit, audit_chain, job_moves
from models_admin.actor import SYSTEM, Actor
from models_admin.audit import AuditEvent
from models_admin.audit_hash import GENESIS, plain
from models_admin.models import AuditEntry, ModelDefinition
from tests.audit_rows import START
from tests.factories import make_job

pytestmark = pytest.mark.django_db(transaction=True)


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
