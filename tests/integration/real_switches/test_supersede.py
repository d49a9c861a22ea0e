"""A second switch while a real load is under way: taken over before the half, after it only when confirmed."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from gantry.planning.states import ErrorCode, JobState
from models_admin import actions
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, SwitchJob
from tests.integration.real_switches.held import HeldLoad, ending_when_asked
from tests.integration.real_switches.host import Host, run, wait_for

pytestmark = [pytest.mark.llama, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def third(host: Host, former: ModelDefinition, held: ModelDefinition) -> ModelDefinition:
    """What the second switch is for; only one of the three fits."""
    model = host.add("third")
    host.leave_room_for_one_of(held, former, model)
    return model


def bring_to(job: SwitchJob, load: HeldLoad, share: float) -> None:
    """The load has come so far, and the job's row shows that."""
    read = 0.0

    def is_seen(job: SwitchJob) -> bool:  # what was read before the first look does not count
        nonlocal read
        load.read_until(read := read + 0.01)
        return job.state == JobState.LOADING and bool(job.bytes_done)

    wait_for(job, is_seen)
    load.read_until(share)


def assert_taken_over(first: SwitchJob, second: SwitchJob, load: HeldLoad, former: ModelDefinition) -> None:
    assert (first.state, first.superseded_by, first.aftermath) == (JobState.SUPERSEDED, second, "")
    assert [entry["model_id"] for entry in first.unloaded] == [former.model_id]  # owed by the second from now on
    assert not load.mark.is_alive


def test_before_the_half_the_second_switch_takes_over(
    host: Host, former: ModelDefinition, held: ModelDefinition, third: ModelDefinition, member: User
) -> None:
    first = host.ask(held)
    with ending_when_asked(host.state_dir), host.at_work(first):
        load = host.held(held)
        bring_to(first, load, 0.2)
        assert 0 < first.percent < actions.HALF_DONE_PERCENT
        decision = actions.request_switch(third, actor=Actor(member, "chat"))
    second = decision.job
    assert (decision.status, second is None) == ("accepted", False)
    assert second is not None
    assert_taken_over(first, second, load, former)
    assert run(second).state == JobState.SUCCEEDED
    host.assert_serves(third)


def test_past_the_half_it_needs_a_confirmation(
    host: Host, former: ModelDefinition, held: ModelDefinition, third: ModelDefinition, member: User
) -> None:
    first = host.ask(held)
    with ending_when_asked(host.state_dir), host.at_work(first):
        load = host.held(held)
        bring_to(first, load, 0.9)
        wait_for(first, lambda job: job.percent >= actions.HALF_DONE_PERCENT)
        decision = actions.request_switch(third, actor=Actor(member, "chat"))
        assert (decision.status, decision.job) == ("needs_confirmation", first)
        assert decision.job is not None
        assert decision.job.percent >= actions.HALF_DONE_PERCENT
        assert load.mark.is_alive
        second = actions.request_switch(third, actor=Actor(member, "chat"), confirm=True).job
    assert second is not None
    assert_taken_over(first, second, load, former)
    assert run(second).state == JobState.SUCCEEDED
    host.assert_serves(third)


def test_past_the_half_a_switch_that_nobody_confirms_changes_nothing(
    host: Host, held: ModelDefinition, third: ModelDefinition
) -> None:
    first = host.ask(held)
    with host.at_work(first):
        load = host.held(held)
        bring_to(first, load, 0.9)
        wait_for(first, lambda job: job.percent >= actions.HALF_DONE_PERCENT)
        assert actions.request_switch(third, actor=host.actor).status == "needs_confirmation"
        load.go_on()
    assert first.state == JobState.SUCCEEDED
    host.assert_serves(held)


def test_same_target_joins_the_job_that_runs(host: Host, held: ModelDefinition, third: ModelDefinition) -> None:
    first = host.ask(held)
    with host.at_work(first):
        load = host.held(held)
        decision = actions.request_switch(held, actor=host.actor)
        assert (decision.status, decision.job) == ("joined", first)
        load.go_on()
    assert first.state == JobState.SUCCEEDED
    host.assert_serves(held)


def test_second_switch_that_fails_puts_back_what_the_first_had_unloaded(
    host: Host, former: ModelDefinition, held: ModelDefinition, third: ModelDefinition
) -> None:
    odd = host.add("odd")
    first = host.ask(held)
    with ending_when_asked(host.state_dir), host.at_work(first):
        bring_to(first, host.held(held), 0.2)
        second = host.ask(odd)
    assert first.state == JobState.SUPERSEDED
    run(second)
    assert (second.state, second.error_code) == (JobState.FAILED, ErrorCode.LOAD_FAILED)
    assert (second.rolled_back, second.aftermath) == (True, "Former was put back.")
    assert second.downtime_seconds
    host.assert_serves(former)
