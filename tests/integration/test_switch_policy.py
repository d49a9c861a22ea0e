"""What the switch policy changes: who goes, who is asked, what stays, and how running answers are treated."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from gantry.planning.states import ErrorCode, InstanceState, JobState
from gantry.runtimes.null import NullWorld
from models_admin import actions, running
from models_admin.actor import SYSTEM, Actor
from models_admin.audit import AuditEvent
from models_admin.exceptions import DoesNotFitNow
from models_admin.models import AuditEntry, ModelDefinition, ModelInstance, Runtime, SwitchJob, SwitchPolicy
from tests.factories import make_model

pytestmark = pytest.mark.django_db(transaction=True)

MB = 1_000_000


@pytest.fixture
def tiny(null_runtime: Runtime, world: NullWorld) -> ModelDefinition:
    """Takes 100 MB: fits beside anything."""
    world.memory["tiny"] = 100 * MB
    return make_model(null_runtime, model_id="tiny", name="Tiny", size_bytes=90 * MB)


def set_policy(**fields: object) -> SwitchPolicy:
    policy = SwitchPolicy.current()
    for name, value in fields.items():
        setattr(policy, name, value)
    policy.save()
    return policy


def switch(model: ModelDefinition, user: User, **how: object) -> SwitchJob:
    job = actions.request_switch(model, actor=Actor(user, "page"), **how).job  # type: ignore[arg-type]
    assert job is not None
    return run(job)


def run(job: SwitchJob) -> SwitchJob:
    running.run_job(job.pk)
    job.refresh_from_db()
    return job


def loaded() -> set[str]:
    rows = ModelInstance.objects.filter(state=InstanceState.LOADED)
    return set(rows.values_list("model__model_id", flat=True))


def active() -> str:
    return ModelInstance.objects.filter(is_active=True).values_list("model__model_id", flat=True).first() or ""


def test_there_is_one_policy_and_its_defaults_hold_before_anybody_saved_it(db: None) -> None:
    assert SwitchPolicy.objects.count() == 0
    assert SwitchPolicy.current().auto_unload
    set_policy(auto_unload=False)
    SwitchPolicy(drain_seconds=5).save()
    assert SwitchPolicy.objects.count() == 1
    assert SwitchPolicy.current().drain_seconds == 5


def test_where_both_fit_the_former_stays_loaded_and_nobody_waited(
    small: ModelDefinition, tiny: ModelDefinition, admin_person: User
) -> None:
    switch(small, admin_person)
    job = switch(tiny, admin_person)
    assert job.state == JobState.SUCCEEDED
    assert (loaded(), active()) == ({"small", "tiny"}, "tiny")
    assert job.downtime_seconds == 0
    assert not job.plan["interrupts"]


def test_former_is_unloaded_after_the_new_one_answers_when_policy_says_so(
    small: ModelDefinition, tiny: ModelDefinition, admin_person: User
) -> None:
    set_policy(keep_former=False)
    switch(small, admin_person)
    job = switch(tiny, admin_person)
    assert job.state == JobState.SUCCEEDED
    assert (loaded(), active()) == ({"tiny"}, "tiny")
    assert [step["kind"] for step in job.steps] == ["load", "verify", "drain", "unload", "free"]
    assert (job.downtime_seconds, job.plan["interrupts"]) == (0, False)


def test_downtime_is_recorded_when_the_memory_has_to_be_freed_first(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    switch(small, admin_person)
    world.load_seconds = 0.2
    job = switch(other, admin_person)
    assert job.plan["interrupts"]
    assert job.downtime_seconds is not None
    assert job.started_at
    assert job.finished_at
    assert 0.2 <= job.downtime_seconds <= (job.finished_at - job.started_at).total_seconds()


def test_no_model_was_active_before_so_there_was_no_downtime(small: ModelDefinition, admin_person: User) -> None:
    assert switch(small, admin_person).downtime_seconds is None


def test_oldest_first_unloads_the_one_unused_for_longest(
    null_runtime: Runtime, world: NullWorld, other: ModelDefinition, admin_person: User
) -> None:
    models = []
    for name, size in (("old", 200), ("large", 400)):
        world.memory[name] = size * MB
        models.append(make_model(null_runtime, model_id=name, name=name.title(), size_bytes=size * MB))
    for model in models:
        switch(model, admin_person)
    set_policy(strategy=SwitchPolicy.Strategy.OLDEST_FIRST)
    world.memory["other"] = 500 * MB
    other.size_bytes = 200 * MB
    other.save()
    plan = actions.preview(other, actor=Actor(admin_person, "page"))
    assert [model.model_id for model in plan.evicted] == ["old"]
    set_policy(strategy=SwitchPolicy.Strategy.LARGEST_FIRST)
    plan = actions.preview(other, actor=Actor(admin_person, "page"))
    assert [model.model_id for model in plan.evicted] == ["large"]


def test_without_auto_unload_a_switch_that_needs_room_is_refused_and_says_what_to_unload(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    switch(small, admin_person)
    set_policy(auto_unload=False)
    with pytest.raises(DoesNotFitNow, match="Other needs") as refused:
        actions.request_switch(other, actor=Actor(admin_person, "page"))
    assert "unload nothing by themselves" in refused.value.hint
    assert any("small" in way.model_ids for way in refused.value.ways_out)
    assert (loaded(), active()) == ({"small"}, "small")


def test_asking_before_unloading_returns_the_plan_until_it_is_confirmed(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    set_policy(confirm_before_unload=True)
    switch(small, admin_person)  # unloads nothing: nobody is asked
    decision = actions.request_switch(other, actor=Actor(admin_person, "chat"))
    assert (decision.status, decision.job) == ("needs_confirmation", None)
    assert decision.plan is not None
    assert [model.model_id for model in decision.plan.evicted] == ["small"]
    assert SwitchJob.objects.unfinished().count() == 0
    assert switch(other, admin_person, confirm=True).state == JobState.SUCCEEDED


def test_plan_that_was_shown_counts_as_confirmed(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    set_policy(confirm_before_unload=True)
    switch(small, admin_person)
    assert switch(other, admin_person, plan_was_shown=True).state == JobState.SUCCEEDED


def test_answers_that_run_longer_make_the_switch_give_up_when_policy_says_so(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    set_policy(drain_seconds=0.1, drain_action="abort")
    switch(small, admin_person)
    world.busy["small"] = 1
    job = switch(other, admin_person)
    assert (job.state, job.error_code) == (JobState.FAILED, ErrorCode.STILL_ANSWERING)
    assert (loaded(), active()) == ({"small"}, "small")
    assert not job.unloaded


def test_failed_way_back_ends_in_the_default_model(
    small: ModelDefinition, other: ModelDefinition, tiny: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    from gantry.runtimes.null import Failure

    set_policy(default_model=tiny)
    switch(small, admin_person)
    world.failures |= {"other": Failure(), "small": Failure()}
    job = switch(other, admin_person)
    assert (job.state, job.rolled_back, active()) == (JobState.FAILED, False, "tiny")
    assert "Small could not be put back" in job.aftermath
    assert "Tiny" in job.aftermath


LIMITS = {
    "switches_per_user": "3",
    "switches_in_all": "10",
    "stay_seconds": "0",
    "cool_down_seconds": "5",
    "cool_down_most_seconds": "600",
}


def test_page_shows_the_policy_and_keeps_what_is_changed_with_both_values_in_the_audit(
    client: Client, admin_person: User, small: ModelDefinition
) -> None:
    client.force_login(admin_person)
    page = client.get(reverse("admin:models_admin_switchpolicy_changelist"), follow=True)
    assert page.status_code == 200
    assert "Pinned models: no switch unloads them" in page.text
    form = {
        "strategy": "oldest_first",
        "preserve_models": [small.pk],
        "auto_unload": "on",
        "drain_seconds": "12",
        "drain_action": "wait",
        "stall_seconds": "60",
        "load_seconds": "900",
        **LIMITS,
        "default_model": small.pk,
        "load_at_start": "last",
    }
    answer = client.post(reverse("admin:models_admin_switchpolicy_change", args=[1]), form, follow=True)
    assert "The switch policy was changed" in answer.text
    policy = SwitchPolicy.current()
    assert (policy.strategy, policy.drain_seconds, policy.default_model) == ("oldest_first", 12, small)
    small.refresh_from_db()
    assert small.is_pinned
    entry = AuditEntry.objects.get(event=AuditEvent.POLICY_CHANGE)
    assert entry.actor_name == "ann"
    assert entry.before["drain_seconds"] == 30
    assert entry.after["drain_seconds"] == 12
    assert entry.after["default_model"] == "small"
    assert AuditEntry.objects.filter(event=AuditEvent.MODEL_PIN).count() == 1


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("drain_seconds", "-1", "greater than or equal to 0"), ("stall_seconds", "soon", "Enter a number")],
)
def test_policy_that_makes_no_sense_is_told_at_its_field(
    client: Client, admin_person: User, field: str, value: str, words: str
) -> None:
    client.force_login(admin_person)
    form = {
        "strategy": "largest_first",
        "drain_seconds": "30",
        "drain_action": "cut",
        "stall_seconds": "60",
        "load_seconds": "900",
        "load_at_start": "nothing",
        field: value,
    }
    answer = client.post(reverse("admin:models_admin_switchpolicy_change", args=[1]), form)
    assert words in answer.text
    assert SwitchPolicy.objects.count() == 0


def test_policy_is_for_those_who_may_change_it(client: Client, member: User) -> None:
    member.is_staff = True
    member.save()
    client.force_login(member)
    assert client.get(reverse("admin:models_admin_switchpolicy_change", args=[1])).status_code == 403


def test_what_gantry_does_by_itself_asks_nobody(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    set_policy(confirm_before_unload=True)
    switch(small, admin_person)
    assert actions.request_switch(other, actor=SYSTEM).status == "accepted"
