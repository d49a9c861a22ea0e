"""/ws/llm through the whole ASGI application: the messages, who may send them, and what becomes of bad ones."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import OperationalError
from pytest_django.fixtures import Settings

from gantry import live
from gantry.api import ws_base, ws_board, ws_door, ws_llm
from gantry.planning.states import ErrorCode
from gantry.planning.wording import wording
from gantry.runtimes.null import Failure, NullWorld
from models_admin import keys, overview
from models_admin.actor import Actor
from models_admin.models import ApiKey, ModelDefinition, SwitchJob, SwitchPolicy
from tests.functional.admin_world import loading_job, staff
from tests.integration.program_sockets import LOCAL, SECONDS, connected, cookie_of, key_of, run, switch

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/ws/llm"


async def last_job() -> SwitchJob:
    job: SwitchJob | None = await sync_to_async(SwitchJob.objects.select_related("requested_by").first)()
    assert job is not None
    return job


async def test_status_comes_on_connect_and_when_asked_for(small: ModelDefinition, admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        first = await program.next()
        await program.send(type="get_llm_status")
        assert first == await program.next()

        assert (first["type"], first["running"], first["current_model"]) == ("llm_status", False, None)
        assert [(model["id"], model["state"]) for model in first["models"]] == [("small", "idle")]


async def test_switch_tells_everybody_what_it_does_and_how_it_ended(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    world.load_seconds = 0.2
    eve = await sync_to_async(staff)("eve", "view_modeldefinition")
    async with (
        connected(PATH, await key_of(admin_person, "switch")) as asking,
        connected(PATH, await cookie_of(eve)) as looking,
    ):
        await asking.send(type="switch_llm_model", model_id="small")
        switching = await asking.until("llm_switching")
        await run(switching["job_id"])
        for program in (asking, looking):
            told = await program.all_until("llm_status", running=True, switching_to=None)
            done = next(message for message in told if message["type"] == "llm_model_switched")
            assert (done["success"], done["model_id"], done["job_id"]) == (True, "small", switching["job_id"])
            assert done["message"].startswith("Switched to Small in ")
            assert told[-1]["current_model"] == "small"

    assert switching["message"] == "Switching to Small…"
    job = await last_job()
    assert (job.via, job.requested_by) == ("websocket", admin_person)


async def test_progress_is_told_while_it_loads(small: ModelDefinition, admin_person: User, world: NullWorld) -> None:
    world.load_seconds = 0.3
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.send(type="switch_llm_model", model_id="small")
        switching = await program.until("llm_switching")
        work = asyncio.ensure_future(run(switching["job_id"]))
        messages = await program.all_until("llm_model_switched")
        await work

    progress = [message for message in messages if message["type"] == "llm_progress"]
    assert "loading" in [message["stage"] for message in progress]
    assert sorted(m["percent"] for m in progress) == [m["percent"] for m in progress]
    assert {"percent", "stage", "eta_seconds", "message", "job_id", "model_id", "bytes_total"} <= set(progress[0])


async def test_who_comes_in_the_middle_sees_how_far_it_is(other: ModelDefinition, admin_person: User) -> None:
    job = await sync_to_async(loading_job)(other, admin_person)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        messages = [await program.next() for _ in range(3)]

    assert [message["type"] for message in messages] == ["llm_status", "llm_switching", "llm_progress"]
    assert messages[0]["switching_to"] == "other"
    assert (messages[2]["percent"], messages[2]["stage"], messages[2]["job_id"]) == (52, "loading", job.pk)


async def test_failed_switch_says_why_and_what_to_do(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    world.failures["small"] = Failure(ErrorCode.OUT_OF_MEMORY, 0.5)
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.send(type="switch_llm_model", model_id="small")
        await run((await program.until("llm_switching"))["job_id"])
        done = await program.until("llm_model_switched")

    assert (done["success"], done["code"]) == (False, "out_of_memory")
    assert done["hint"] == wording(ErrorCode.OUT_OF_MEMORY).hint


async def test_restart_is_told_with_its_own_message(small: ModelDefinition, admin_person: User) -> None:
    await switch(small, admin_person)
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.send(type="restart_llm_server")
        await run((await program.until("llm_progress"))["job_id"])
        done = await program.until("llm_server_restarted")
        await program.until("llm_status", running=True, current_model="small")

    assert (done["success"], done["message"][:16]) == (True, "Restarted Small ")


async def test_nothing_to_restart_is_said_to_the_one_who_asked(admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.next()
        await program.send(type="restart_llm_server")
        done = await program.next()

    assert (done["type"], done["success"], done["code"]) == ("llm_server_restarted", False, "not_loaded")
    assert done["hint"] == "Switch to a model first."


async def test_model_that_serves_already_is_success_at_once(small: ModelDefinition, admin_person: User) -> None:
    await switch(small, admin_person)
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="small")
        done = await program.next()

    assert (done["type"], done["success"], done["message"]) == ("llm_model_switched", True, "Small serves already.")


async def test_unknown_model_is_refused_in_words(admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="nothing")
        done = await program.next()

    assert (done["type"], done["success"], done["code"]) == ("llm_model_switched", False, "model_unknown")
    assert done["model_id"] == "nothing"


async def test_policy_that_asks_first_wants_a_confirmation(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    await switch(small, admin_person)
    await sync_to_async(SwitchPolicy(confirm_before_unload=True).save)()
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="other")
        done = await program.next()
        assert (done["success"], done["code"], done["message"]) == (
            False,
            "needs_confirmation",
            "This would unload Small.",
        )

        await program.send(type="switch_llm_model", model_id="other", confirm=True)
        assert (await program.until("llm_switching"))["model_id"] == "other"


@pytest.mark.parametrize("scopes", [("status",), ("chat", "status")])
async def test_key_without_the_scope_may_look_but_not_switch(
    scopes: tuple[str, ...], small: ModelDefinition, admin_person: User
) -> None:
    async with connected(PATH, await key_of(admin_person, *scopes)) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="small")
        done = await program.next()

    assert (done["success"], done["code"]) == (False, "forbidden")
    assert not await sync_to_async(SwitchJob.objects.exists)()


async def test_key_for_other_models_may_not_switch_to_this_one(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    async with connected(PATH, await key_of(admin_person, "switch", model_ids=["other"])) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="small")
        assert (await program.next())["code"] == "forbidden"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "key_refused"),
        (LOCAL, "key_refused"),
        ([(b"authorization", b"Bearer gty_00000000_" + b"0" * 64)], "key_refused"),
        ([(b"authorization", b"Bearer nonsense")], "key_refused"),
        ([(b"authorization", b"Basic YTpi")], "key_refused"),
    ],
    ids=["nothing", "page without cookie", "unknown key", "no key", "another kind"],
)
async def test_stranger_is_told_why_and_closed(
    headers: list[tuple[bytes, bytes]], code: str, admin_person: User
) -> None:
    async with connected(PATH, headers) as program:
        assert (await program.next())["code"] == code
        assert await program.close_code() == 4401


@pytest.mark.parametrize("way", ["session", "key"])
async def test_who_may_not_see_the_state_of_models_is_told_so_and_closed(way: str, outsider: User) -> None:
    await outsider.groups.aclear()
    headers = await cookie_of(outsider) if way == "session" else await key_of(outsider, "admin")
    async with connected(PATH, headers) as program:
        assert (await program.next())["code"] == "forbidden"
        assert await program.close_code() == 4403


async def test_page_of_another_site_cannot_use_somebodys_cookie(admin_person: User) -> None:
    headers = [(name, value) for name, value in await cookie_of(admin_person) if name != b"origin"]
    for origin in ([(b"origin", b"http://evil.example")], []):
        with pytest.raises(AssertionError):
            async with connected(PATH, [*headers, *origin]):
                pass


async def test_key_needs_no_origin_and_its_cookies_are_not_looked_at(admin_person: User, outsider: User) -> None:
    cookies = [pair for pair in await cookie_of(outsider) if pair[0] == b"cookie"]
    async with connected(
        PATH, [*await key_of(admin_person, "status"), *cookies, (b"origin", b"http://other.example")]
    ) as program:
        assert (await program.next())["type"] == "llm_status"


async def test_revoked_key_is_told_so_at_its_next_message(admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        key = await sync_to_async(ApiKey.objects.select_related("user").get)()
        await sync_to_async(keys.revoke_key)(key, actor=Actor(admin_person, "page"))
        await program.send(type="get_llm_status")
        told = await program.next()
        assert (told["type"], told["code"]) == ("error", "key_refused")
        assert "was revoked" in told["message"]
        assert await program.close_code() == 4401


@pytest.mark.parametrize("how", ["switched off", "signed out", "password changed", "right taken away"])
async def test_person_who_may_not_any_more_is_closed_at_the_next_message(how: str) -> None:
    person = await sync_to_async(staff)("eve", "view_modeldefinition")
    async with connected(PATH, await cookie_of(person)) as program:
        await program.next()
        await sync_to_async(take_away)(person, how)
        await program.send(type="get_llm_status")
        assert (await program.next())["type"] == "error"
        assert await program.close_code() == (4403 if how == "right taken away" else 4401)


def take_away(person: User, how: str) -> None:
    if how == "signed out":
        Session.objects.all().delete()
    elif how == "right taken away":
        person.user_permissions.clear()
        person.groups.clear()
    elif how == "password changed":
        person.set_password("another")
    else:
        person.is_active = False
    person.save()


async def test_who_only_listens_is_closed_too(admin_person: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_base, "RIGHTS_SECONDS", 0.05)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        await sync_to_async(User.objects.update)(is_active=False)
        assert "switched off" in (await program.next())["message"]
        assert await program.close_code() == 4401


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
