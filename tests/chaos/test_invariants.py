"""The checks find what they are there to find: each is shown rows that break its rule, and rows that keep it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from gantry.chat.models import Conversation, Message
from models_admin.models import AuditEntry, ModelDefinition, Runtime, SwitchEvent, SwitchJob
from tests.chaos import invariants
from tests.chaos.invariants import Memory
from tests.chaos.people import Person, Question, Reply
from tests.chaos.striking import Struck
from tests.chaos.watching import Life, Watcher
from tests.factories import make_job, make_model

NOW = timezone.now()


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def ended(null_runtime: Runtime) -> Callable[..., SwitchJob]:
    """Function: a job that worked between two seconds, with its two events and its audit entry."""

    def make(began: float, end: float, target: ModelDefinition | None = None, **fields: object) -> SwitchJob:
        target = target or make_model(null_runtime)
        times = {"started_at": at(began), "finished_at": at(end)}
        job = make_job(null_runtime.pool, target, **{"state": "succeeded", "seq": 2, **times, **fields})
        for seq, state, text in ((1, "planning", "Planned"), (2, "succeeded", "done")):
            event = SwitchEvent.objects.create(job=job, seq=seq, state=state, percent=0, text=text)
            SwitchEvent.objects.filter(pk=event.pk).update(at=at(began + 0.1 * seq))
        AuditEntry.objects.create(event="job:end", job=job, actor_name="ann", via="page", object_text="x")
        return job

    return make


def pin(name: str, seconds: float, *, is_pinned: bool) -> None:
    entry = AuditEntry.objects.create(
        event="model:pin:change", object_text=name, after={"is_pinned": is_pinned}, actor_name="ann", via="page"
    )
    AuditEntry.objects.filter(pk=entry.pk).update(at=at(seconds))


def test_two_jobs_at_work_at_once_are_found(ended: Callable[..., SwitchJob]) -> None:
    one, other, beside = ended(0, 10), ended(10, 20), ended(15, 30)
    assert not list(invariants.one_at_a_time([one, other]))
    [line] = invariants.one_at_a_time([one, other, beside])
    assert f"job {beside.pk} began" in line


def test_job_that_ended_twice_or_not_at_all_is_found(ended: Callable[..., SwitchJob]) -> None:
    good, twice, never = ended(0, 1), ended(2, 3), ended(4, 5, state="loading")
    SwitchEvent.objects.filter(job=twice).update(state="failed")
    found = list(invariants.ended_once([good, twice, never], Memory()))
    assert [line for line in found if f"job {twice.pk} ended 2 times" in line]
    assert [line for line in found if f"job {never.pk} has not ended" in line]
    assert not [line for line in found if f"job {good.pk} " in line]


def test_job_that_changes_after_its_end_is_found(ended: Callable[..., SwitchJob]) -> None:
    job, memory = ended(0, 1), Memory()
    assert not list(invariants.ended_once([job], memory))
    SwitchJob.objects.filter(pk=job.pk).update(state="failed")
    [line] = invariants.ended_once([], memory)
    assert f"job {job.pk} changed after its end" in line


@pytest.mark.parametrize(
    ("changes", "is_violated"),
    [
        ([(-10, True)], True),
        ([(-10, True), (-5, False)], False),
        ([(-10, True), (0.05, False)], False),  # unpinned before the plan was made
        ([(0.15, True)], False),  # pinned when it had its plan
        ([], False),
    ],
)
def test_plan_to_unload_what_was_pinned_is_found(
    ended: Callable[..., SwitchJob], changes: list[tuple[float, bool]], is_violated: bool
) -> None:
    for seconds, is_pinned in changes:
        pin("Small", seconds, is_pinned=is_pinned)
    job = ended(0, 5, plan={"evicted": [{"model_id": "small", "name": "Small"}]})
    assert bool(list(invariants.pins_held([job]))) is is_violated


def test_unload_that_no_plan_named_is_found(ended: Callable[..., SwitchJob], null_runtime: Runtime) -> None:
    named = {"evicted": [{"model_id": "named", "name": "Named"}]}
    ended(0, 5, make_model(null_runtime, model_id="target"), plan=named)
    watcher = Watcher()
    for model_id in ("named", "other", "struck"):
        watcher.lives[model_id] = Life(model_id, model_id, loaded_at=at(-5).timestamp(), gone_at=at(2).timestamp())
    [line] = invariants.only_planned_unloads(watcher, Struck(instances={"struck"}), Memory())
    assert "other" in line


def test_crash_that_nobody_caused_is_found(db: None) -> None:
    watcher = Watcher()
    watcher.lives["one"] = Life("one", "one", loaded_at=1.0, crashed=True)
    [line] = invariants.only_planned_unloads(watcher, Struck(), Memory())
    assert "crashed" in line


def test_job_that_met_a_bug_is_found(ended: Callable[..., SwitchJob]) -> None:
    good, bad = ended(0, 1), ended(2, 3, state="failed", error_code="internal", log_tail="KeyError: 'x'")
    [line] = invariants.no_fault_of_its_own([good, bad])
    assert f"job {bad.pk} " in line
    assert "KeyError" in line


def asked(status: int) -> Person:
    person = Person("ann", "x", "http://127.0.0.1:1", may_use_admin=True)
    person.questions.append(Question("Hello", Reply(status)))
    return person


@pytest.mark.parametrize(
    ("status", "questions", "answers", "is_violated"),
    [
        (302, 1, 1, False),
        (302, 0, 0, True),  # accepted and lost
        (302, 1, 0, True),  # never answered
        (302, 1, 2, True),  # answered twice
        (409, 0, 0, False),
        (409, 1, 1, True),  # refused and done all the same
        (0, 0, 0, False),  # nobody was told anything
        (0, 1, 1, False),
        (0, 2, 2, True),
    ],
)
def test_question_that_was_lost_or_answered_twice_is_found(
    admin_person: User, status: int, questions: int, answers: int, is_violated: bool
) -> None:
    for _ in range(questions):
        conversation = Conversation.objects.create(user=admin_person)
        conversation.messages.create(role=Message.Role.USER, text="Hello")
        for _ in range(min(1, answers) + max(0, answers - questions)):
            conversation.messages.create(role=Message.Role.ASSISTANT, text="Hi")
    assert bool(list(invariants.questions_of(asked(status)))) is is_violated


def test_audit_entry_that_changed_is_found(ended: Callable[..., SwitchJob]) -> None:
    ended(0, 1)
    memory = Memory()
    assert not list(invariants.audit_only_grows(memory))
    AuditEntry.objects.update(outcome="other")
    assert list(invariants.audit_only_grows(memory))
