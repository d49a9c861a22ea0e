"""More than a switch: unloading all, loading in the background, one call, another context, unpinning on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.contrib.auth.models import User

from gantry.planning.states import ErrorCode, InstanceState, JobKind, JobState
from gantry.runtimes.null import Failure, NullRuntime, NullWorld
from models_admin import actions, running
from models_admin.actor import Actor
from models_admin.exceptions import (
    AnotherJobRunning,
    DoesNotFitNow,
    InvalidDefinition,
    InvalidRequest,
    NotAllowed,
    NotLoaded,
    RuntimeUnusable,
)
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.fakes.openai_server import OpenAIServer, openai_server_in_thread

pytestmark = pytest.mark.django_db(transaction=True)

MB = 1_000_000
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def tiny(null_runtime: Runtime, world: NullWorld) -> ModelDefinition:
    """Takes 100 MB: fits beside anything."""
    world.memory["tiny"] = 100 * MB
    return make_model(null_runtime, model_id="tiny", name="Tiny", size_bytes=90 * MB)


def run(decision: actions.SwitchDecision) -> SwitchJob:
    assert decision.job is not None
    running.run_job(decision.job.pk)
    decision.job.refresh_from_db()
    return decision.job


def switch(model: ModelDefinition, user: User) -> SwitchJob:
    return run(actions.request_switch(model, actor=Actor(user, "page")))


def loaded() -> set[str]:
    rows = ModelInstance.objects.filter(state=InstanceState.LOADED)
    return set(rows.values_list("model__model_id", flat=True))


def active() -> str:
    return ModelInstance.objects.filter(is_active=True).values_list("model__model_id", flat=True).first() or ""


def test_unload_all_unloads_pinned_models_too(
    small: ModelDefinition, tiny: ModelDefinition, admin_person: User, pool: MemoryPool, world: NullWorld
) -> None:
    switch(small, admin_person)
    switch(tiny, admin_person)
    actions.set_pinned(small, True, actor=Actor(admin_person, "page"))
    job = run(actions.request_unload_all(pool, actor=Actor(admin_person, "page")))
    assert (job.state, job.target, job.target_name) == (JobState.SUCCEEDED, None, "all models")
    assert (loaded(), world.instances) == (set(), {})


def test_unload_all_with_nothing_loaded_says_so(pool: MemoryPool, admin_person: User) -> None:
    with pytest.raises(NotLoaded, match="No model is loaded"):
        actions.request_unload_all(pool, actor=Actor(admin_person, "page"))


def test_preload_leaves_the_active_model_active(
    small: ModelDefinition, tiny: ModelDefinition, admin_person: User
) -> None:
    switch(small, admin_person)
    job = run(actions.request_preload(tiny, actor=Actor(admin_person, "page")))
    assert (job.state, loaded(), active()) == (JobState.SUCCEEDED, {"small", "tiny"}, "small")


def test_preload_unloads_nothing_for_itself(small: ModelDefinition, other: ModelDefinition, admin_person: User) -> None:
    switch(small, admin_person)
    with pytest.raises(DoesNotFitNow, match="Other needs"):
        actions.request_preload(other, actor=Actor(admin_person, "page"))
    assert loaded() == {"small"}


def test_switch_takes_over_from_a_preload_without_asking(
    small: ModelDefinition, tiny: ModelDefinition, admin_person: User
) -> None:
    preload = actions.request_preload(tiny, actor=Actor(admin_person, "page")).job
    assert preload is not None
    SwitchJob.objects.filter(pk=preload.pk).update(percent=80)
    assert actions.request_switch(small, actor=Actor(admin_person, "page")).status == "accepted"
    preload.refresh_from_db()
    assert preload.state == JobState.SUPERSEDED


def test_preload_waits_for_nobody_and_is_refused_while_a_switch_runs(
    small: ModelDefinition, tiny: ModelDefinition, admin_person: User
) -> None:
    actions.request_switch(small, actor=Actor(admin_person, "page"))
    with pytest.raises(AnotherJobRunning, match="Switching to Small is under way"):
        actions.request_preload(tiny, actor=Actor(admin_person, "page"))


def test_context_for_one_load_is_used_and_the_definition_stays(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    small.parameters = {"ctx_size": 8192, "parallel": 1}
    small.save()
    job = run(actions.request_switch(small, actor=Actor(admin_person, "page"), context=1024))
    assert job.state == JobState.SUCCEEDED
    assert world.loads[-1].parameters == {"ctx_size": 1024, "parallel": 1}
    small.refresh_from_db()
    assert small.parameters["ctx_size"] == 8192
    # The same model with its own context again is another load.
    assert actions.request_switch(small, actor=Actor(admin_person, "page")).status == "already_loaded"
    again = run(actions.request_switch(small, actor=Actor(admin_person, "page"), context=2048))
    assert again.state == JobState.SUCCEEDED
    assert world.loads[-1].parameters["ctx_size"] == 2048


@pytest.mark.parametrize("context", [0, 1, 255, 10**9])
def test_context_that_makes_no_sense_is_refused(small: ModelDefinition, admin_person: User, context: int) -> None:
    with pytest.raises(InvalidRequest):
        actions.request_switch(small, actor=Actor(admin_person, "page"), context=context)
    assert SwitchJob.objects.count() == 0


def test_unpinning_on_the_way_frees_the_pinned_model_and_is_audited(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, member: User
) -> None:
    switch(small, admin_person)
    actions.set_pinned(small, True, actor=Actor(admin_person, "page"))
    with pytest.raises(DoesNotFitNow) as refused:
        actions.request_switch(other, actor=Actor(admin_person, "page"))
    assert any("small" in way.model_ids for way in refused.value.ways_out)
    with pytest.raises(NotAllowed, match="You may not unpin models"):
        actions.request_switch(other, actor=Actor(member, "page"), unpin=["small"])
    job = run(actions.request_switch(other, actor=Actor(admin_person, "page"), unpin=["small"]))
    small.refresh_from_db()
    assert (job.state, active(), small.is_pinned) == (JobState.SUCCEEDED, "other", False)


@pytest.fixture
def answering(world: NullWorld) -> Iterator[OpenAIServer]:
    """A server behind the null runtime's models."""
    with openai_server_in_thread(pieces=["Paris", "."]) as server:
        world.base_url = server.base_url
        yield server


def test_call_answers_and_puts_the_former_model_back(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, answering: OpenAIServer
) -> None:
    switch(small, admin_person)
    job = run(actions.request_call(other, QUESTION, actor=Actor(admin_person, "rest")))
    assert (job.state, job.kind) == (JobState.SUCCEEDED, JobKind.CALL)
    assert (job.result["text"], job.result["finish_reason"]) == ("Paris.", "stop")
    assert answering.requests[0]["messages"] == QUESTION
    assert (loaded(), active()) == ({"small"}, "small")


def test_call_that_fails_puts_the_former_model_back_all_the_same(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    switch(small, admin_person)
    world.base_url = "http://127.0.0.1:9"  # nothing listens there
    job = run(actions.request_call(other, QUESTION, actor=Actor(admin_person, "rest")))
    assert (job.state, job.error_code) == (JobState.FAILED, ErrorCode.CALL_FAILED)
    assert (loaded(), active()) == ({"small"}, "small")


def test_call_to_a_model_that_does_not_load_puts_the_former_one_back(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    switch(small, admin_person)
    world.failures["other"] = Failure(ErrorCode.OUT_OF_MEMORY)
    job = run(actions.request_call(other, QUESTION, actor=Actor(admin_person, "rest")))
    assert (job.error_code, active()) == (ErrorCode.OUT_OF_MEMORY, "small")


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": ""}], [{"role": "robot", "content": "hi"}]])
def test_call_without_a_question_is_refused(
    small: ModelDefinition, admin_person: User, messages: list[dict[str, str]]
) -> None:
    with pytest.raises(InvalidRequest, match="messages"):
        actions.request_call(small, messages, actor=Actor(admin_person, "rest"))


def test_steps_of_jobs_teach_how_long_unloading_and_verifying_takes(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    world.unload_seconds = world.verify_seconds = 0.15
    switch(small, admin_person)
    switch(other, admin_person)
    plan = actions.preview(small, actor=Actor(admin_person, "page"))
    seconds = {step.kind.value: step.expected_seconds for step in plan.steps}
    assert 0.1 < seconds["verify"] < 0.4
    assert 0.1 < seconds["unload"] < 0.4  # learned from the other model of the host


def test_deleted_target_does_not_keep_a_call_waiting(
    small: ModelDefinition, admin_person: User, pool: MemoryPool
) -> None:
    job = make_job(pool, None, kind=JobKind.CALL)
    running.run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error_code) == (JobState.FAILED, ErrorCode.NOT_DOWNLOADED)


def test_model_that_is_put_back_has_the_context_it_was_loaded_with(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    run(actions.request_switch(small, actor=Actor(admin_person, "page"), context=1024))
    world.failures["other"] = Failure(ErrorCode.OUT_OF_MEMORY)
    job = switch(other, admin_person)
    assert (job.rolled_back, active()) == (True, "small")
    assert world.loads[-1].parameters == {"ctx_size": 1024}


def test_background_load_never_replaces_the_model_of_a_server_that_holds_one(
    small: ModelDefinition, tiny: ModelDefinition, admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch(small, admin_person)
    monkeypatch.setattr(NullRuntime, "capabilities", replace(NullRuntime.capabilities, holds_many=False))
    with pytest.raises(RuntimeUnusable, match="null holds one model at a time"):
        actions.request_preload(tiny, actor=Actor(admin_person, "page"))
    job = switch(tiny, admin_person)  # both would fit, but the server holds one
    assert (job.state, loaded()) == (JobState.SUCCEEDED, {"tiny"})


def test_device_that_is_not_there_is_told_at_the_click(small: ModelDefinition, admin_person: User) -> None:
    small.devices = ["GPU-gone"]
    small.save()
    with pytest.raises(InvalidDefinition, match="Small cannot be placed: The pool has no device 'GPU-gone'"):
        actions.request_switch(small, actor=Actor(admin_person, "page"))
