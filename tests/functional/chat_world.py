"""What the tests of the chat stand on: a model that answers, conversations, a signed-in socket."""

from __future__ import annotations

import uuid
from typing import Any

from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from gantry.asgi import application
from gantry.chat.models import Conversation, Message
from models_admin.models import ModelDefinition, ModelInstance, Runtime
from tests.factories import make_model

HTMX = {"HX-Request": "true"}


def serve(runtime: Runtime, base_url: str = "http://127.0.0.1:1", **fields: Any) -> ModelDefinition:
    """An active model whose server is at this address."""
    model = make_model(runtime, **{"model_id": "smol", "name": "Smol", **fields})
    ModelInstance.objects.create(
        instance_id=uuid.uuid4(), model=model, runtime=runtime, state="loaded", is_active=True, base_url=base_url,
        api_key="the-key", held_bytes=1,
    )  # fmt: skip
    return model


def talk(user: User, *turns: tuple[str, str], model: str = "Smol") -> Conversation:
    """A conversation of questions and complete answers."""
    conversation = Conversation.objects.create(user=user, title="Old talk")
    for question, answer in turns:
        conversation.messages.create(role="user", text=question)
        conversation.messages.create(role="assistant", text=answer, model_name=model, model_id="smol")
    return conversation


def answer_in(conversation: Conversation, **fields: Any) -> Message:
    """One more answer."""
    return conversation.messages.create(role="assistant", model_name="Smol", model_id="smol", **fields)


def signed_in(user: User) -> Client:
    """A browser of this person."""
    client = Client()
    client.force_login(user)
    return client


def socket(user: User | None, query: str = "", origin: str = "http://localhost") -> Any:
    """A tab's socket, signed in by its session's cookie."""
    headers = [(b"origin", origin.encode()), (b"host", b"localhost")]
    if user is not None:
        cookie = signed_in(user).cookies[settings.SESSION_COOKIE_NAME].value
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={cookie}".encode()))
    return WebsocketCommunicator(application, f"/ws/chat/{query}", headers=headers)
