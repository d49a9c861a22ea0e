"""WebSocket addresses."""

from django.urls import path

from gantry.api.ws_events import EventsConsumer
from gantry.api.ws_llm import LlmConsumer
from gantry.chat.consumers import ChatConsumer
from models_admin.consumers import ModelsTabConsumer

websocket_urlpatterns = [
    path("ws/models/", ModelsTabConsumer.as_asgi()),
    path("ws/chat/", ChatConsumer.as_asgi()),
    path("ws/llm", LlmConsumer.as_asgi()),
    path("ws/events", EventsConsumer.as_asgi()),
]
