"""Whole jobs on TabbyAPI's double: beside other servers, and while somebody else changes what it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from gantry.chat import sending
from gantry.chat.generation import Writer
from gantry.chat.models import Message
from gantry.hardware.fixed import FixedMemory
from gantry.planning.states import JobState, ModelState
from models_admin import actions, memory, overview, recovery, running, server_models
from models_admin.actor import Actor
from models_admin.models import MemoryPool, ModelInstance, Runtime, SwitchJob
from models_admin.runtime_access import runtime_for
from tests.factories import make_model
from tests.fakes.tabby import FakeModel, TabbyDouble
from tests.tiny_gguf import write_tiny_model

pytestmark = pytest.mark.django_db(transaction=True)

GIB = 1024**3


@pytest.fixture(autouse=True)
def host(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Memory for everything, and folders of this test's own."""
    settings.RUNTIME_DIR, settings.MODELS_DIR = tmp_path / "run", tmp_path
    monkeypatch.setattr(memory, "memory_source", lambda: FixedMemory(16 * GIB))
    server_models._refreshed_at.clear()
    yield
    server_models._refreshed_at.clear()


def attach(double: TabbyDouble, pool: MemoryPool, name: str) -> Runtime:
    keys = {"api_key": double.api_key, "admin_key": double.admin_key}
    return Runtime.objects.create(name=name, kind="tabby", pool=pool, url=double.url, **keys)


def look() -> dict[str, ModelState]:
    """What people see once the worker has looked."""
    recovery.reconcile_host("local")
    return {row.model.model_id: row.state for row in overview.model_rows(None)}


def switch(name: str, user: User) -> SwitchJob:
    """Ask for it and carry it out."""
    job = actions.request_switch(actions.find_model(name), actor=Actor(user, "page")).job
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    return job


@pytest.mark.llama
def test_two_tabbyapis_and_a_llama_server_hold_models_at_once(
    pool: MemoryPool, tmp_path: Path, admin_person: User
) -> None:
    write_tiny_model(tmp_path / "tiny.gguf")
    llama = Runtime.objects.create(name="llama-server", kind="llama_server", pool=pool)
    parameters = {"ctx_size": 256, "threads": 1}
    make_model(llama, model_id="tiny", path="tiny.gguf", parameters=parameters, size_bytes=1)
    with TabbyDouble(models=one("alpha")) as first, TabbyDouble(models=one("beta")) as second:
        servers = [attach(first, pool, "first"), attach(second, pool, "second")]
        try:
            look()
            for name in ("alpha", "beta", "tiny"):
                job = switch(name, admin_person)
                assert (job.state, job.error_text) == (JobState.SUCCEEDED, "")
            assert look() == {"alpha": ModelState.LOADED, "beta": ModelState.LOADED, "tiny": ModelState.ACTIVE}
            assert (first.loaded, second.loaded) == ("alpha", "beta")
            held = ModelInstance.objects.values_list("runtime__name", "model__model_id")
            assert set(held) == {("first", "alpha"), ("second", "beta"), ("llama-server", "tiny")}
            for server in (*servers, llama):
                (instance,) = runtime_for(server).running()
                assert runtime_for(server).verify(instance.instance_id).text
        finally:
            for instance in runtime_for(llama).running():
                runtime_for(llama).unload(instance.instance_id)


def test_job_whose_model_others_swap_away_fails_and_their_model_stays(pool: MemoryPool, admin_person: User) -> None:
    models = {name: FakeModel(modules=8, module_seconds=0.05) for name in ("alpha", "beta")}
    with TabbyDouble(models=models) as double, ThreadPoolExecutor(1) as elsewhere:
        attach(double, pool, "tabby")
        look()
        load = elsewhere.submit(load_behind, double, "beta")
        job = switch("alpha", admin_person)
        assert '"finished"' in load.result()
        assert job.state == JobState.FAILED
        assert "somebody else" in job.error_text  # whether beta is in already, or on its way
        assert look() == {"alpha": ModelState.FAILED, "beta": ModelState.ACTIVE}
        assert look()["beta"] == ModelState.ACTIVE  # and nobody takes it away
        assert double.loaded == "beta"
        assert ModelInstance.objects.get().is_external


def test_model_that_is_put_back_counts_with_what_it_held_before(pool: MemoryPool, admin_person: User) -> None:
    models = {"alpha": FakeModel(modules=4, module_seconds=0.01), "broken": FakeModel(modules=4, fails_at=2)}
    with TabbyDouble(models=models) as double:
        attach(double, pool, "tabby")
        look()
        switch("alpha", admin_person)
        before = ModelInstance.objects.get().held_bytes
        assert before > 0  # reckoned: TabbyAPI tells nobody
        job = switch("broken", admin_person)
        assert (job.state, job.rolled_back) == (JobState.FAILED, True)
        assert ModelInstance.objects.get().held_bytes == before


def test_running_answer_is_let_finish_before_its_model_is_unloaded(pool: MemoryPool, admin_person: User) -> None:
    """An unload would cancel it, and TabbyAPI tells nobody that it is giving one: Gantry knows of its own."""
    models = {name: FakeModel(modules=4, module_seconds=0.01) for name in ("alpha", "beta")}
    with TabbyDouble(models=models) as double, ThreadPoolExecutor(1) as elsewhere:
        attach(double, pool, "tabby")
        look()
        switch("alpha", admin_person)
        answer = sending.ask(admin_person, None, "[[stub tokens=100 delay=0.015]]")
        asked = double.count("/v1/chat/completions")
        writing = elsewhere.submit(asyncio.run, Writer(answer).run())
        double.wait_for(lambda: double.count("/v1/chat/completions") > asked)
        job = switch("beta", admin_person)
        assert (job.state, job.error_text, double.loaded) == (JobState.SUCCEEDED, "", "beta")
        writing.result(20)
        answer.refresh_from_db()
        assert (answer.state, answer.token_count) == (Message.State.COMPLETE, 100)
        paths = [request.path for request in double.requests]
        assert paths.index("/v1/model/unload") > paths.index("/v1/chat/completions")


def one(name: str) -> dict[str, FakeModel]:
    return {name: FakeModel(modules=4, module_seconds=0.01)}


def load_behind(double: TabbyDouble, name: str) -> str:
    """Somebody else's load, sent while Gantry's own runs: it waits its turn, and swaps the model."""
    double.wait_for(lambda: double.count("/v1/model/load") == 1)
    headers = {"X-Admin-Key": double.admin_key}
    return httpx.post(f"{double.url}/v1/model/load", json={"model_name": name}, headers=headers, timeout=20).text
