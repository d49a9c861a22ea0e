"""Writing answers: the model's stream, the row, and everything that may happen in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.contrib.auth.models import User
from django.utils import timezone

from gantry import live
from gantry.chat import recovery, sending
from gantry.chat.generation import Writer
from gantry.chat.models import Message
from models_admin.models import ModelInstance, Runtime
from tests.fakes.openai_server import OpenAIServer, openai_server
from tests.functional.chat_world import answer_in, serve, talk

pytestmark = pytest.mark.django_db(transaction=True)


@sync_to_async
def _ask(runtime: Runtime, user: User, fake: OpenAIServer, **fields: Any) -> Message:
    serve(runtime, fake.base_url, **fields)
    return sending.ask(user, None, "Say hello")


async def _reload(answer: Message) -> Message:
    await answer.arefresh_from_db()
    return answer


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - what is waited for stands in the database
            await asyncio.sleep(0.02)


async def test_answer_ends_complete_with_its_figures(null_runtime: Runtime, outsider: User) -> None:
    async with openai_server() as fake:
        answer = await _ask(null_runtime, outsider, fake, sampling={"temperature": 0.1})
        await Writer(answer).run()
    answer = await _reload(answer)
    assert (answer.state, answer.text, answer.token_count) == (Message.State.COMPLETE, "Hello there", 3)
    assert answer.tokens_per_second == 42.0
    assert fake.requests[0]["messages"] == [{"role": "user", "content": "Say hello"}]
    assert fake.requests[0]["temperature"] == 0.1


async def test_text_reaches_the_open_tabs_before_the_answer_has_ended(null_runtime: Runtime, outsider: User) -> None:
    async with openai_server(hang_after=2) as fake:
        answer = await _ask(null_runtime, outsider, fake)
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add(live.conversation_group(answer.conversation_id), channel)
        writing = asyncio.create_task(Writer(answer).run())
        async with asyncio.timeout(10):
            message = await layer.receive(channel)
        assert message["text"].startswith("Hel")
        assert (await _reload(answer)).state == Message.State.STREAMING
        await sync_to_async(sending.stop)(answer)
        await writing


async def test_stop_from_anywhere_hangs_up_and_keeps_what_is_there(null_runtime: Runtime, outsider: User) -> None:
    async with openai_server(hang_after=2) as fake:
        answer = await _ask(null_runtime, outsider, fake)
        writing = asyncio.create_task(Writer(answer).run())

        async def has_text() -> bool:
            return (await _reload(answer)).text == "Hello "

        await _eventually(has_text)
        assert await sync_to_async(sending.stop)(answer)
        async with asyncio.timeout(10):
            await writing
            await fake.disconnected.wait()
    answer = await _reload(answer)
    assert (answer.state, answer.text) == (Message.State.STOPPED, "Hello ")
    assert not await sync_to_async(sending.stop)(answer)


@pytest.mark.parametrize("fault", [{"break_after": 2}, {"error_after": 2}])
async def test_model_that_fails_in_the_middle_leaves_what_it_wrote_and_a_sentence(
    null_runtime: Runtime, outsider: User, fault: dict[str, int]
) -> None:
    async with openai_server(**fault) as fake:
        answer = await _ask(null_runtime, outsider, fake)
        await Writer(answer).run()
    answer = await _reload(answer)
    assert (answer.state, answer.text) == (Message.State.FAILED, "Hello ")
    assert answer.error_text.startswith("Smol ")
    assert answer.error_text.endswith("What it had written is kept.")


async def test_model_that_was_unloaded_meanwhile_ends_the_answer_in_words(
    null_runtime: Runtime, outsider: User
) -> None:
    async with openai_server() as fake:
        answer = await _ask(null_runtime, outsider, fake)
        await ModelInstance.objects.all().adelete()
        await Writer(answer).run()
    answer = await _reload(answer)
    assert (answer.state, answer.error_text) == (Message.State.FAILED, "Smol was unloaded before it could answer.")


async def test_question_longer_than_the_context_says_what_to_do(null_runtime: Runtime, outsider: User) -> None:
    body = b'{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_ctx":2048}}'
    async with openai_server(status=400, error_body=body) as fake:
        answer = await _ask(null_runtime, outsider, fake)
        await Writer(answer).run()
    assert "too long for Smol's context of 2,048 tokens" in (await _reload(answer)).error_text


def test_answer_whose_web_process_died_is_ended_and_can_be_asked_again(null_runtime: Runtime, outsider: User) -> None:
    serve(null_runtime)
    conversation = talk(outsider, ("Hi", "Hello"))
    conversation.messages.create(role="user", text="And?")
    dead = answer_in(conversation, state="streaming", text="Half", heartbeat_at=timezone.now() - timedelta(seconds=60))
    assert recovery.end_orphans() == 1
    assert recovery.end_orphans() == 0
    dead.refresh_from_db()
    assert (dead.state, dead.text, dead.error_text) == (Message.State.FAILED, "Half", recovery.INTERRUPTED)
    again = sending.ask_again(dead)
    assert again.state == Message.State.STREAMING


def test_answer_that_is_being_written_is_no_orphan(null_runtime: Runtime, outsider: User) -> None:
    conversation = talk(outsider)
    answer_in(conversation, state="streaming", heartbeat_at=timezone.now())
    assert recovery.end_orphans() == 0
