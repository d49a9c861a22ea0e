"""/ws/llm when something is wrong: bad messages, limits, lost hints, a database that is away."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import OperationalError
from pytest_django.fixtures import Settings

from gantry import live
from gantry.api import ws_base, ws_board, ws_door, ws_llm
from gantry.planning.states import ErrorCode
from gantry.runtimes.null import Failure, NullWorld
from models_admin import overview
from models_admin.models import ModelDefinition, SwitchPolicy
from tests.functional.admin_world import staff
from tests.integration.program_sockets import SECONDS, connected, key_of, switch

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/ws/llm"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (" ", "not_json"),
        ("{", "not_json"),
        ("[" * 5000, "not_json"),
        ('{"type": "get_llm_status", "x": "\\ud800"}', "not_json"),
        ("null", "no_type"),
        ("[]", "no_type"),
        ("{}", "no_type"),
        ('{"type": 7}', "unknown_type"),
        ('{"type": null}', "unknown_type"),
        ('{"type": "reboot"}', "unknown_type"),
        ('{"type": "switch_llm_model"}', "missing_field"),
        ('{"type": "switch_llm_model", "model_id": 7}', "invalid_field"),
        ('{"type": "switch_llm_model", "model_id": null}', "invalid_field"),
        ('{"type": "switch_llm_model", "model_id": ""}', "invalid_field"),
        ('{"type": "switch_llm_model", "model_id": "a\\u0000b"}', "invalid_field"),
        ('{"type": "switch_llm_model", "model_id": "a", "confirm": "yes"}', "invalid_field"),
        (json.dumps({"type": "switch_llm_model", "model_id": "x" * 201}), "invalid_field"),
        (json.dumps({"type": "get_llm_status", "more": "é" * 33_000}), "message_too_large"),
    ],
)
async def test_bad_message_is_answered_and_the_socket_stays(text: str, code: str, admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.next()
        await program.communicator.send_to(text_data=text)
        told = await program.next()
        assert (told["type"], told["code"]) == ("error", code)
        assert told["message"]
        assert told["hint"]
        await program.send(type="get_llm_status", unknown_field=1)
        assert (await program.next())["type"] == "llm_status"


async def test_binary_message_is_answered(admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.next()
        await program.communicator.send_to(bytes_data=b"\x00\x01")
        assert (await program.next())["code"] == "binary"


async def test_too_many_messages_are_answered_with_the_seconds_to_wait(
    admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ws_base, "MOST_MESSAGES", 3)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        for _ in range(3):
            await program.send(type="get_llm_status")
            assert (await program.next())["type"] == "llm_status"
        await program.send(type="get_llm_status")
        told = await program.next()

    assert (told["type"], told["code"]) == ("error", "rate_limited")
    assert 1 <= told["retry_after"] <= ws_base.MESSAGES_SECONDS


async def test_limit_of_switches_is_said_with_the_seconds_to_wait(
    small: ModelDefinition, admin_person: User, world: NullWorld, settings: Settings
) -> None:
    settings.LIMITS_URL = "memory://"
    world.failures["small"] = Failure(ErrorCode.LOAD_FAILED)
    await sync_to_async(SwitchPolicy(cool_down_seconds=60).save)()
    await switch(small, admin_person)
    person = await sync_to_async(staff)("eve", "view_modeldefinition", "switch_model")
    async with connected(PATH, await key_of(person, "switch")) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="small")
        done: dict[str, Any] = await program.next()

    assert (done["success"], done["code"]) == (False, "rate_limited")
    assert 1 <= done["retry_after"] <= 60


async def test_change_is_read_and_written_once_however_many_are_connected(
    small: ModelDefinition, admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: Counter[str] = Counter()
    look, write = overview.overview, ws_llm.status_frame

    def counted_look() -> overview.Overview:
        done["looks"] += 1
        return look()

    def counted_write(view: ws_board.View) -> ws_board.Frame:
        done["texts"] += 1
        return write(view)

    monkeypatch.setattr(ws_board, "overview", counted_look)
    monkeypatch.setattr(ws_llm, "status_frame", counted_write)
    headers = await key_of(admin_person, "status")
    async with AsyncExitStack() as all_of_them:
        programs = [await all_of_them.enter_async_context(connected(PATH, headers)) for _ in range(10)]
        for program in programs:
            await program.next()
        done.clear()
        await sync_to_async(rename)(small, "Renamed")
        for program in programs:
            assert (await program.next())["models"][0]["name"] == "Renamed"

    assert done == {"looks": 1, "texts": 1}


def rename(model: ModelDefinition, name: str) -> None:
    ModelDefinition.objects.filter(pk=model.pk).update(name=name)
    live.publish_models_changed([model.model_id], event_id=name)


async def test_change_whose_hint_was_lost_is_found_all_the_same(
    small: ModelDefinition, admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ws_board, "LOOK_SECONDS", 0.05)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        await sync_to_async(ModelDefinition.objects.filter(pk=small.pk).update)(name="Quietly renamed")
        assert (await program.next())["models"][0]["name"] == "Quietly renamed"


async def test_nobody_connected_leaves_nothing_behind(admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        assert asyncio.get_running_loop() in ws_board._boards
    assert asyncio.get_running_loop() not in ws_board._boards


async def test_database_that_is_away_is_told_and_the_connection_stays(
    admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise OperationalError("the database is away")

    async with connected(PATH, await key_of(admin_person, "status")) as program:
        first = await program.next()
        with monkeypatch.context() as patch:
            patch.setattr(ws_door, "look_again", away)
            await program.send(type="get_llm_status")
            told = await program.next()
        assert (told["type"], told["code"]) == ("error", "unavailable")
        await program.send(type="get_llm_status")
        assert await program.next() == first


async def test_database_that_is_away_on_connect_says_try_again(
    admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object) -> None:
        raise OperationalError("the database is away")

    headers = await key_of(admin_person, "status")
    monkeypatch.setattr(ws_door, "let_in", away)
    async with connected(PATH, headers) as program:
        assert (await program.next())["code"] == "unavailable"
        assert await program.close_code() == 1013


async def test_connection_that_breaks_leaves_nothing_behind(
    admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError

    async def talk() -> None:
        async with connected(PATH, await key_of(admin_person, "status")) as program:
            await program.next()
            monkeypatch.setattr(ws_door, "look_again", broken)
            await program.send(type="get_llm_status")
            await program.next()

    before = asyncio.all_tasks()
    with pytest.raises(ZeroDivisionError):
        await talk()
    left = asyncio.all_tasks() - before
    await asyncio.wait_for(asyncio.gather(*left, return_exceptions=True), SECONDS)
