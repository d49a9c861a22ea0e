"""A real router that holds one model at a time, run by somebody else: switches on it, planned by what it tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from gantry.hardware.fixed import FixedMemory
from gantry.planning.states import JobState
from models_admin import actions, memory, recovery, running, server_models
from models_admin.actor import Actor
from models_admin.exceptions import RuntimeUnusable
from models_admin.models import MemoryPool, Runtime, SwitchJob
from tests.integration.llama_router.conftest import LINES
from tests.integration.llama_router.helpers import KEY, RealRouter
from tests.tiny_gguf import write_tiny_model

pytestmark = [pytest.mark.llama, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def host(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for everything, and folders of this test's own."""
    settings.RUNTIME_DIR, settings.MODELS_DIR = tmp_path / "run", tmp_path
    monkeypatch.setattr(memory, "memory_source", lambda: FixedMemory(16 * 1024**3))
    server_models._refreshed_at.clear()


def switch(name: str, user: User) -> SwitchJob:
    job = actions.request_switch(actions.find_model(name), actor=Actor(user, "page")).job
    assert job is not None
    running.run_job(job.pk)
    job.refresh_from_db()
    return job


def test_second_model_takes_the_place_of_the_first(pool: MemoryPool, tmp_path: Path, admin_person: User) -> None:
    sections = {name: {"model": tmp_path / f"{name}.gguf", **LINES} for name in ("one", "two")}
    for name in sections:
        write_tiny_model(tmp_path / f"{name}.gguf")
    with RealRouter(tmp_path, sections, "--models-max", "1") as router:
        row = Runtime.objects.create(name="there", kind="llama_router", pool=pool, url=router.url, api_key=KEY)
        recovery.reconcile_host("local")
        row.refresh_from_db()
        assert row.max_models == 1
        first, second = (switch(name, admin_person) for name in ("one", "two"))
        assert [(job.state, job.error_text) for job in (first, second)] == [(JobState.SUCCEEDED, "")] * 2
        assert [step["kind"] for step in second.steps] == ["drain", "unload", "free", "load", "verify"]
        assert (router.status("one")["value"], router.status("two")["value"]) == ("unloaded", "loaded")
        with pytest.raises(RuntimeUnusable, match="there holds one model at a time, and it holds one"):
            actions.request_preload(actions.find_model("one"), actor=Actor(admin_person, "page"))
