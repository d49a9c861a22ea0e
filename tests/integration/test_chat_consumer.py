"""The chat page's socket, through the whole ASGI application."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth.models import User

from gantry import live
from models_admin.models import Runtime
from models_admin.snapshots import job_snapshot
from tests.factories import make_model
from tests.functional.admin_world import loading_job
from tests.functional.chat_world import answer_in, serve, socket, talk

pytestmark = pytest.mark.django_db(transaction=True)


async def _open(user: User | None, query: str = "", origin: str = "http://localhost") -> tuple[Any, bool]:
    connection = await sync_to_async(socket)(user, query, origin)
    is_in, _ = await connection.connect()
    return connection, is_in


async def test_anonymous_and_foreign_origins_are_kept_out(outsider: User) -> None:
    for user, origin in ((None, "http://localhost"), (outsider, "http://elsewhere.example")):
        connection, is_in = await _open(user, origin=origin)
        assert not is_in
        await connection.disconnect()


async def test_present_state_comes_first(null_runtime: Runtime, outsider: User) -> None:
    await sync_to_async(serve)(null_runtime)
    connection, is_in = await _open(outsider)
    assert is_in
    page = await connection.receive_from()
    assert 'data-can-send="true"' in page
    assert "Message Smol" in page
    await connection.disconnect()


async def test_switch_locks_with_its_time_and_unlocks_when_it_ends(
    null_runtime: Runtime, outsider: User, admin_person: User
) -> None:
    await sync_to_async(serve)(null_runtime)
    target = await sync_to_async(make_model)(null_runtime, name="Gemma")
    connection, _ = await _open(outsider)
    await connection.receive_from()

    job = await sync_to_async(loading_job)(target, admin_person)
    snapshot = await sync_to_async(job_snapshot)(job)
    message = {"type": "job_updated", "job": snapshot, "event_id": "first"}
    await get_channel_layer().group_send(live.STATUS_GROUP, message)
    page = await connection.receive_from()
    assert 'data-locked="true"' in page
    assert "Switching to Gemma… (7s remaining)" in page
    assert "asked by ann" in page
    assert ">Cancel<" not in page  # it is not theirs to cancel

    job.state = "failed"
    await job.asave(update_fields=["state"])
    snapshot = await sync_to_async(job_snapshot)(job)
    await get_channel_layer().group_send(
        live.STATUS_GROUP, {"type": "job_updated", "job": snapshot, "event_id": "second"}
    )
    page = await connection.receive_from()
    assert 'data-locked="false"' in page
    await connection.disconnect()


async def test_conversation_of_somebody_else_is_not_listened_to(
    null_runtime: Runtime, outsider: User, member: User
) -> None:
    def prepare() -> Any:
        conversation = talk(member, ("Secret?", "Yes"))
        return conversation, answer_in(conversation, state="streaming", text="so ")

    conversation, answer = await sync_to_async(prepare)()
    theirs, _ = await _open(member, f"?conversation={conversation.pk}")
    mine, _ = await _open(outsider, f"?conversation={conversation.pk}")
    await theirs.receive_from()
    await theirs.receive_from()  # the message that is being written
    await mine.receive_from()
    await get_channel_layer().group_send(
        live.conversation_group(conversation.pk),
        {"type": "message_updated", "message_id": answer.pk, "state": "streaming", "text": "so secret"},
    )
    assert "secret" in await theirs.receive_from()
    assert await mine.receive_nothing(timeout=0.3)
    await theirs.disconnect()
    await mine.disconnect()
