"""For refusals: two models without a runtime's process and a client for anybody. For what happens: a running Gantry."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from models_admin.actor import COMMAND
from models_admin.keys import create_key
from models_admin.models import ModelDefinition, Runtime
from tests.factories import make_model
from tests.functional.admin_world import MB, load
from tests.functional.api_seeds.world import GPT, HELD, World, start_world


@dataclass(frozen=True)
class Program:
    """Sends requests with one key."""

    client: Client

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=headers)

    def post(self, path: str, body: Any = None) -> Any:
        data = "" if body is None else body if isinstance(body, str) else json.dumps(body)
        return self.client.generic("POST", path, data, content_type="application/json")


ProgramOf = Callable[..., Program]


@pytest.fixture
def program_of(db: None) -> ProgramOf:
    """A program of somebody in a role ("": nobody's), with these scopes."""

    def make(role: str, *scopes: str, **fields: Any) -> Program:
        if not role:
            return Program(Client())
        user = User.objects.create_user(f"{role}-{User.objects.count()}")
        user.groups.set([Group.objects.get(name=role)])
        _, token = create_key(user, actor=COMMAND, name="test", scopes=scopes or ("admin",), **fields)
        return Program(Client(headers={"Authorization": f"Bearer {token}"}))

    return make


@pytest.fixture
def operator(program_of: ProgramOf) -> Program:
    """May do what an operator may."""
    return program_of("Operator")


@pytest.fixture
def small(null_runtime: Runtime) -> ModelDefinition:
    """Active; holds 600 MB of the 1 GiB."""
    model = make_model(null_runtime, model_id="acme/small", name="Small", size_bytes=600 * MB)
    load(model, is_active=True, held_bytes=600 * MB)
    pool = null_runtime.pool
    pool.free_bytes, pool.held_bytes = pool.total_bytes - 600 * MB, 600 * MB
    pool.save()
    return model


@pytest.fixture
def other(null_runtime: Runtime) -> ModelDefinition:
    """Idle; does not fit beside the small one."""
    return make_model(null_runtime, model_id="acme/other", name="Other", size_bytes=650 * MB)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A Gantry with the real llama-server."""
    with start_world(tmp_path_factory.mktemp("seeds")) as world:
        yield world


@pytest.fixture
def gantry(running: World) -> World:
    """The same, where GPT serves and nothing is under way."""
    running.wait_for_end()
    running.switch(GPT)
    return running


@pytest.fixture
def loading(gantry: World) -> Iterator[World]:
    """The same, in the middle of a switch to HELD: GPT is unloaded, and the load stands still."""
    assert gantry.post("/api/switch-model", model_id=HELD).status_code == 200
    load_ = gantry.held()
    yield gantry
    load_.mark.send(signal.SIGCONT)  # if it is still there
    gantry.wait_for_end()
