"""Writing an answer: an asyncio task of the web process that goes on when the tab that asked has gone.

The row decides. Each write is a conditional UPDATE on `state=streaming`; one that meets no row means that the answer was stopped (from
any tab, through any process) or taken for dead, and then the connection to the model is closed so that it stops generating.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog
from asgiref.sync import async_to_sync
from channels.db import database_sync_to_async
from django.db import transaction
from django.utils import timezone

from gantry import live
from gantry.chat import history
from gantry.chat.models import Message
from gantry.planning.states import InstanceState
from gantry.runtimes.chat_client import ChatMessage, ChatTarget, ContextExceeded, stream_chat, target_for
from gantry.runtimes.exceptions import RuntimeFault
from models_admin.models import ModelInstance
from models_admin.usage import EXACT_SECONDS, note_use

log = structlog.get_logger(__name__)

SHOW_SECONDS = 0.05  # between two pictures of the growing text: the eye takes it for flowing
WRITE_SECONDS = 0.25  # between two writes of the row: how soon a stop is seen
PROMPT_MESSAGES = 400  # newest messages read for the prompt; more never fit a context

_tasks: set[asyncio.Task[None]] = set()  # held here, for the event loop alone keeps only weak references


@dataclass(frozen=True, slots=True)
class _Request:
    """Everything an answer needs, read once."""

    target: ChatTarget
    messages: list[ChatMessage]
    sampling: Mapping[str, Any]


def start(answer: Message) -> None:
    """Begin to write an answer, from synchronous code under the web server."""
    async_to_sync(_launch)(answer)


async def _launch(answer: Message) -> None:
    # An empty context: the request's own would send the task's queries to the request's thread, which ends with it.
    task = asyncio.get_running_loop().create_task(Writer(answer).run(), context=contextvars.Context())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


class Writer:
    """Writes one answer from the model's stream to its row and to the open tabs."""

    def __init__(self, answer: Message) -> None:
        self.answer = answer
        self.text = ""
        self.token_count = 0
        self.tokens_per_second: float | None = None
        self._shown = ""
        self._written_at = self._use_noted_at = time.monotonic()

    async def run(self) -> None:
        """Write the answer to its end, whatever the end is."""
        try:
            request = await database_sync_to_async(_request_for)(self.answer)
            if await self._stream(request):
                await self._end(Message.State.COMPLETE)
        except RuntimeFault as exc:
            await self._end(
                Message.State.FAILED, failure_sentence(self.answer.model_name, exc, has_text=bool(self.text))
            )
        except Exception:  # the boundary: an answer always ends, and says so
            log.exception("answer_errored", message_id=self.answer.pk)
            await self._end(
                Message.State.FAILED, "Gantry met a fault of its own; the web server's log has the details."
            )

    async def _stream(self, request: _Request) -> bool:
        """Take the stream in and show it as it comes. False when the answer was stopped meanwhile."""
        reader = asyncio.create_task(self._read(request))
        try:
            while not reader.done():
                await asyncio.wait({reader}, timeout=SHOW_SECONDS)
                await self._show()
                if not await self._write_when_due():
                    return False
            reader.result()
            return True
        finally:
            reader.cancel()  # closes the connection, and with it the model stops
            await asyncio.wait({reader})

    async def _read(self, request: _Request) -> None:
        async with aclosing(stream_chat(request.target, request.messages, request.sampling)) as deltas:
            async for delta in deltas:
                self.text += delta.text
                self.token_count = delta.token_count or self.token_count + bool(delta.text)
                self.tokens_per_second = delta.tokens_per_second or self.tokens_per_second

    async def _show(self) -> None:
        if self.text != self._shown:
            self._shown = self.text
            await live.publish_partial_answer(self.answer.conversation_id, self.answer.pk, self.text)

    async def _write_when_due(self) -> bool:
        """Keep what is there, every quarter of a second. False when the row is no longer streaming."""
        if time.monotonic() - self._written_at < WRITE_SECONDS:
            return True
        self._written_at = time.monotonic()
        if await database_sync_to_async(self._write)():
            return True
        await database_sync_to_async(self._keep_rest)()
        return False

    def _write(self) -> bool:
        if time.monotonic() - self._use_noted_at >= EXACT_SECONDS:
            self._use_noted_at = time.monotonic()
            note_use(self.answer.model_id, self.answer.conversation.user_id)
        answers = Message.objects.being_written().filter(pk=self.answer.pk)
        return bool(answers.update(text=self.text, token_count=self.token_count, heartbeat_at=timezone.now()))

    def _keep_rest(self) -> None:
        """What was on the screen when Stop was pressed is kept, also the part that came after the last write."""
        stopped = Message.objects.filter(pk=self.answer.pk, state=Message.State.STOPPED)
        with transaction.atomic():
            if stopped.update(text=self.text, token_count=self.token_count):
                self._publish(Message.State.STOPPED)

    async def _end(self, state: Message.State, error_text: str = "") -> None:
        await database_sync_to_async(self._finish)(state, error_text)

    def _finish(self, state: Message.State, error_text: str) -> None:
        with transaction.atomic():
            ended = (
                Message.objects.being_written()
                .filter(pk=self.answer.pk)
                .update(
                    state=state,
                    text=self.text,
                    token_count=self.token_count,
                    tokens_per_second=self.tokens_per_second,
                    error_text=error_text,
                )
            )
            if ended:
                self._publish(state)
            else:
                self._keep_rest()
        if self.text:
            note_use(self.answer.model_id, self.answer.conversation.user_id)

    def _publish(self, state: Message.State) -> None:
        live.publish_message(self.answer.conversation_id, self.answer.pk, state)


def _request_for(answer: Message) -> _Request:
    """The server, the prompt and the sampling for an answer.

    Raises:
        RuntimeFault: the model has gone since the question was taken.
    """
    loaded = ModelInstance.objects.filter(model__model_id=answer.model_id, state=InstanceState.LOADED)
    instance = loaded.select_related("model", "runtime").first()
    if instance is None:
        raise RuntimeFault("was unloaded before it could answer")
    model = instance.model
    note_use(model.model_id, answer.conversation.user_id)
    earlier = Message.objects.filter(conversation_id=answer.conversation_id, pk__lt=answer.pk).order_by("-id")
    budget = history.prompt_characters(history.context_tokens(model.parameters), model.sampling)
    return _Request(
        target=target_for(instance.runtime.kind, instance.base_url, instance.api_key, model.model_id),
        messages=history.build_prompt(list(earlier[:PROMPT_MESSAGES])[::-1], budget),
        sampling=model.sampling,
    )


def failure_sentence(model_name: str, fault: RuntimeFault, *, has_text: bool) -> str:
    """What happened to an answer, and what to do, in at most 500 characters."""
    if isinstance(fault, ContextExceeded):
        limit = f"context of {fault.context_tokens:,} tokens" if fault.context_tokens else "context"
        return f"This question is too long for {model_name}'s {limit}. Shorten it, or choose a model with a larger context."
    kept = " What it had written is kept." if has_text else ""
    return f"{model_name} {(fault.detail or 'did not answer').rstrip('.')}.{kept}"[:500]
