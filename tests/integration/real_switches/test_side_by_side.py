"""Two real models: one is loaded while the other answers, in the background, for one call, with another context, and all go."""

from __future__ import annotations

from typing import Any

import httpx
import psutil
import pytest

from gantry.planning.states import ErrorCode, JobKind, JobState
from models_admin import actions
from models_admin.models import ModelDefinition, ModelInstance
from tests.integration.real_switches.host import Host, job_of, run, set_policy, wait_for

pytestmark = [pytest.mark.llama, pytest.mark.django_db(transaction=True)]

PARIS = "What is the capital of France?"
QUESTION = [{"role": "user", "content": PARIS}]


@pytest.mark.real_models
def test_former_model_answers_while_the_other_one_is_loaded(
    host: Host, gemma: ModelDefinition, held: ModelDefinition
) -> None:
    host.switch(gemma)
    pid, job = host.pid(gemma), host.ask(held)
    with host.at_work(job):
        load = host.held(held)
        load.read_until(0.5)
        wait_for(job, lambda job: job.state == JobState.LOADING and bool(job.bytes_done))
        assert not job.plan["interrupts"]
        assert "Paris" in host.say(gemma, PARIS, **gemma.sampling)
        load.go_on()
    assert (job.state, job.downtime_seconds) == (JobState.SUCCEEDED, 0)
    host.assert_serves(held, gemma)
    assert host.pid(gemma) == pid


def test_former_model_goes_once_the_new_one_answers_when_policy_says_so(
    host: Host, former: ModelDefinition, held: ModelDefinition
) -> None:
    set_policy(keep_former=False)
    pid, job = host.pid(former), host.ask(held)
    with host.at_work(job):
        load = host.held(held)
        load.read_until(0.5)
        assert host.say(former)
        load.go_on()
    assert (job.state, job.downtime_seconds) == (JobState.SUCCEEDED, 0)
    assert [step["kind"] for step in job.steps] == ["load", "verify", "drain", "unload", "free"]
    assert not psutil.pid_exists(pid)
    host.assert_serves(held)


@pytest.mark.real_models
def test_preload_makes_the_next_switch_immediate_and_unload_all_ends_both(
    host: Host, smol: ModelDefinition, gemma: ModelDefinition
) -> None:
    host.switch(smol)
    preload = run(job_of(actions.request_preload(gemma, actor=host.actor)))
    assert (preload.state, preload.kind) == (JobState.SUCCEEDED, JobKind.PRELOAD)
    host.assert_serves(smol, gemma)

    pid, switch = host.pid(gemma), host.switch(gemma)
    assert (switch.state, switch.steps, switch.downtime_seconds) == (JobState.SUCCEEDED, [], 0)
    host.assert_serves(gemma, smol)
    assert host.pid(gemma) == pid

    everything = run(job_of(actions.request_unload_all(host.pool, actor=host.actor)))
    assert (everything.state, everything.target_name) == (JobState.SUCCEEDED, "all models")
    host.assert_serves(None)


@pytest.fixture
def tight(host: Host, former: ModelDefinition, gemma: ModelDefinition) -> ModelDefinition:
    """The real model, for which the former one has to go."""
    host.leave_room_for_one_of(gemma, former)
    return gemma


def call(host: Host, model: ModelDefinition, messages: list[dict[str, str]], **sampling: Any) -> Any:
    return run(job_of(actions.request_call(model, messages, actor=host.actor, sampling=sampling)))


@pytest.mark.real_models
def test_call_gives_the_answer_and_the_former_model_answers_again(
    host: Host, former: ModelDefinition, tight: ModelDefinition
) -> None:
    job = call(host, tight, QUESTION)
    assert (job.state, job.kind, job.rolled_back) == (JobState.SUCCEEDED, JobKind.CALL, True)
    assert job.aftermath == "Former was put back."
    assert "Paris" in job.result["text"]
    assert job.downtime_seconds
    host.assert_serves(former)


@pytest.mark.real_models
def test_call_that_the_model_refuses_fails_and_the_former_model_answers_again(
    host: Host, former: ModelDefinition, tight: ModelDefinition
) -> None:
    job = call(host, tight, [{"role": "user", "content": "word " * 8000}])  # more than its context
    assert (job.state, job.error_code, job.result) == (JobState.FAILED, ErrorCode.CALL_FAILED, {})
    assert "context" in job.error_text
    assert (job.rolled_back, job.aftermath) == (True, "Former was put back.")
    host.assert_serves(former)


@pytest.mark.real_models
def test_call_to_a_model_that_fits_beside_the_former_one_interrupts_nobody(
    host: Host, former: ModelDefinition, gemma: ModelDefinition
) -> None:
    pid, job = host.pid(former), call(host, gemma, QUESTION)
    assert (job.state, job.rolled_back, job.aftermath, job.downtime_seconds) == (JobState.SUCCEEDED, None, "", 0)
    assert "Paris" in job.result["text"]
    host.assert_serves(former)
    assert host.pid(former) == pid


def slot_context(model: ModelDefinition) -> int:
    """Tokens of context, by the server's own word."""
    row = ModelInstance.objects.get(model=model)
    answer = httpx.get(f"{row.base_url}/props", headers={"Authorization": f"Bearer {row.api_key}"}, trust_env=False)
    return int(answer.json()["default_generation_settings"]["n_ctx"])


def test_context_for_one_load_reaches_the_server(host: Host, former: ModelDefinition) -> None:
    assert slot_context(former) == 2048
    assert host.switch(former, context=512).state == JobState.SUCCEEDED
    assert slot_context(former) == 512
    former.refresh_from_db()
    assert former.parameters["ctx_size"] == 2048
    host.assert_serves(former)


def test_model_put_back_has_the_context_that_it_was_loaded_with(host: Host, former: ModelDefinition) -> None:
    host.switch(former, context=512)
    target = host.add("odd")
    host.leave_room_for_one_of(target, former)
    assert host.switch(target).state == JobState.FAILED
    host.assert_serves(former)
    assert slot_context(former) == 512
