"""Generations: refused, streamed, cut off, crashed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from tests.fakes.tabby.bodies import ChatBody, CompletionBody
from tests.fakes.tabby.engine import Engine, Job, Loaded
from tests.fakes.tabby.replies import Reply, Script, Shapes, count_prompt, prompt_text, script_for, stops
from tests.fakes.tabby.wire import Answer, Connection, Refusal, json_answer, refusal

ABORTED = "Chat completion aborted. Please check the server console."
NONE_LOADED = "No models are currently loaded."
PAGE = 256  # tokens; a job is given whole pages


@dataclass(eq=False)
class Generation:
    """One answer by one model."""

    engine: Engine
    loaded: Loaded
    body: ChatBody | CompletionBody
    script: Script
    shapes: Shapes

    async def stream(self, connection: Connection) -> None:
        """Events; one that was cut off is never ended by the server."""
        if self.loaded.is_leaving:
            await self.loaded.gone.wait()
            await connection.send_event(_error())
            return
        for index in range(self.body.n):
            reply = Reply()
            async for piece in self._pieces(reply):
                await connection.send_event(self.shapes.piece(index, piece))
            if reply.is_cut:
                await asyncio.get_running_loop().create_future()
            if reply.has_crashed:
                await connection.send_event(_error())
                return
            await connection.send_event(self.shapes.last_piece(index, reply))
        await connection.send_event("[DONE]")

    async def whole(self) -> Answer:
        """All at once; one that was cut off looks like one that stopped by itself."""
        if self.loaded.is_leaving:
            await self.loaded.gone.wait()
            raise _aborted(self.shapes.id)
        replies = []
        for _ in range(self.body.n):
            reply = Reply()
            async for _piece in self._pieces(reply):
                pass
            if reply.has_crashed:
                raise _aborted(self.shapes.id)
            replies.append(reply)
        return json_answer(self.shapes.whole(replies))

    async def _pieces(self, reply: Reply) -> AsyncIterator[str]:
        """The words, at their times; `reply` keeps what was said and why it ended."""
        job = self.loaded.begin_job()
        try:
            await self._wait(job, self.script.prefill)
            for number, piece in enumerate(self.script.pieces):
                if self.body.max_tokens is not None and number >= self.body.max_tokens:
                    reply.finish_reason, reply.eos_reason, reply.stop_str = "length", "max_new_tokens", None
                    return
                await self._wait(job, self.script.delay)
                if self._ends(job, reply, number, piece):
                    return
                reply.text += piece
                reply.count += 1
                yield piece
        finally:
            self.loaded.end_job(job)

    def _ends(self, job: Job, reply: Reply, number: int, piece: str) -> bool:
        if job.is_cut:
            reply.is_cut, reply.eos_reason, reply.stop_str = True, None, None
        elif number == self.script.crash:
            reply.has_crashed = True
            self.engine.fail_engine()
        else:
            found = next((text for text in stops(self.body) if text in reply.text + piece), None)
            if found is None:
                return False
            reply.eos_reason, reply.stop_str = "stop_string", found
        return True

    async def _wait(self, job: Job, seconds: float) -> None:
        """So long, or until it is cut off."""
        if job.is_cut or not seconds:
            return
        waits = [asyncio.ensure_future(self.engine.clock.sleep(seconds)), asyncio.ensure_future(job.changed.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def prepare(engine: Engine, loaded: Loaded, body: ChatBody | CompletionBody, token_seconds: float) -> Generation:
    """A generation that may begin.

    Raises:
        Refusal: the model has no template, or its context is too small.
    """
    is_chat = isinstance(body, ChatBody)
    if is_chat and not loaded.model.has_template:
        raise refusal(422, "Chat completions are disabled because a prompt template is not set.")
    tokens = count_prompt(body)
    _check_context(loaded, tokens)
    wants_usage = body.stream_options is not None and body.stream_options.include_usage
    shapes = Shapes(loaded.id, is_chat, tokens, wants_usage)
    return Generation(engine, loaded, body, script_for(loaded.id, prompt_text(body), token_seconds), shapes)


def _check_context(loaded: Loaded, tokens: int) -> None:
    size = loaded.cache_size
    needed = -(-(tokens + loaded.chunk_size) // PAGE) * PAGE
    if tokens > size:
        words = f"Prompt length {tokens} exceeds the available context size of {size} tokens"
    elif needed > size:
        words = f"Initial job allocation requires {needed} cache tokens, which exceeds the available context size of {size} tokens"
    else:
        return
    code = "context_length_exceeded"
    error = {"message": words, "type": "invalid_request_error", "param": None, "code": code}
    raise Refusal(json_answer({"error": error}, 400))


def _error() -> dict[str, Any]:
    return {"error": {"message": ABORTED, "trace": None}}


def _aborted(identifier: str) -> Refusal:
    words = f"Chat completion {identifier} aborted. Maybe the model was unloaded? Please check the server console."
    return refusal(503, words)
