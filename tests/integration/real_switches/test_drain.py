"""A long real answer is running when its model has to go: it is waited for, cut, or the switch gives up, as policy says."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from gantry.chat.models import Message
from gantry.planning.states import ErrorCode, JobState
from models_admin.models import SwitchEvent, SwitchJob
from tests.integration.real_switches.host import Host, run, set_policy
from tests.integration.real_switches.talking import talking

pytestmark = [pytest.mark.llama, pytest.mark.django_db(transaction=True)]

LONG_TOKENS = 120


def told(job: SwitchJob) -> list[str]:
    """What people were told of the draining."""
    return list(SwitchEvent.objects.filter(job=job, step_kind="drain").order_by("seq").values_list("text", flat=True))


@pytest.mark.parametrize(
    ("action", "seconds", "words"),
    [("wait", 0, "Still waiting for 1 answer"), ("cut", 30, "Finishing 1 answer")],
    ids=["however-long-it-takes", "within-its-time"],
)
def test_answer_that_is_waited_for_is_complete(
    host: Host, member: User, action: str, seconds: float, words: str
) -> None:
    set_policy(drain_action=action, drain_seconds=seconds)
    target = host.add("former")
    with talking(host, member, max_tokens=LONG_TOKENS) as talk:
        host.leave_room_for_one_of(target, talk.model)
        job = host.switch(target)
        answer = talk.join()
    assert job.state == JobState.SUCCEEDED
    assert (answer.state, answer.token_count) == (Message.State.COMPLETE, LONG_TOKENS)
    assert any(text.startswith(words) for text in told(job))
    host.assert_serves(target)


def test_answer_that_is_cut_keeps_its_text(host: Host, member: User) -> None:
    set_policy(drain_action="cut", drain_seconds=0.3)
    target = host.add("former")
    with talking(host, member) as talk:
        host.leave_room_for_one_of(target, talk.model)
        job = host.switch(target)
        answer = talk.join()
    assert job.state == JobState.SUCCEEDED
    assert answer.state == Message.State.FAILED
    assert len(answer.text.split()) > 1
    assert answer.error_text.endswith("What it had written is kept.")
    assert "1 answer was cut off after 0 s" in told(job)
    host.assert_serves(target)


def test_switch_gives_up_for_an_answer_that_runs_on(host: Host, member: User) -> None:
    set_policy(drain_action="abort", drain_seconds=0.3)
    target = host.add("former")
    with talking(host, member) as talk:
        host.leave_room_for_one_of(target, talk.model)
        pid, job = host.pid(talk.model), host.ask(target)
        run(job)
        assert not talk.has_ended
        talk.stop()
    assert (job.state, job.error_code) == (JobState.FAILED, ErrorCode.STILL_ANSWERING)
    assert (job.unloaded, job.rolled_back, job.downtime_seconds) == ([], None, 0)
    host.assert_serves(talk.model)
    assert host.pid(talk.model) == pid
