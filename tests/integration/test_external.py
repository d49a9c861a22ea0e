"""What other people's programs do to a server: shown, used, never fought over."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from gantry.planning.states import InstanceState, JobState, ModelState
from gantry.runtimes.base import AvailableModel, RunningInstance
from gantry.runtimes.null import NullWorld
from models_admin import actions, overview, recovery, running, server_models, upkeep
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Each test meets a worker that has asked no server yet."""
    server_models._refreshed_at.clear()
    yield
    server_models._refreshed_at.clear()


def load_elsewhere(world: NullWorld, model_id: str, **fields: object) -> RunningInstance:
    """Somebody loads a model past Gantry."""
    instance = RunningInstance(
        str(uuid.uuid4()), model_id, is_ready=True, is_alive=True, memory_bytes=1000, is_external=True
    )
    world.put(replace(instance, **fields))  # type: ignore[arg-type]
    return instance


def serve(model: ModelDefinition, user: User) -> ModelInstance:
    job = actions.request_switch(model, actor=Actor(user, "page")).job
    assert job is not None
    running.run_job(job.pk)
    return ModelInstance.objects.get(model=model)


def events(event: AuditEvent) -> list[str]:
    return list(AuditEntry.objects.filter(event=event).values_list("object_text", flat=True))


def state_of(model: ModelDefinition) -> ModelState:
    [row] = overview.model_rows(None, model_ids=[model.model_id])
    return row.state


def test_model_that_somebody_else_loaded_is_shown_and_serves(small: ModelDefinition, world: NullWorld) -> None:
    load_elsewhere(world, "small")
    report = recovery.reconcile_host("local")
    assert report is not None
    assert report.external == ["Small"]
    record = ModelInstance.objects.get()
    assert (record.is_external, record.is_active, record.held_bytes) == (True, True, 1000)
    assert state_of(small) == ModelState.ACTIVE
    assert events(AuditEvent.MODEL_EXTERNAL) == ["Small"]
    assert recovery.reconcile_host("local") is not None
    assert events(AuditEvent.MODEL_EXTERNAL) == ["Small"]
    assert len(world.instances) == 1


def test_model_that_is_active_stays_so_beside_one_from_elsewhere(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    serve(small, admin_person)
    load_elsewhere(world, "other")
    recovery.reconcile_host("local")
    assert [state_of(small), state_of(other)] == [ModelState.ACTIVE, ModelState.LOADED]


def test_outside_change_wins(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    """Somebody unloads ours and loads another: that one serves, ours did not crash, and nothing is brought back."""
    ours = serve(small, admin_person)
    del world.instances[str(ours.instance_id)]
    load_elsewhere(world, "other")
    recovery.reconcile_host("local")
    assert [state_of(small), state_of(other)] == [ModelState.IDLE, ModelState.ACTIVE]
    assert events(AuditEvent.MODEL_EXTERNAL_UNLOAD) == ["Small"]
    assert events(AuditEvent.MODEL_CRASH) == []
    small.refresh_from_db()
    assert small.crash_times == []
    assert upkeep.keep_up("local") == []


def test_model_loaded_anew_by_somebody_else_gets_their_record(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    ours = serve(small, admin_person)
    del world.instances[str(ours.instance_id)]
    theirs = load_elsewhere(world, "small")
    recovery.reconcile_host("local")
    record = ModelInstance.objects.get()
    assert (str(record.instance_id), record.is_external) == (theirs.instance_id, True)


def test_model_from_elsewhere_that_is_gone_again_leaves_no_record(small: ModelDefinition, world: NullWorld) -> None:
    theirs = load_elsewhere(world, "small")
    recovery.reconcile_host("local")
    del world.instances[theirs.instance_id]
    report = recovery.reconcile_host("local")
    assert report is not None
    assert report.dropped == ["Small"]
    assert not ModelInstance.objects.exists()
    assert events(AuditEvent.MODEL_CRASH) == []


def test_model_from_elsewhere_is_never_ended_by_recovery(small: ModelDefinition, world: NullWorld) -> None:
    """A job of ours was to unload it and was interrupted: it is still there, and stays."""
    load_elsewhere(world, "small")
    recovery.reconcile_host("local")
    ModelInstance.objects.update(state=InstanceState.UNLOADING)
    recovery.reconcile_host("local")
    assert ModelInstance.objects.get().state == InstanceState.LOADED
    assert len(world.instances) == 1


def test_model_from_elsewhere_is_not_unloaded_for_idleness(small: ModelDefinition, world: NullWorld) -> None:
    ModelDefinition.objects.update(idle_minutes=0)
    load_elsewhere(world, "small")
    recovery.reconcile_host("local")
    assert upkeep.keep_up("local") == []


def test_model_that_somebody_else_is_still_loading_is_not_shown_yet(small: ModelDefinition, world: NullWorld) -> None:
    load_elsewhere(world, "small", is_ready=False)
    recovery.reconcile_host("local")
    assert not ModelInstance.objects.exists()
    assert len(world.instances) == 1


def test_unknown_model_from_elsewhere_is_defined(null_runtime: Runtime, world: NullWorld) -> None:
    load_elsewhere(world, "their-model")
    recovery.reconcile_host("local")
    model = ModelDefinition.objects.get()
    assert (model.model_id, model.source, model.is_available) == ("their-model", "scan", True)
    assert state_of(model) == ModelState.ACTIVE
    assert events(AuditEvent.MODEL_CREATE) == ["their-model"]


def test_unknown_model_with_an_unusable_name_is_left_alone(null_runtime: Runtime, world: NullWorld) -> None:
    load_elsewhere(world, "their model; really")
    recovery.reconcile_host("local")
    assert not ModelDefinition.objects.exists()
    assert len(world.instances) == 1


def test_nested_model_is_known_by_its_last_folder(null_runtime: Runtime, world: NullWorld) -> None:
    model = make_model(null_runtime, model_id="exl2/Qwen-7B")
    load_elsewhere(world, "Qwen-7B")
    recovery.reconcile_host("local")
    assert state_of(model) == ModelState.ACTIVE
    assert ModelDefinition.objects.count() == 1


def test_sleeping_model_holds_no_memory(small: ModelDefinition, world: NullWorld) -> None:
    theirs = load_elsewhere(world, "small")
    recovery.reconcile_host("local")
    world.put(replace(theirs, is_asleep=True))
    recovery.reconcile_host("local")
    assert ModelInstance.objects.get().held_bytes == 0


def test_nothing_is_concluded_while_a_job_is_at_work(small: ModelDefinition, world: NullWorld) -> None:
    make_job(small.runtime.pool, small, state=JobState.LOADING, heartbeat_at=timezone.now())
    load_elsewhere(world, "small")
    recovery.reconcile_host("local")
    assert not ModelInstance.objects.exists()


# What a server offers


def test_offered_models_become_definitions_and_vanished_ones_are_not_downloaded(
    null_runtime: Runtime, world: NullWorld
) -> None:
    world.offers = [AvailableModel("new", 5_000, {"context_length": 4096}), AvailableModel("another")]
    recovery.reconcile_host("local")
    new = ModelDefinition.objects.get(model_id="new")
    assert (new.size_bytes, new.context_length, new.is_available) == (5_000, 4096, True)
    make_job(null_runtime.pool, new, state=JobState.SUCCEEDED)

    world.offers = [AvailableModel("another")]
    assert server_models.refresh_models(null_runtime) == ["new"]
    assert state_of(new) == ModelState.NOT_DOWNLOADED
    assert SwitchJob.objects.get().target == new  # its history is kept

    world.offers = [AvailableModel("new"), AvailableModel("another")]
    assert server_models.refresh_models(null_runtime) == ["new"]
    assert state_of(new) == ModelState.IDLE
    assert server_models.refresh_models(null_runtime) == []


def test_last_model_that_vanishes_is_not_downloaded_either(null_runtime: Runtime, world: NullWorld) -> None:
    world.offers = [AvailableModel("only")]
    server_models.refresh_models(null_runtime)
    world.offers = []
    server_models.refresh_models(null_runtime)
    assert not ModelDefinition.objects.get().is_available


def test_models_that_no_server_offered_are_left_alone(small: ModelDefinition, world: NullWorld) -> None:
    server_models.refresh_models(small.runtime)
    small.refresh_from_db()
    assert small.is_available


def test_server_is_asked_again_after_the_interval_only(
    null_runtime: Runtime, world: NullWorld, settings: object
) -> None:
    recovery.reconcile_host("local")
    world.offers = [AvailableModel("late")]
    recovery.reconcile_host("local")
    assert not ModelDefinition.objects.exists()
    settings.REFRESH_INTERVAL = 0  # type: ignore[attr-defined]
    recovery.reconcile_host("local")
    assert ModelDefinition.objects.get().model_id == "late"


def test_server_that_is_away_keeps_its_models(null_runtime: Runtime, world: NullWorld) -> None:
    world.offers = [AvailableModel("kept")]
    recovery.reconcile_host("local")
    world.is_away = True
    server_models.refresh_safely(null_runtime)
    assert ModelDefinition.objects.get().is_available


def test_offered_model_whose_name_another_runtime_has_is_left_out(
    small: ModelDefinition, null_runtime: Runtime, world: NullWorld
) -> None:
    second = Runtime.objects.create(name="second", kind="null", pool=null_runtime.pool)
    assert server_models.define(second, AvailableModel("small")) is None
    assert ModelDefinition.objects.count() == 1


def test_interrupted_job_does_not_end_what_somebody_else_loaded_meanwhile(
    small: ModelDefinition, other: ModelDefinition, world: NullWorld
) -> None:
    make_job(small.runtime.pool, other, state=JobState.LOADING, heartbeat_at=timezone.now() - timedelta(minutes=1))
    load_elsewhere(world, "small")
    recovery.reconcile_host("local")
    recovery.reconcile_host("local")
    assert state_of(small) == ModelState.ACTIVE
    assert len(world.instances) == 1
