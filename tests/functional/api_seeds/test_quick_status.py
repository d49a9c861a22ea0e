"""The status on its quick way: the same answers as on the long one, for programs with a key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import HttpCommunicator
from django.contrib.auth.models import Group, User
from django.db import InterfaceError, OperationalError
from django.middleware.security import SecurityMiddleware

from gantry.api import quick_status, status_cache
from gantry.asgi import application
from models_admin import keys
from models_admin.actor import COMMAND
from models_admin.models import ApiKey, ModelDefinition

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESSES = sorted(quick_status._DOCUMENTS)


@pytest.fixture(autouse=True)
async def _end_of_caches() -> AsyncIterator[None]:
    yield
    for cache in list(status_cache._caches.values()):
        if cache._keeper is not None:
            cache._keeper.cancel()


def _new_key(role: str, *scopes: str) -> tuple[ApiKey, str]:
    user = User.objects.create_user(f"{role}-{User.objects.count()}")
    user.groups.set([Group.objects.get(name=role)])
    return keys.create_key(user, actor=COMMAND, name="test", scopes=scopes)


async def new_key(role: str = "Member", *scopes: str) -> tuple[ApiKey, str]:
    """A key of somebody in a role."""
    return await sync_to_async(_new_key)(role, *(scopes or ("status",)))


@dataclass(frozen=True)
class Answer:
    """What a program gets."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(path: str, token: str = "", *, method: str = "GET", **headers: str) -> Answer:
    """Through the web server's entry, as Daphne calls it."""
    sent = {"host": "localhost", **({"authorization": f"Bearer {token}"} if token else {}), **headers}
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()]
    exchange = HttpCommunicator(application, method, path, headers=lines)
    response = await exchange.get_response(timeout=20)
    await exchange.wait(timeout=20)
    got = {name.decode().title(): value.decode() for name, value in response["headers"]}
    return Answer(response["status"], got, response["body"])


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses of requests that went on through Django."""
    seen: list[str] = []
    security = SecurityMiddleware.process_request

    def note(self: Any, request: Any) -> Any:
        seen.append(request.path_info)
        return security(self, request)

    monkeypatch.setattr(SecurityMiddleware, "process_request", note)
    return seen


@pytest.mark.parametrize("path", ADDRESSES)
async def test_both_ways_say_the_same(
    path: str, small: ModelDefinition, long_way: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = await new_key()
    quick = await ask(path, token)
    assert (quick.status, long_way) == (200, [])
    monkeypatch.setattr(quick_status, "_DOCUMENTS", {})
    long = await ask(path, token)
    assert long_way == [path]
    assert quick.body == long.body
    for name in ("Content-Type", "Etag", "Cache-Control", "X-Content-Type-Options"):
        assert quick.headers[name] == long.headers[name]


async def test_who_has_it_already_is_told_so(small: ModelDefinition) -> None:
    _, token = await new_key()
    etag = (await ask(ADDRESSES[0], token)).headers["Etag"]
    again = await ask(ADDRESSES[0], token, if_none_match=etag)
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ADDRESSES)
async def test_refusals_are_those_of_the_long_way(
    path: str, small: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, chat = await new_key("Operator", "chat")
    senders = {"a key for chatting": chat, "nobody's key": "gty_00000000_" + "0" * 64, "no key at all": "…"}
    quick = {name: await ask(path, token) for name, token in senders.items()}
    monkeypatch.setattr(quick_status, "_DOCUMENTS", {})
    for name, token in senders.items():
        long = await ask(path, token)
        assert quick[name].status == long.status, name
        assert quick[name].json() == long.json(), name
        assert quick[name].headers.get("Www-Authenticate") == long.headers.get("Www-Authenticate"), name
    assert [quick[name].status for name in senders] == [403, 401, 401]


async def test_revoked_key_is_refused_once_the_moment_is_over(
    small: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_status, "LET_IN_SECONDS", 0.0)
    key, token = await new_key()
    assert (await ask(ADDRESSES[0], token)).status == 200
    await sync_to_async(keys.revoke_key)(key, actor=COMMAND)
    assert (await ask(ADDRESSES[0], token)).status == 401


async def test_key_that_was_just_let_in_is_not_looked_up_again(
    small: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_status, "LET_IN_SECONDS", 3600.0)
    asked: list[str] = []
    check = quick_status._check

    def note(request: Any) -> None:
        asked.append(request.path_info)
        check(request)

    monkeypatch.setattr(quick_status, "_check", note)
    _, token = await new_key()
    _, other = await new_key()
    for sent in (token, token, other, token):
        assert (await ask(ADDRESSES[0], sent)).status == 200
    assert len(asked) == 2


async def test_everything_else_takes_the_long_way(small: ModelDefinition, long_way: list[str]) -> None:
    _, token = await new_key()
    assert (await ask(ADDRESSES[0])).status == 401  # without a key
    assert (await ask(ADDRESSES[0], token, method="HEAD")).status == 405
    assert (await ask(ADDRESSES[0], token, method="POST")).status == 405
    assert (await ask(ADDRESSES[0], token, host="evil.example")).status == 400
    assert len(long_way) == 4


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
async def test_database_that_is_away_is_told_as_everywhere(
    error: type[Exception], small: ModelDefinition, long_way: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, token = await new_key()

    def fail(*_: object, **__: object) -> None:
        raise error("away")

    monkeypatch.setattr(keys, "authenticate", fail)
    answer = await ask(ADDRESSES[0], token)
    assert (answer.status, answer.json()["code"]) == (503, "unavailable")
    assert long_way == [ADDRESSES[0]]
