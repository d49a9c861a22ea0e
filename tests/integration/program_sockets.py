"""Sockets of programs in tests: who opens them, and what comes out of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

from gantry.asgi import application
from models_admin import actions, keys, running
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, SwitchJob

LOCAL = [(b"origin", b"http://localhost"), (b"host", b"localhost")]
SECONDS = 5.0  # for anything that has to come


class Program:
    """The other end of one socket."""

    def __init__(self, communicator: Any) -> None:
        self.communicator = communicator

    async def send(self, **message: Any) -> None:
        await self.communicator.send_to(text_data=json.dumps(message))

    async def next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.communicator.receive_from(timeout=SECONDS))
        return message

    async def until(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The next message of this type with these values; those before it are dropped."""
        while True:
            message = await self.next()
            if message["type"] == kind and all(message[name] == value for name, value in fields.items()):
                return message

    async def all_until(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Every message up to that one, it included."""
        messages: list[dict[str, Any]] = []
        while not messages or not _is(messages[-1], kind, fields):
            messages.append(await self.next())
        return messages

    async def close_code(self) -> int:
        """With which code the server closes; nothing else may come before."""
        output = await self.communicator.receive_output(timeout=SECONDS)
        assert output["type"] == "websocket.close", output
        return int(output["code"])


def _is(message: dict[str, Any], kind: str, fields: dict[str, Any]) -> bool:
    return message["type"] == kind and all(message[name] == value for name, value in fields.items())


@asynccontextmanager
async def connected(path: str, headers: list[tuple[bytes, bytes]]) -> AsyncIterator[Program]:
    """An open socket, closed again at the end."""
    communicator: Any = WebsocketCommunicator(application, path, headers=headers)
    is_open, code = await communicator.connect(timeout=SECONDS)
    assert is_open, code
    try:
        yield Program(communicator)
    finally:
        await communicator.disconnect(timeout=SECONDS)


async def key_of(user: User, *scopes: str, **fields: Any) -> list[tuple[bytes, bytes]]:
    """Headers with a new key of a user."""
    actor = Actor(user, "page")
    _, token = await sync_to_async(keys.create_key)(user, actor=actor, name="test", scopes=scopes, **fields)
    return [(b"authorization", f"Bearer {token}".encode())]


async def cookie_of(user: User) -> list[tuple[bytes, bytes]]:
    """Headers of a page of ours, with the session's cookie."""
    client = Client()
    await sync_to_async(client.force_login)(user)
    value = client.cookies[settings.SESSION_COOKIE_NAME].value
    return [*LOCAL, (b"cookie", f"{settings.SESSION_COOKIE_NAME}={value}".encode())]


async def run(job_id: int) -> None:
    """Do a job's work beside everything else, as a worker would."""

    def work() -> None:
        try:
            running.run_job(job_id)
        finally:
            connections.close_all()

    await sync_to_async(work, thread_sensitive=False)()


async def switch(model: ModelDefinition, user: User) -> SwitchJob:
    """A whole switch that somebody asks for on a page."""
    decision = await sync_to_async(actions.request_switch)(model, actor=Actor(user, "page"), confirm=True)
    assert decision.job is not None
    await run(decision.job.pk)
    return decision.job
