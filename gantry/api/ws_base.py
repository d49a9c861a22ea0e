"""What the sockets for programs have in common: who may, what may be sent, how fast, and how a slow reader is kept up to date."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import structlog
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import InterfaceError, OperationalError
from pydantic import TypeAdapter, ValidationError
from typing_extensions import override

from gantry.api import ws_board, ws_door
from gantry.api.errors import DATABASE_AWAY
from gantry.api.ws_board import Board, Change, Frame, Translate, View
from gantry.api.ws_messages import ErrorMessage
from gantry.api.ws_outbox import Outbox, TooSlow
from gantry.api.ws_pace import Pace
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused, KeyRefused, NotAllowed, RateLimited, Unavailable

log = structlog.get_logger(__name__)

LARGEST_MESSAGE = 64 * 1024  # bytes; the longest sensible message has a few hundred
# A person clicks less often, and a program needs no more: whatever changes is told without being asked for.
MOST_MESSAGES, MESSAGES_SECONDS = 20, 10.0
RIGHTS_SECONDS = 30.0  # how long somebody whose rights were taken away may still see what changes
TOO_SLOW, TRY_AGAIN = 1008, 1013  # close codes of RFC 6455 and its registry; refusals have 4000 and their HTTP status


class BadMessage(Exception):
    """Something that was sent cannot be used; says why in an ErrorMessage."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.error = ErrorMessage(code=code, message=message, hint=hint)


class ProgramConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels ships no types
    """One connection of a program or page. A subclass says what is sent (`translate`, `greeting`) and answers (`answer`)."""

    channel_layer_alias = "none"  # the board listens for all connections; there is no layer of that name
    requests: ClassVar[TypeAdapter[Any]]
    actor: Actor | None = None
    board: Board | None = None
    _tasks: Sequence[asyncio.Task[None]] = ()

    @override
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the connection; however it ends, it is forgotten, also when nobody says goodbye (`disconnect`)."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()

    @staticmethod
    def translate(change: Change, view: View) -> Iterable[Frame]:
        """What is sent to everybody when something changes."""
        raise NotImplementedError

    async def greeting(self, view: View) -> list[str]:
        """What is sent first. What changes in the view from then on is told after it."""
        raise NotImplementedError

    async def answer(self, request: Any, actor: Actor, view: View) -> None:
        """Do what was asked for. May raise what an action raises."""
        raise NotImplementedError

    @override
    async def connect(self) -> None:
        """Let in who may see models, greet them, and tell them what changes."""
        # Accepted first: only what is open can be told in words and with a code why it is closed.
        await self.accept()
        self._window, self.outbox, self._pace = MessageWindow(), Outbox(), Pace(self.scope[ws_door.SERVER_SEND])
        try:
            self.actor = await database_sync_to_async(ws_door.let_in)(self.scope)
            self.board = await _join(self.translate, self.outbox)
        except ActionRefused as exc:
            await self._turn_away(exc)
            return
        except _AWAY as exc:
            log.warning("database_away", reason=str(exc))
            await self._turn_away(DATABASE_AWAY)
            return
        for text in await self.greeting(self.board.view):
            await self.send(text_data=text)
        self._tasks = [asyncio.ensure_future(self._send_waiting()), asyncio.ensure_future(self._watch_rights())]

    @override
    async def disconnect(self, code: int) -> None:
        """Forget this connection."""
        self._end()

    @override
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Check one message and whoever sent it, then answer."""
        actor, board = self.actor, self.board
        if actor is None or board is None:  # it is being closed
            return
        try:
            await self._take(text_data, actor, board)
        except _AWAY as exc:
            log.warning("database_away", reason=str(exc))
            self.outbox.put(refusal_message(DATABASE_AWAY).model_dump_json(), key="database away")

    async def _take(self, text_data: str | None, actor: Actor, board: Board) -> None:
        try:
            self._window.count()
            request = parse(self.requests, text_data)
            actor = await database_sync_to_async(ws_door.look_again)(self.scope, actor)
        except BadMessage as exc:
            self.outbox.put(exc.error.model_dump_json())
            return
        except RateLimited as exc:
            self.outbox.put(refusal_message(exc).model_dump_json(), key="too many messages")
            return
        except (KeyRefused, NotAllowed) as exc:
            await self._turn_away(exc)
            return
        await self._answer(request, actor, board.view)

    async def _answer(self, request: Any, actor: Actor, view: View) -> None:
        try:
            await self.answer(request, actor, view)
        except ActionRefused as exc:
            self.outbox.put(refusal_message(exc).model_dump_json())

    async def _turn_away(self, exc: ActionRefused) -> None:
        """Say why, and close."""
        self._end()
        await self.send(text_data=refusal_message(exc).model_dump_json())
        await self.close(TRY_AGAIN if isinstance(exc, Unavailable) else 4000 + exc.status)

    def _end(self) -> None:
        self.actor = None
        if self.board is not None:
            self.board.remove(self.translate, self.outbox)
            self.board = None
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def _send_waiting(self) -> None:
        with suppress(TooSlow):
            while True:
                # First room, then the message: what waits here is still replaced by what comes later.
                await self._pace.ready()
                await self.send(text_data=await self.outbox.next())
        self._end()
        await self.close(TOO_SLOW)

    async def _watch_rights(self) -> None:
        """Look again from time to time, also when nothing happens. A quiet listener costs a few queries in half a minute."""
        while self.actor is not None:
            # Not all at the same moment, although they may all have come at the same moment.
            await asyncio.sleep(RIGHTS_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - nothing is to be guessed here
            try:
                self.actor = await database_sync_to_async(ws_door.look_again)(self.scope, self.actor)
            except (KeyRefused, NotAllowed) as exc:
                await self._turn_away(exc)
            except Exception as exc:  # noqa: BLE001 - the database is away: the next look or message asks again
                log.warning("rights_not_read", reason=repr(exc))


class MessageWindow:
    """Counts the messages of one connection: at most MOST_MESSAGES within MESSAGES_SECONDS."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def count(self) -> None:
        """Count one. What is refused does not count, so that waiting as long as is said helps.

        Raises:
            RateLimited: there were too many.
        """
        now = time.monotonic()
        while self._times and self._times[0] <= now - MESSAGES_SECONDS:
            self._times.popleft()
        if len(self._times) >= MOST_MESSAGES:
            wait = max(1, math.ceil(self._times[0] + MESSAGES_SECONDS - now))
            raise RateLimited(
                f"More than {MOST_MESSAGES} messages came within {MESSAGES_SECONDS:.0f} s.",
                f"This one was dropped; send it again in {wait} s. What changes is told without being asked for.",
                retry_after=wait,
            )
        self._times.append(now)


def parse(requests: TypeAdapter[Any], text: str | None) -> Any:
    """The request that a message holds.

    Raises:
        BadMessage: it holds none.
    """
    if text is None:
        raise BadMessage("binary", "Binary messages are not understood.", "Send JSON as text.")
    if len(text) > LARGEST_MESSAGE or len(text.encode()) > LARGEST_MESSAGE:
        raise BadMessage(
            "message_too_large", f"The message has more than {LARGEST_MESSAGE // 1024} KiB.", "Send less at a time."
        )
    try:
        return requests.validate_json(text)
    except ValidationError as exc:
        raise _explain(exc) from exc


def refusal_message(exc: ActionRefused) -> ErrorMessage:
    """A refusal in the form of an error message."""
    wait = exc.retry_after if isinstance(exc, RateLimited) else None
    return ErrorMessage(code=exc.code, message=str(exc), hint=exc.hint, retry_after=wait)


async def _join(translate: Translate, outbox: Outbox) -> Board:
    try:
        return await ws_board.join(translate, outbox)
    except Exception as exc:
        log.warning("board_not_begun", reason=repr(exc))
        raise Unavailable("Gantry cannot be looked at just now.", "Connect again in a few seconds.") from exc


def _explain(exc: ValidationError) -> BadMessage:
    """What pydantic found first, in words of ours: its own speak of Python's types."""
    [first, *_] = exc.errors(include_url=False)
    place = ".".join(str(part) for part in first["loc"][1:])
    match first["type"]:
        case "json_invalid":
            return BadMessage("not_json", f"This is not JSON: {first['ctx']['error']}.", "Send one JSON object.")
        case "union_tag_not_found" | "model_attributes_type" | "model_type" | "dict_type":
            return BadMessage("no_type", "The message is not an object with a field “type”.", _TYPE_HINT)
        case "union_tag_invalid":
            tags = first["ctx"]
            return BadMessage(
                "unknown_type", f"There is no message “{tags['tag'][:100]}”.", f"Send one of {tags['expected_tags']}."
            )
        case "missing":
            return BadMessage("missing_field", f"The field “{place}” is missing.", f"Add “{place}”.")
        case _:
            return BadMessage(
                "invalid_field", f"The field “{place}” cannot be used: {first['msg'].lower()}.", "Correct it."
            )


_AWAY = (OperationalError, InterfaceError)  # what the database raises when it does not answer
_TYPE_HINT = 'Send something like {"type": "…"}.'
