"""Whole jobs on the database and the null runtime: from the request to the end."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError

from gantry.hardware.base import MemoryUnreadable
from gantry.planning.states import ErrorCode, InstanceState, JobState
from gantry.runtimes.null import Failure, NullWorld
from models_admin import actions, job_moves, memory, running
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.effects import DatabaseEffects
from models_admin.models import AuditEntry, LoadRecord, MemoryPool, ModelDefinition, ModelInstance, SwitchJob
from tests.factories import make_job

pytestmark = pytest.mark.django_db(transaction=True)


def switch(model: ModelDefinition, user: User) -> SwitchJob:
    """Ask for a switch and run its job here and now."""
    job = actions.request_switch(model, actor=Actor(user, "page", "127.0.0.1")).job
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    return job


def active() -> str:
    instance = ModelInstance.objects.filter(is_active=True).select_related("model").first()
    return instance.model.model_id if instance else ""


def test_switch_ends_with_the_model_active_and_everything_written_down(
    small: ModelDefinition, admin_person: User
) -> None:
    job = switch(small, admin_person)
    assert (job.state, job.percent, job.error_code) == (JobState.SUCCEEDED, 100.0, "")
    assert active() == "small"
    assert [step["state"] for step in job.steps] == ["done", "done"]
    load = LoadRecord.objects.get()
    assert load.held_bytes == 600_000_000
    assert load.reading_seconds is not None
    assert 0 < load.reading_seconds <= load.load_seconds
    events = list(job.events.all())
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [entry.event for entry in AuditEntry.objects.order_by("id")] == [
        AuditEvent.SWITCH_REQUEST,
        AuditEvent.JOB_END,
    ]
    assert AuditEntry.objects.first().outcome == "succeeded"  # type: ignore[union-attr]


def test_switch_to_what_does_not_fit_beside_unloads_the_other(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    switch(small, admin_person)
    job = switch(other, admin_person)
    assert job.state == JobState.SUCCEEDED
    assert job.from_name == "Small"
    assert [model["name"] for model in job.plan["evicted"]] == ["Small"]
    assert active() == "other"
    assert [instance.model_id for instance in world.instances.values()] == ["other"]


def test_failed_load_brings_the_old_model_back(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    switch(small, admin_person)
    world.failures["other"] = Failure(ErrorCode.OUT_OF_MEMORY, 0.0)
    job = switch(other, admin_person)
    assert (job.state, job.error_code, job.rolled_back) == (JobState.FAILED, ErrorCode.OUT_OF_MEMORY, True)
    assert job.aftermath == "Small was put back."
    assert active() == "small"
    other.refresh_from_db()
    assert other.last_error_code == ErrorCode.OUT_OF_MEMORY


def test_pinned_model_is_never_unloaded_by_a_switch(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    switch(small, admin_person)
    actions.set_pinned(small, is_pinned=True, actor=Actor(admin_person, "page"))
    with pytest.raises(actions.ActionRefused, match="Other needs"):
        actions.request_switch(other, actor=Actor(admin_person, "page"))
    assert active() == "small"


def test_unload_frees_and_leaves_no_active_model(small: ModelDefinition, admin_person: User, world: NullWorld) -> None:
    switch(small, admin_person)
    job = actions.request_unload(small, actor=Actor(admin_person, "page")).job
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert (active(), dict(world.instances)) == ("", {})


def test_restart_gives_a_new_process_of_the_same_model(small: ModelDefinition, admin_person: User) -> None:
    switch(small, admin_person)
    before = ModelInstance.objects.get().instance_id
    job = actions.request_restart(small, actor=Actor(admin_person, "page")).job
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    assert active() == "small"
    assert ModelInstance.objects.get().instance_id != before


def test_cancel_of_a_waiting_job_ends_it_at_once(small: ModelDefinition, admin_person: User) -> None:
    job = actions.request_switch(small, actor=Actor(admin_person, "page")).job
    assert job is not None
    actions.cancel_job(job, actor=Actor(admin_person, "page"))
    job.refresh_from_db()
    assert job.state == JobState.CANCELLED
    running.run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, active()) == (JobState.CANCELLED, "")


def test_cancel_asked_before_the_work_begins_is_heard(small: ModelDefinition, admin_person: User) -> None:
    job = actions.request_switch(small, actor=Actor(admin_person, "page")).job
    assert job is not None
    claimed = job_moves.claim(job.pk)
    assert claimed is not None
    actions.cancel_job(claimed, actor=Actor(admin_person, "page"))
    outcome = running._carry_out(claimed)
    assert outcome.state == JobState.CANCELLED


def test_two_working_jobs_on_one_pool_are_refused_by_the_database(pool: MemoryPool, small: ModelDefinition) -> None:
    make_job(pool, small, state=JobState.LOADING)
    with pytest.raises(IntegrityError):
        make_job(pool, small, state=JobState.PLANNING)


def test_job_that_cannot_be_claimed_waits(pool: MemoryPool, small: ModelDefinition) -> None:
    make_job(pool, small, state=JobState.LOADING)
    waiting = make_job(pool, small)
    assert job_moves.claim(waiting.pk) is None
    waiting.refresh_from_db()
    assert waiting.state == JobState.WAITING


def test_job_ends_only_once(pool: MemoryPool, small: ModelDefinition) -> None:
    job = make_job(pool, small, state=JobState.LOADING)
    assert job_moves.finish(job, JobState.FAILED, text="no", error_code=ErrorCode.LOAD_FAILED)
    assert not job_moves.finish(job, JobState.SUCCEEDED, text="yes")
    job.refresh_from_db()
    assert job.state == JobState.FAILED


def test_bug_in_the_work_ends_the_job_and_keeps_the_trace(
    small: ModelDefinition, admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object, **_named: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(running, "run_plan", broken)
    job = switch(small, admin_person)
    assert (job.state, job.error_code) == (JobState.FAILED, ErrorCode.INTERNAL)
    assert "ZeroDivisionError: a bug" in job.log_tail


def test_unload_while_a_switch_is_unfinished_is_refused_with_its_name(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    switch(other, admin_person)
    first = actions.request_switch(small, actor=Actor(admin_person, "page")).job
    with pytest.raises(actions.ActionRefused, match=r"Switching to Small is under way \(asked by ann\)"):
        actions.request_unload(other, actor=Actor(admin_person, "page"))
    again = actions.request_switch(small, actor=Actor(admin_person, "page"))
    assert (again.status, again.job) == ("joined", first)


def test_switch_to_the_active_model_is_done_at_once(small: ModelDefinition, admin_person: User) -> None:
    switch(small, admin_person)
    decision = actions.request_switch(small, actor=Actor(admin_person, "page"))
    assert (decision.status, decision.job) == ("already_loaded", None)


def test_person_without_the_permission_is_refused(small: ModelDefinition, outsider: User, member: User) -> None:
    with pytest.raises(actions.ActionRefused, match="You may not switch models"):
        actions.request_switch(small, actor=Actor(outsider, "chat"))
    job = actions.request_switch(small, actor=Actor(member, "chat")).job
    assert job is not None
    with pytest.raises(actions.ActionRefused, match="Only the one who asked"):
        actions.cancel_job(job, actor=Actor(outsider, "chat"))
    actions.cancel_job(job, actor=Actor(member, "chat"))


def test_model_without_its_file_is_refused_before_anything_is_unloaded(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    switch(small, admin_person)
    other.is_available = False
    other.save(update_fields=["is_available"])
    with pytest.raises(actions.ActionRefused, match="Other is not downloaded"):
        actions.request_switch(other, actor=Actor(admin_person, "page"))
    assert active() == "small"
    assert SwitchJob.objects.unfinished().count() == 0


def test_instance_states_never_name_two_active_models(small: ModelDefinition, other: ModelDefinition) -> None:
    make = ModelInstance.objects.create
    common = {"runtime": small.runtime, "state": InstanceState.LOADED, "is_active": True}
    make(instance_id="00000000-0000-0000-0000-000000000001", model=small, **common)
    with pytest.raises(IntegrityError):
        make(instance_id="00000000-0000-0000-0000-000000000002", model=other, **common)


def test_memory_that_cannot_be_read_ends_the_job_and_leaves_what_serves(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch(small, admin_person)

    class DeadDriver:
        def read(self, _held: object) -> None:
            raise MemoryUnreadable("the GPU driver does not answer")

        def held_by(self, _pid: int) -> int:
            return 0

    monkeypatch.setattr(memory, "memory_source", DeadDriver)
    job = switch(other, admin_person)
    assert (job.state, job.error_code) == (JobState.FAILED, ErrorCode.MEMORY_UNREADABLE)
    assert job.error_text.endswith("the GPU driver does not answer")
    assert active() == "small"


def test_memory_that_people_see_follows_an_unload_in_the_middle_of_a_switch(
    small: ModelDefinition, admin_person: User, pool: MemoryPool
) -> None:
    job = switch(small, admin_person)
    pool.refresh_from_db()
    assert pool.held_bytes == 600_000_000
    DatabaseEffects(job).instance_gone(str(ModelInstance.objects.get().instance_id))
    pool.refresh_from_db()
    assert (pool.held_bytes, pool.free_bytes) == (0, pool.total_bytes)


def test_end_of_a_commands_job_is_written_down_as_the_commands(small: ModelDefinition) -> None:
    job = actions.request_switch(small, actor=Actor(None, "command")).job
    assert job is not None
    running.run_job(job.pk)
    assert [(entry.event, entry.via) for entry in AuditEntry.objects.order_by("id")] == [
        (AuditEvent.SWITCH_REQUEST, "command"),
        (AuditEvent.JOB_END, "command"),
    ]
