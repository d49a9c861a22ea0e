"""A program with a key for each of the tests of the API, and two models of which one is active."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from models_admin.actor import COMMAND
from models_admin.keys import create_key
from models_admin.models import ModelDefinition, Runtime
from models_admin.roles import OPERATOR
from tests.factories import make_model
from tests.functional.admin_world import MB, load


class Program:
    """Sends JSON, with a key or without."""

    def __init__(self, token: str = "") -> None:
        self.token = token
        self.client = Client(headers={"Authorization": f"Bearer {token}"} if token else {})

    def get(self, path: str, query: dict[str, Any] | None = None, **headers: str) -> Any:
        return self.client.get(f"/api/v1/{path}", query, headers=_dashed(headers))

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Names of headers are written with underscores."""
        data = "" if body is None else body if isinstance(body, str) else json.dumps(body)
        return self.client.generic(
            method, f"/api/v1/{path}", data, content_type="application/json", headers=_dashed(headers)
        )

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.send("POST", path, body, **headers)

    def patch(self, path: str, body: Any) -> Any:
        return self.send("PATCH", path, body)


MakeProgram = Callable[..., Program]


@pytest.fixture
def program_of(db: None) -> MakeProgram:
    """A program of somebody, with these scopes."""

    def make(user: User, *scopes: str, **fields: Any) -> Program:
        _, token = create_key(user, actor=COMMAND, name="test", scopes=scopes or ("admin",), **fields)
        return Program(token)

    return make


@pytest.fixture
def admin(admin_person: User, program_of: MakeProgram) -> Program:
    """May do everything."""
    return program_of(admin_person)


@pytest.fixture
def operator_person(db: None) -> User:
    """An operator."""
    user = User.objects.create_user("otto", password="pass-otto")
    user.groups.add(Group.objects.get(name=OPERATOR))
    return user


@pytest.fixture
def operator(operator_person: User, program_of: MakeProgram) -> Program:
    """A program of an operator's that may do what the operator may."""
    return program_of(operator_person)


@pytest.fixture
def small(null_runtime: Runtime) -> ModelDefinition:
    """Active; takes 600 MB of the 1 GiB."""
    model = make_model(null_runtime, model_id="acme/small", name="Small", size_bytes=600 * MB, tags=["chat"])
    load(model, is_active=True, held_bytes=600 * MB)
    pool = null_runtime.pool
    pool.free_bytes, pool.held_bytes = pool.total_bytes - 600 * MB, 600 * MB
    pool.save()
    return model


@pytest.fixture
def other(null_runtime: Runtime) -> ModelDefinition:
    """Idle; does not fit beside the small one."""
    return make_model(null_runtime, model_id="acme/other", name="Other", size_bytes=650 * MB, tags=["coding"])


def code_of(response: Any) -> str:
    """Of a refusal, which has the one shape."""
    body = json.loads(response.content)
    assert sorted(body) == ["code", "data", "detail", "hint"], body
    assert isinstance(body["detail"], str)
    assert body["detail"]
    return str(body["code"])


def fields_of(response: Any) -> list[str]:
    """Which fields a refusal names."""
    return [error["field"] for error in json.loads(response.content)["data"]["errors"]]


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
