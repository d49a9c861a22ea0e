"""A cancel at each stage of a switch ends soon, in the state before."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from gantry.planning.states import JobState
from gantry.runtimes import llama_shim
from gantry.runtimes.llama_instance import InstanceFolder
from models_admin.models import ModelDefinition, ModelInstance, SwitchJob
from tests.integration.real_switches.held import ending_when_asked
from tests.integration.real_switches.host import Host, run, wait_for, when_told
from tests.integration.real_switches.talking import talking

pytestmark = [pytest.mark.llama, pytest.mark.django_db(transaction=True)]

END_SECONDS = 3.0 + llama_shim.KILL_SECONDS  # a server that does not end by itself is killed after the latter


def assert_cancelled(job: SwitchJob) -> None:
    """It has ended as cancelled, soon after that was asked for."""
    assert (job.state, job.error_code, job.unloaded) == (JobState.CANCELLED, "", [])
    assert job.cancel_requested_at
    assert job.finished_at
    assert (job.finished_at - job.cancel_requested_at).total_seconds() < END_SECONDS


def assert_put_back(job: SwitchJob, former: ModelDefinition) -> None:
    assert (job.rolled_back, job.aftermath) == (True, f"{former.name} was put back.")


def test_while_it_waits(host: Host, former: ModelDefinition, held: ModelDefinition) -> None:
    host.leave_room_for_one_of(held, former)
    pid, job = host.pid(former), host.ask(held)
    host.cancel(job)
    run(job)  # as a worker does that takes the message late
    assert_cancelled(job)
    host.assert_serves(former)
    assert host.pid(former) == pid


def test_while_an_answer_is_drained(host: Host, held: ModelDefinition, member: User) -> None:
    with talking(host, member) as talk:
        host.leave_room_for_one_of(held, talk.model)
        pid, job = host.pid(talk.model), host.ask(held)
        with host.at_work(job):
            wait_for(job, lambda job: job.state == JobState.DRAINING)
            host.cancel(job)
        assert_cancelled(job)
        assert (job.rolled_back, job.downtime_seconds) == (None, 0)
        assert not talk.has_ended
        talk.stop()
    host.assert_serves(talk.model)
    assert host.pid(talk.model) == pid


def test_while_the_former_model_is_unloaded(host: Host, former: ModelDefinition, held: ModelDefinition) -> None:
    host.leave_room_for_one_of(held, former)
    pid, job = host.pid(former), host.ask(held)
    with ending_when_asked(host.state_dir), when_told(job, "unload", lambda: host.cancel(job)):
        run(job)
    assert_cancelled(job)
    assert_put_back(job, former)
    host.assert_serves(former)
    assert host.pid(former) != pid


def test_while_the_target_is_loaded(host: Host, former: ModelDefinition, held: ModelDefinition) -> None:
    host.leave_room_for_one_of(held, former)
    job = host.ask(held)
    with ending_when_asked(host.state_dir), host.at_work(job):
        load = host.held(held)
        load.read_until(0.5)
        wait_for(job, lambda job: bool(job.bytes_done))
        host.cancel(job)
    assert_cancelled(job)
    assert_put_back(job, former)
    assert not load.mark.is_alive
    host.assert_serves(former)


def test_while_the_target_gives_its_first_token(host: Host, former: ModelDefinition) -> None:
    target = host.add("third")
    host.leave_room_for_one_of(target, former)
    job = host.ask(target)

    def freeze() -> None:
        row = ModelInstance.objects.get(model=target)
        server = InstanceFolder.of(host.state_dir, str(row.instance_id)).child
        assert server is not None
        server.send(signal.SIGSTOP)

    with (
        ending_when_asked(host.state_dir),
        when_told(job, "load", freeze, words="is loaded"),
        when_told(job, "verify", lambda: host.cancel(job), words="Asking"),  # for the token does not come at once
    ):
        run(job)
    assert_cancelled(job)
    assert_put_back(job, former)
    host.assert_serves(former)


def test_of_a_load_beside_the_former_model(host: Host, former: ModelDefinition, held: ModelDefinition) -> None:
    pid, job = host.pid(former), host.ask(held)
    with ending_when_asked(host.state_dir), host.at_work(job):
        host.held(held).read_until(0.5)
        host.cancel(job)
    assert_cancelled(job)
    assert (job.rolled_back, job.aftermath, job.downtime_seconds) == (None, "", 0)
    host.assert_serves(former)
    assert host.pid(former) == pid


def test_of_a_load_that_only_sigkill_ends(
    host: Host, former: ModelDefinition, held: ModelDefinition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = tmp_path / "hasty_shim.py"  # the same keeper with less patience
    hasty.write_text(Path(llama_shim.__file__).read_text().replace("KILL_SECONDS = 5.0", "KILL_SECONDS = 0.5"))
    monkeypatch.setattr(llama_shim, "__file__", str(hasty))
    host.leave_room_for_one_of(held, former)
    job = host.ask(held)
    with host.at_work(job):
        load = host.held(held)
        load.read_until(0.5)
        host.cancel(job)
    assert_cancelled(job)
    assert_put_back(job, former)
    assert not load.mark.is_alive
    host.assert_serves(former)
