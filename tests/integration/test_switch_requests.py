"""Asking for a model and being answered: who may, what is written down, what happens when several do it at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from gantry.runtimes.null import NullWorld
from models_admin import switch_requests
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused, DoesNotFitNow, NotAllowed, NotDownloaded, RequestAnswered
from models_admin.keys import authenticate, create_key
from models_admin.models import (
    AuditEntry,
    ModelDefinition,
    ModelInstance,
    Runtime,
    SwitchJob,
    SwitchPolicy,
    SwitchRequest,
)
from models_admin.policies import save_policy
from models_admin.roles import OPERATOR
from tests.factories import make_model
from tests.integration.limits_world import serve


@pytest.fixture
def gemma(null_runtime: Runtime, world: NullWorld) -> ModelDefinition:
    """Small, not loaded."""
    return make_model(null_runtime, model_id="gemma", name="Gemma", size_bytes=1000)


@pytest.fixture
def oda(outsider: User) -> Actor:
    """May chat and ask."""
    return Actor(outsider, "chat", "192.0.2.7")


@pytest.fixture
def otto(db: None) -> Actor:
    """An operator."""
    user = User.objects.create_user("otto", password="pass-otto")
    user.groups.add(Group.objects.get(name=OPERATOR))
    return Actor(user, "page")


def entries(*events: str) -> list[AuditEntry]:
    """Audit entries of these events, oldest first."""
    return list(AuditEntry.objects.filter(event__in=events).order_by("id"))


def aged(request: SwitchRequest, **passed: float) -> SwitchRequest:
    """The request as if it had been made so long ago."""
    SwitchRequest.objects.filter(pk=request.pk).update(created_at=timezone.now() - timedelta(**passed))
    request.refresh_from_db()
    return request


def test_asking_opens_a_request_and_is_audited(oda: Actor, gemma: ModelDefinition) -> None:
    request = switch_requests.ask(gemma, actor=oda, reason="  For a\n report ")
    assert (request.state, request.reason, request.words) == ("open", "For a report", "asked; waiting for an operator")
    assert list(switch_requests.open_requests()) == [request]
    (entry,) = entries("model:switch:ask")
    assert (entry.actor, entry.via, entry.address, entry.object_text) == (oda.user, "chat", "192.0.2.7", "Gemma")
    assert entry.after == {"reason": "For a report"}
    assert not SwitchJob.objects.exists()


def test_asking_twice_is_one_request(oda: Actor, gemma: ModelDefinition) -> None:
    first = switch_requests.ask(gemma, actor=oda)
    assert switch_requests.ask(gemma, actor=oda, reason="again") == first
    assert len(entries("model:switch:ask")) == 1


def test_database_keeps_one_open_request_for_each_person_and_model(oda: Actor, gemma: ModelDefinition) -> None:
    assert oda.user is not None
    switch_requests.ask(gemma, actor=oda)
    with pytest.raises(IntegrityError), transaction.atomic():
        SwitchRequest.objects.create(user_id=oda.user.pk, model=gemma)


def test_long_reason_is_cut(oda: Actor, gemma: ModelDefinition) -> None:
    assert len(switch_requests.ask(gemma, actor=oda, reason="x" * 1000).reason) == 300


def test_nobody_asks_for_more_than_five_at_once(oda: Actor, null_runtime: Runtime) -> None:
    requests = [switch_requests.ask(make_model(null_runtime), actor=oda) for _ in range(5)]
    sixth = make_model(null_runtime)
    with pytest.raises(ActionRefused, match="You have asked for 5 models already"):
        switch_requests.ask(sixth, actor=oda)
    switch_requests.withdraw(requests[0], actor=oda)
    assert switch_requests.ask(sixth, actor=oda).is_open


def test_who_may_switch_has_nobody_to_ask(member: User, otto: Actor, gemma: ModelDefinition) -> None:
    for actor in (Actor(member, "chat"), otto):
        assert not switch_requests.may_ask(actor)
        with pytest.raises(NotAllowed, match="You may switch models yourself"):
            switch_requests.ask(gemma, actor=actor)


def test_who_may_not_chat_may_not_ask(outsider: User, gemma: ModelDefinition) -> None:
    outsider.groups.clear()
    with pytest.raises(NotAllowed, match="You may not ask for models"):
        switch_requests.ask(gemma, actor=Actor(User.objects.get(pk=outsider.pk), "chat"))


def test_key_asks_within_its_scopes_and_models(outsider: User, gemma: ModelDefinition, null_runtime: Runtime) -> None:
    def acting(*scopes: str, **fields: list[str]) -> Actor:
        return authenticate(
            create_key(outsider, actor=Actor(outsider, "page"), name="s", scopes=scopes, model_ids=fields.get("models", []))[1]
        )  # fmt: skip

    with pytest.raises(NotAllowed):
        switch_requests.ask(gemma, actor=acting("status"))
    with pytest.raises(NotAllowed, match="You may not ask for Gemma"):
        switch_requests.ask(gemma, actor=acting("chat", models=[make_model(null_runtime).model_id]))
    assert switch_requests.ask(gemma, actor=acting("chat", models=["gemma"])).is_open


def test_nobody_asks_for_what_is_missing_or_serves(oda: Actor, gemma: ModelDefinition, null_runtime: Runtime) -> None:
    with pytest.raises(NotDownloaded):
        switch_requests.ask(make_model(null_runtime, is_available=False), actor=oda)
    serve(gemma)
    with pytest.raises(ActionRefused, match="Gemma is active already"):
        switch_requests.ask(gemma, actor=oda)


def test_approving_switches_in_the_approvers_name_with_both_names_in_the_audit(
    oda: Actor, otto: Actor, gemma: ModelDefinition
) -> None:
    request = switch_requests.ask(gemma, actor=oda, reason="report")
    decision = switch_requests.approve(request, actor=otto)
    assert decision.status == "accepted"
    job = SwitchJob.objects.get()
    request.refresh_from_db()
    assert (job.target, job.requested_by) == (gemma, otto.user)
    assert (request.state, request.job, request.words) == ("approved", job, "approved by otto")
    (entry,) = entries("model:ask:approve")
    assert (entry.actor, entry.job, entry.before) == (otto.user, job, {"state": "open"})
    assert entry.after == {"asked_by": "oda", "reason": "report", "answered_by": "otto"}


def test_approving_answers_everybody_who_asked_for_that_model(
    oda: Actor, otto: Actor, gemma: ModelDefinition, null_runtime: Runtime
) -> None:
    olaf = Actor(User.objects.create_user("olaf"), "chat")
    mine, theirs = switch_requests.ask(gemma, actor=oda), switch_requests.ask(gemma, actor=olaf)
    other = switch_requests.ask(make_model(null_runtime), actor=olaf)
    switch_requests.approve(theirs, actor=otto)
    for request in (mine, theirs, other):
        request.refresh_from_db()
    assert [one.state for one in (mine, theirs, other)] == ["approved", "approved", "open"]
    assert [entry.after["asked_by"] for entry in entries("model:ask:approve")] == ["oda", "olaf"]


def test_approval_that_needs_confirmation_changes_nothing_until_it_is_confirmed(
    oda: Actor, otto: Actor, small: ModelDefinition, other: ModelDefinition
) -> None:
    SwitchPolicy(confirm_before_unload=True).save()
    serve(small)
    ModelInstance.objects.update(held_bytes=600_000_000)
    small.runtime.pool.free_bytes = 400_000_000
    small.runtime.pool.save()
    request = switch_requests.ask(other, actor=oda)
    assert switch_requests.approve(request, actor=otto).status == "needs_confirmation"
    request.refresh_from_db()
    assert request.is_open
    assert not entries("model:ask:approve")
    assert switch_requests.approve(request, actor=otto, plan_was_shown=True).status == "accepted"


def test_request_stays_open_when_the_switch_is_refused(oda: Actor, otto: Actor, gemma: ModelDefinition) -> None:
    request = switch_requests.ask(gemma, actor=oda)
    ModelDefinition.objects.update(size_bytes=10**12)
    request.model.refresh_from_db()
    with pytest.raises(DoesNotFitNow):
        switch_requests.approve(request, actor=otto)
    request.refresh_from_db()
    assert request.is_open
    assert not SwitchJob.objects.exists()


def test_declining_says_who_and_why(oda: Actor, otto: Actor, gemma: ModelDefinition) -> None:
    request = switch_requests.ask(gemma, actor=oda)
    switch_requests.decline(request, actor=otto, answer="Tonight, when nobody works.")
    request.refresh_from_db()
    assert request.words == "declined by otto: Tonight, when nobody works."
    (entry,) = entries("model:ask:decline")
    assert entry.after["answer"] == "Tonight, when nobody works."
    assert (entry.actor, entry.after["asked_by"]) == (otto.user, "oda")
    assert switch_requests.ask(gemma, actor=oda) != request


def test_what_was_answered_is_not_answered_again(oda: Actor, otto: Actor, gemma: ModelDefinition) -> None:
    request = switch_requests.ask(gemma, actor=oda)
    switch_requests.decline(request, actor=otto)
    for answer in (switch_requests.approve, switch_requests.decline):
        with pytest.raises(RequestAnswered, match="declined by otto"):
            answer(request, actor=otto)
    assert not SwitchJob.objects.exists()
    assert len(entries("model:ask:decline", "model:ask:approve")) == 1


@pytest.mark.parametrize("permission", ["switch_model", "view_switchrequest"])
def test_answering_takes_both_rights(permission: str, oda: Actor, otto: Actor, gemma: ModelDefinition) -> None:
    request = switch_requests.ask(gemma, actor=oda)
    group = Group.objects.get(name=OPERATOR)
    group.permissions.remove(group.permissions.get(codename=permission))
    former = Actor(User.objects.get(username="otto"), "page")
    for actor in (former, oda):
        with pytest.raises(NotAllowed):
            switch_requests.approve(request, actor=actor)
        with pytest.raises(NotAllowed):
            switch_requests.decline(request, actor=actor)


def test_only_the_one_who_asked_withdraws(oda: Actor, otto: Actor, gemma: ModelDefinition) -> None:
    request = switch_requests.ask(gemma, actor=oda)
    with pytest.raises(NotAllowed):
        switch_requests.withdraw(request, actor=otto)
    switch_requests.withdraw(request, actor=oda)
    switch_requests.withdraw(request, actor=oda)
    request.refresh_from_db()
    assert request.state == "withdrawn"
    assert len(entries("model:ask:withdraw")) == 1


def test_request_that_nobody_answers_ends_after_a_day(oda: Actor, otto: Actor, gemma: ModelDefinition) -> None:
    request = aged(switch_requests.ask(gemma, actor=oda), hours=24, seconds=1)
    assert not switch_requests.open_requests()
    with pytest.raises(RequestAnswered, match="nobody answered for a day"):
        switch_requests.approve(request, actor=otto)
    assert switch_requests.expire_outdated() == 1
    assert switch_requests.expire_outdated() == 0
    request.refresh_from_db()
    assert request.state == "expired"
    (entry,) = entries("model:ask:expire")
    assert (entry.actor_name, entry.after["asked_by"]) == ("system", "oda")


def test_somebody_asks_anew_when_nobody_answered(oda: Actor, gemma: ModelDefinition) -> None:
    old = aged(switch_requests.ask(gemma, actor=oda), days=2)
    new = switch_requests.ask(gemma, actor=oda)
    old.refresh_from_db()
    assert (old.state, new.is_open) == ("expired", True)
    assert new != old


def test_answer_is_news_for_an_hour_and_an_approval_while_its_switch_runs(
    oda: Actor, otto: Actor, gemma: ModelDefinition, null_runtime: Runtime
) -> None:
    assert oda.user is not None
    declined = switch_requests.ask(make_model(null_runtime), actor=oda)
    switch_requests.decline(declined, actor=otto)
    approved = switch_requests.ask(gemma, actor=oda)
    switch_requests.approve(approved, actor=otto)
    assert switch_requests.news_for(oda.user) == [approved, declined]
    SwitchJob.objects.update(state="succeeded", finished_at=timezone.now())
    assert switch_requests.news_for(oda.user) == [declined]
    SwitchRequest.objects.update(answered_at=timezone.now() - timedelta(hours=1, seconds=1))
    assert switch_requests.news_for(oda.user) == []


def test_policy_that_unpins_writes_models_before_the_audit_log(admin_person: User, null_runtime: Runtime) -> None:
    """A switch that unpins does so too: in one order, so that no two wait for each other (PostgreSQL)."""
    pinned = [make_model(null_runtime, is_pinned=True) for _ in range(2)]
    wanted = [make_model(null_runtime) for _ in range(2)]
    with CaptureQueriesContext(connection) as captured:
        save_policy(
            SwitchPolicy(drain_seconds=1), changed=["drain_seconds"], pinned=wanted, actor=Actor(admin_person, "page")
        )
    written = [
        "model" if "modeldefinition" in query["sql"] else "audit"
        for query in captured
        if query["sql"].startswith(("UPDATE", "INSERT"))
        and ("modeldefinition" in query["sql"] or "audit" in query["sql"])
    ]
    assert written[: len(pinned) + len(wanted)] == ["model"] * 4
    assert "model" not in written[4:]
    assert set(ModelDefinition.objects.filter(is_pinned=True)) == set(wanted)
    assert len(entries("model:pin:change")) == 4
