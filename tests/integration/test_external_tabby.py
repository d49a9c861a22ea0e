"""Other clients of a TabbyAPI, seen by a worker that looks: on the double, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from django.contrib.auth.models import User

from gantry.planning.states import JobState, ModelState
from gantry.runtimes.null import NullWorld
from models_admin import actions, overview, recovery, running, server_models
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, ModelInstance, Runtime
from tests.fakes.tabby import FakeModel, TabbyDouble

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def double() -> Iterator[TabbyDouble]:
    """Two models of four modules each."""
    models = {name: FakeModel(modules=4, module_seconds=0.01) for name in ("alpha-7b", "beta-13b")}
    with TabbyDouble(models=models) as running_double:
        yield running_double


@pytest.fixture
def tabby(pool: MemoryPool, double: TabbyDouble) -> Iterator[Runtime]:
    """The double as a runtime that has been looked at once."""
    server_models._refreshed_at.clear()
    row = Runtime.objects.create(
        name="tabby", kind="tabby", pool=pool, url=double.url, api_key=double.api_key, admin_key=double.admin_key
    )
    recovery.reconcile_host("local")
    yield row
    server_models._refreshed_at.clear()


@pytest.fixture
def elsewhere(double: TabbyDouble) -> Iterator[httpx.Client]:
    """Somebody else's client."""
    with httpx.Client(base_url=double.url, headers={"X-Admin-Key": double.admin_key}, timeout=20) as client:
        yield client


def load_elsewhere(client: httpx.Client, name: str) -> None:
    """Loads it and returns when it is loaded."""
    assert '"finished"' in client.post("/v1/model/load", json={"model_name": name}).text


def look() -> dict[str, ModelState]:
    """What people see once the worker has looked."""
    recovery.reconcile_host("local")
    return {row.model.model_id: row.state for row in overview.model_rows(None)}


def serve(name: str, user: User) -> None:
    job = actions.request_switch(actions.find_model(name), actor=Actor(user, "page")).job
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED, job.error_text


def heard() -> list[tuple[str, str]]:
    outside = (AuditEvent.MODEL_EXTERNAL, AuditEvent.MODEL_EXTERNAL_UNLOAD, AuditEvent.MODEL_CRASH)
    entries = AuditEntry.objects.filter(event__in=outside).order_by("id")
    return list(entries.values_list("event", "object_text"))


@pytest.mark.usefixtures("tabby")
def test_its_models_can_be_chosen_without_anybody_defining_them() -> None:
    assert look() == {"alpha-7b": ModelState.IDLE, "beta-13b": ModelState.IDLE}


def test_directory_that_appears_or_vanishes_is_followed(tabby: Runtime, double: TabbyDouble) -> None:
    double.models["gamma-2b"] = double.models.pop("beta-13b")
    server_models.refresh_models(tabby)
    assert look() == {
        "alpha-7b": ModelState.IDLE,
        "beta-13b": ModelState.NOT_DOWNLOADED,
        "gamma-2b": ModelState.IDLE,
    }


@pytest.mark.usefixtures("tabby")
def test_load_and_unload_by_others_are_shown(elsewhere: httpx.Client) -> None:
    load_elsewhere(elsewhere, "alpha-7b")
    assert look()["alpha-7b"] == ModelState.ACTIVE
    elsewhere.post("/v1/model/unload")
    assert look()["alpha-7b"] == ModelState.IDLE
    assert heard() == [
        (AuditEvent.MODEL_EXTERNAL, "alpha-7b"),
        (AuditEvent.MODEL_EXTERNAL_UNLOAD, "alpha-7b"),
    ]


@pytest.mark.usefixtures("tabby")
def test_model_of_ours_that_others_replace_makes_way(elsewhere: httpx.Client, admin_person: User) -> None:
    serve("alpha-7b", admin_person)
    elsewhere.post("/v1/model/unload")
    load_elsewhere(elsewhere, "beta-13b")
    assert look() == {"alpha-7b": ModelState.IDLE, "beta-13b": ModelState.ACTIVE}
    assert ModelInstance.objects.get().is_external
    assert look() == {"alpha-7b": ModelState.IDLE, "beta-13b": ModelState.ACTIVE}  # not fought over
    assert heard() == [
        (AuditEvent.MODEL_EXTERNAL_UNLOAD, "alpha-7b"),
        (AuditEvent.MODEL_EXTERNAL, "beta-13b"),
    ]


@pytest.mark.usefixtures("tabby")
def test_model_that_others_loaded_can_be_switched_away_from(elsewhere: httpx.Client, admin_person: User) -> None:
    load_elsewhere(elsewhere, "beta-13b")
    look()
    serve("alpha-7b", admin_person)
    assert look()["alpha-7b"] == ModelState.ACTIVE
    assert not ModelInstance.objects.get(is_active=True).is_external


@pytest.mark.usefixtures("tabby")
def test_server_that_goes_away_and_comes_back_empty_has_unloaded_its_model(
    double: TabbyDouble, admin_person: User
) -> None:
    serve("alpha-7b", admin_person)
    double.cut()
    assert look()["alpha-7b"] == ModelState.ACTIVE  # nobody knows better
    assert not Runtime.objects.get(name="tabby").is_healthy
    double.engine.loaded = None
    double.listen()
    assert look()["alpha-7b"] == ModelState.IDLE
    assert Runtime.objects.get(name="tabby").is_healthy


def test_model_of_two_servers_is_defined_once(tabby: Runtime, small: ModelDefinition, world: NullWorld) -> None:
    """The first that has it keeps it; a name means one model."""
    with TabbyDouble(models={"alpha-7b": FakeModel()}) as second:
        row = Runtime.objects.create(
            name="second",
            kind="tabby",
            pool=tabby.pool,
            url=second.url,
            api_key=second.api_key,
            admin_key=second.admin_key,
        )
        assert server_models.refresh_models(row) == []
    assert ModelDefinition.objects.get(model_id="alpha-7b").runtime == tabby
