"""Loads that fail after the former model was unloaded: the cause is told in words, and the former model answers again."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from gantry.planning.states import ErrorCode, JobState
from gantry.planning.wording import wording
from gantry.runtimes import llama_server
from gantry.runtimes.process import choose_port
from models_admin import actions
from models_admin.models import ModelDefinition, SwitchEvent
from tests.integration.real_switches.conftest import ODD_WORDS
from tests.integration.real_switches.held import ending_when_asked
from tests.integration.real_switches.host import (
    Host,
    assert_failed_and_put_back,
    set_policy,
)

pytestmark = [pytest.mark.llama, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize(
    ("name", "fields", "code", "words"),
    [
        pytest.param("holed", {}, ErrorCode.LOAD_FAILED, "blk.1.ffn_down.weight", id="a-tensor-is-missing"),
        pytest.param("alien", {}, ErrorCode.LOAD_FAILED, "lxama", id="unknown-architecture"),
        pytest.param(
            "third",
            {"extra_args": ["--rope-scaling", "wobble"]},
            ErrorCode.BAD_PARAMETER,
            "--rope-scaling",
            id="bad-value-of-a-flag",
        ),
        pytest.param("starved", {}, ErrorCode.OUT_OF_MEMORY, "ran out of memory", id="out-of-memory"),
        pytest.param("odd", {}, ErrorCode.LOAD_FAILED, "exited with 42", id="unknown-cause"),
        pytest.param("foreign", {}, ErrorCode.WRONG_CPU, "another kind of processor", id="wrong-processor"),
    ],
)
def test_former_model_answers_again_after_a_load_that_fails(
    host: Host, former: ModelDefinition, name: str, fields: dict[str, Any], code: ErrorCode, words: str
) -> None:
    target = host.add(name, **fields)
    host.leave_room_for_one_of(target, former)
    job = host.switch(target)
    for _ in range(
        2
    ):  # llama-server logs by a thread of its own and may end before the line that names the cause is out
        assert_failed_and_put_back(job, code, former)
        job = job if words in job.error_text else host.switch(target)
    assert words in job.error_text
    assert job.error_text.startswith(wording(code).sentence)
    host.assert_serves(former)
    target.refresh_from_db()
    assert (target.last_error_code, target.last_error_text) == (code, job.error_text)


def test_log_of_an_unknown_cause_is_kept(host: Host, former: ModelDefinition) -> None:
    job = host.switch(host.add("odd"))
    assert job.state == JobState.FAILED
    assert ODD_WORDS in job.log_tail


def test_load_that_fails_beside_the_former_model_costs_nobody_anything(host: Host, former: ModelDefinition) -> None:
    pid = host.pid(former)
    job = host.switch(host.add("holed"))
    assert (job.state, job.rolled_back, job.aftermath, job.downtime_seconds) == (JobState.FAILED, None, "", 0)
    host.assert_serves(former)
    assert host.pid(former) == pid


def test_load_without_a_sign_of_progress_is_given_up(
    host: Host, former: ModelDefinition, held: ModelDefinition
) -> None:
    set_policy(stall_seconds=1)
    host.leave_room_for_one_of(held, former)
    job = host.ask(held)
    with ending_when_asked(host.state_dir), host.at_work(job):
        load = host.held(held)
        load.read_until(0.3)  # and then the disk gives nothing any more
    assert_failed_and_put_back(job, ErrorCode.LOAD_STALLED, former)
    assert SwitchEvent.objects.filter(job=job, bytes_done__gt=0).exists()
    assert not load.mark.is_alive
    host.assert_serves(former)


def test_load_that_lasts_longer_than_any_may_is_given_up(
    host: Host, former: ModelDefinition, held: ModelDefinition
) -> None:
    set_policy(load_seconds=0.5)
    host.leave_room_for_one_of(held, former)
    job = host.ask(held)
    with ending_when_asked(host.state_dir), host.at_work(job):
        host.held(held).read_until(0.3)
    assert_failed_and_put_back(job, ErrorCode.LOAD_TIMEOUT, former)
    host.assert_serves(former)


def test_load_that_the_kernel_kills_is_told_as_such(host: Host, former: ModelDefinition, held: ModelDefinition) -> None:
    host.leave_room_for_one_of(held, former)
    job = host.ask(held)
    with host.at_work(job):
        load = host.held(held)
        load.read_until(0.3)
        load.kill()
    assert_failed_and_put_back(job, ErrorCode.KILLED, former)
    assert "killed by signal 9" in job.error_text
    host.assert_serves(former)


def test_ports_that_are_all_taken_fail_the_switch_and_another_one_is_found_for_the_former_model(
    host: Host, former: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = host.add("third")
    host.leave_room_for_one_of(target, former)
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = [other.getsockname()[1]] * llama_server.PORT_TRIES
        monkeypatch.setattr(llama_server, "choose_port", lambda: ports.pop() if ports else choose_port())
        job = host.switch(target)
    assert_failed_and_put_back(job, ErrorCode.PORT_TAKEN, former)
    host.assert_serves(former)


def test_default_model_serves_when_the_former_one_does_not_come_back(
    host: Host, former: ModelDefinition, tmp_path: Path
) -> None:
    default, target = host.add("third"), host.add("odd")
    host.leave_room_for_one_of(target, default, former)
    set_policy(default_model=default)
    ModelDefinition.objects.filter(pk=former.pk).update(path="holed.gguf")  # somebody has replaced its file meanwhile
    job = host.switch(target)
    assert (job.state, job.error_code, job.rolled_back) == (JobState.FAILED, ErrorCode.LOAD_FAILED, False)
    assert job.aftermath == (
        "Former could not be put back (did not load). Third, the default model, was loaded instead."
    )
    host.assert_serves(default)


def test_restart_that_fails_says_that_the_model_stays_unloaded(host: Host, former: ModelDefinition) -> None:
    ModelDefinition.objects.filter(pk=former.pk).update(path="holed.gguf")
    former.refresh_from_db()
    decision = actions.request_restart(former, actor=host.actor)
    assert decision.job is not None
    with host.at_work(decision.job):
        pass
    assert (decision.job.state, decision.job.error_code) == (JobState.FAILED, ErrorCode.LOAD_FAILED)
    assert decision.job.aftermath == "Former stays unloaded."
    host.assert_serves(None)
