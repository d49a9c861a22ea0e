"""/ws/events through the whole ASGI application: the snapshot, every change after it, and what was missed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.utils import timezone

from gantry import live
from gantry.api import ws_board, ws_events, ws_messages, ws_outbox
from gantry.api.ws_outbox import Outbox, TooSlow
from gantry.planning.states import ErrorCode
from gantry.runtimes.null import Failure, NullWorld
from models_admin import actions
from models_admin.actor import Actor
from models_admin.models import MemoryPool, ModelDefinition, SwitchEvent, SwitchJob
from models_admin.snapshots import job_snapshot
from tests.functional.admin_world import loading_job
from tests.integration.program_sockets import connected, cookie_of, key_of, switch

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/ws/events"


@pytest.fixture
def member_only(db: None) -> User:
    """Somebody who may see how everything is, and not the list of switches."""
    return User.objects.create_user("mia", date_joined=timezone.now() - timedelta(days=400))


async def publish(job: SwitchJob) -> None:
    """A hint with the job's present state."""
    await sync_to_async(lambda: live.publish_job(job_snapshot(job)))()


async def test_snapshot_tells_how_everything_is(
    small: ModelDefinition, other: ModelDefinition, admin_person: User, pool: MemoryPool
) -> None:
    await switch(small, admin_person)
    job = await sync_to_async(loading_job)(other, admin_person)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        told = await program.next()

    assert (told["type"], told["active"], told["missed_all"]) == ("snapshot", "small", True)
    assert {model["id"]: model["state"] for model in told["models"]} == {"small": "active", "other": "loading"}
    assert (told["memory"][0]["host"], told["memory"][0]["total_bytes"]) == ("local", pool.total_bytes)
    assert (told["job"]["id"], told["job"]["percent"], told["job"]["state"]) == (f"{job.pk}-4", 52, "loading")


async def test_switch_brings_its_events_in_order_then_its_models(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    world.load_seconds = 0.2
    async with connected(PATH, await cookie_of(admin_person)) as program:
        await program.next()
        work = asyncio.ensure_future(switch(small, admin_person))
        messages = await program.all_until("job", state="succeeded")
        while not any(message["type"] == "model" and message["model"]["is_active"] for message in messages):
            messages.append(await program.next())
        await work

    jobs = [message for message in messages if message["type"] == "job"]
    assert [job["seq"] for job in jobs] == sorted(job["seq"] for job in jobs)
    assert [job["id"] for job in jobs] == [f"{job['job_id']}-{job['seq']}" for job in jobs]
    assert (jobs[-1]["percent"], jobs[-1]["is_finished"], jobs[-1]["error"]) == (100, True, None)
    assert next(message["model"]["state"] for message in messages if message["type"] == "model") == "loading"


async def test_failure_says_what_happened_and_what_to_do(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    world.failures["small"] = Failure(ErrorCode.OUT_OF_MEMORY)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await switch(small, admin_person)
        told = await program.until("job", is_finished=True)

    assert (told["state"], told["error"]["code"]) == ("failed", "out_of_memory")
    assert told["error"]["hint"]


async def test_changed_new_and_deleted_models_are_told(small: ModelDefinition, admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        await sync_to_async(_change)(small, is_pinned=True)
        changed = await program.next()
        assert (changed["type"], changed["model"]["id"], changed["model"]["is_pinned"]) == ("model", "small", True)

        await sync_to_async(_delete)(small)
        gone = await program.next()
        assert (gone["type"], gone["id"]) == ("model_removed", "small")


def _change(model: ModelDefinition, **fields: Any) -> None:
    ModelDefinition.objects.filter(pk=model.pk).update(**fields)
    live.publish_models_changed([model.model_id], event_id="change")


def _delete(model: ModelDefinition) -> None:
    ModelDefinition.objects.filter(pk=model.pk).delete()
    live.publish_models_changed([], event_id="delete")


async def test_memory_that_moved_is_told(pool: MemoryPool, small: ModelDefinition, admin_person: User) -> None:
    def use(size: int) -> None:
        MemoryPool.objects.update(free_bytes=pool.total_bytes - size, held_bytes=size)
        live.publish_memory_changed(event_id=f"use-{size}")

    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        await sync_to_async(use)(300_000_000)
        told = await program.next()

    [memory] = told["memory"]
    assert (told["type"], memory["held_bytes"], memory["others_bytes"]) == ("memory", 300_000_000, 0)


async def test_hint_that_comes_late_or_twice_tells_nothing(other: ModelDefinition, admin_person: User) -> None:
    job = await sync_to_async(loading_job)(other, admin_person)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        job.seq, job.percent = 3, 20.0
        await publish(job)
        job.seq, job.percent = 5, 60.0
        await publish(job)
        await publish(job)
        assert (await program.next())["percent"] == 60
        await program.send(type="ping")
        assert (await program.next())["type"] == "pong"


async def test_cancel_that_is_asked_for_is_told_although_nothing_moved(
    other: ModelDefinition, admin_person: User
) -> None:
    job = await sync_to_async(loading_job)(other, admin_person)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        await sync_to_async(actions.cancel_job)(job, actor=Actor(admin_person, "page"))
        told = await program.until("job")

    assert (told["seq"], told["is_cancelling"]) == (4, True)


async def test_since_brings_what_was_missed_before_the_snapshot(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    first = await switch(small, admin_person)
    second = await switch(other, admin_person)
    headers = await key_of(admin_person, "status")
    async with connected(f"{PATH}?since={first.pk}-2", headers) as program:
        *missed, snapshot = await program.all_until("snapshot")

    rows = await sync_to_async(
        lambda: list(SwitchEvent.objects.exclude(job=first, seq__lte=2).order_by("job_id", "seq"))
    )()
    assert [message["id"] for message in missed] == [f"{row.job_id}-{row.seq}" for row in rows]
    assert all(message["is_replay"] for message in missed)
    assert missed[-1]["job_id"] == second.pk
    assert (missed[-1]["state"], missed[-1]["percent"], missed[-1]["is_finished"]) == ("succeeded", 100, True)
    assert snapshot["missed_all"]


async def test_since_the_last_event_brings_nothing_twice(other: ModelDefinition, admin_person: User) -> None:
    job = await switch(other, admin_person)
    await sync_to_async(job.refresh_from_db)()
    async with connected(f"{PATH}?since={job.pk}-{job.seq}", await key_of(admin_person, "status")) as program:
        assert (await program.next())["type"] == "snapshot"


async def test_replay_is_bounded_and_says_so(
    other: ModelDefinition, admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ws_events, "MOST_REPLAYED", 2)
    job = await switch(other, admin_person)
    await sync_to_async(job.refresh_from_db)()
    async with connected(f"{PATH}?since=0-0", await key_of(admin_person, "status")) as program:
        *missed, snapshot = await program.all_until("snapshot")

    assert [message["seq"] for message in missed] == [job.seq - 1, job.seq]
    assert not snapshot["missed_all"]


async def test_replay_tells_a_member_what_was_told_live_while_they_were_away_for_a_moment(
    other: ModelDefinition, admin_person: User, member_only: User
) -> None:
    async with connected(PATH, await key_of(member_only, "status")) as program:
        await program.next()
        job = await switch(other, admin_person)
        live_told = [
            message for message in await program.all_until("job", state="succeeded") if message["type"] == "job"
        ]
    async with connected(f"{PATH}?since={job.pk}-0", await key_of(member_only, "status")) as program:
        *missed, snapshot = await program.all_until("snapshot")

    assert snapshot["missed_all"]
    replayed = {message["id"]: message for message in missed}
    assert missed[0]["seq"] == 1
    changing = {"at", "elapsed_seconds", "is_replay"}  # when it was told, and that it is told again
    for message in live_told:
        again = replayed[message["id"]]
        assert {name for name in message if message[name] != again[name]} <= changing


@pytest.mark.parametrize("age", [ws_events.RECONNECT_SECONDS + 60, 86400 * 365])
async def test_history_of_switches_is_not_replayed_to_who_may_not_see_switches(
    age: float, small: ModelDefinition, other: ModelDefinition, admin_person: User, member_only: User
) -> None:
    old = await switch(small, admin_person)
    await SwitchEvent.objects.aupdate(at=timezone.now() - timedelta(seconds=age))
    recent = await switch(other, admin_person)
    async with connected(f"{PATH}?since=0-0", await key_of(member_only, "status")) as program:
        *missed, snapshot = await program.all_until("snapshot")
    assert {message["job_id"] for message in missed} == {recent.pk}
    assert not snapshot["missed_all"]

    async with connected(f"{PATH}?since=0-0", await key_of(admin_person, "status")) as program:
        *missed, snapshot = await program.all_until("snapshot")
    assert {message["job_id"] for message in missed} == {old.pk, recent.pk}
    assert snapshot["missed_all"]


async def test_replay_tells_a_member_nothing_of_before_they_joined(
    small: ModelDefinition, admin_person: User, member_only: User
) -> None:
    await switch(small, admin_person)
    await User.objects.filter(pk=member_only.pk).aupdate(date_joined=timezone.now())
    async with connected(f"{PATH}?since=0-0", await cookie_of(member_only)) as program:
        told = await program.next()
    assert (told["type"], told["missed_all"]) == ("snapshot", False)


@pytest.mark.parametrize("since", ["", "7", "a-b", "1-2-3", "-1-2", "1" * 30 + "-1", "%00", "٣-١"])
async def test_since_that_is_no_event_is_answered_and_the_snapshot_comes(since: str, admin_person: User) -> None:
    async with connected(f"{PATH}?since={since}", await key_of(admin_person, "status")) as program:
        told = await program.next()
        assert (told["type"], told["code"]) == ("error", "invalid_since")
        assert (await program.next())["type"] == "snapshot"


async def test_message_of_the_other_socket_is_unknown_here(admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "switch")) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="x")
        told = await program.next()

    assert told["code"] == "unknown_type"
    assert told["hint"] == "Send one of 'ping', 'get_snapshot'."


async def test_stranger_is_turned_away() -> None:
    async with connected(PATH, []) as program:
        assert (await program.next())["code"] == "key_refused"
        assert await program.close_code() == 4401


async def test_of_what_replaces_itself_only_the_latest_waits() -> None:
    outbox = Outbox()
    for text, key in (("a 1", "a"), ("b 1", "b"), ("a 2", "a"), ("error", None), ("error", None)):
        outbox.put(text, key)

    assert [await outbox.next() for _ in range(len(outbox))] == ["b 1", "a 2", "error", "error"]


async def test_who_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_outbox, "MOST_WAITING", 3)
    outbox = Outbox()
    for number in range(100):
        outbox.put(str(number))

    assert len(outbox) == 4
    with pytest.raises(TooSlow):
        await outbox.next()


async def test_every_message_is_described() -> None:
    messages = [
        value
        for value in vars(ws_messages).values()
        if isinstance(value, type) and issubclass(value, ws_messages.Message | ws_messages.Request)
    ]
    assert not [message.__name__ for message in messages if not message.__doc__]


async def test_board_that_cannot_begin_says_try_again(admin_person: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise OSError("the broker is away")

    monkeypatch.setattr(ws_board, "get_channel_layer", away)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        told = await program.next()
        assert (told["code"], told["hint"]) == ("unavailable", "Connect again in a few seconds.")
        assert await program.close_code() == 1013
