"""/ws/llm through the whole ASGI application: the messages, from the switch that is asked for to how it ended."""

from __future__ import annotations

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from gantry.planning.states import ErrorCode
from gantry.planning.wording import wording
from gantry.runtimes.null import Failure, NullWorld
from models_admin.models import ModelDefinition, SwitchJob, SwitchPolicy
from tests.functional.admin_world import loading_job, staff
from tests.integration.program_sockets import connected, cookie_of, key_of, run, switch

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
