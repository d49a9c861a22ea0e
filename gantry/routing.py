"""WebSocket addresses."""

from django.urls import path

from gantry.chat.consumers import ChatConsumer
from models_admin.consumers import ModelsTabConsumer

websocket_urlpatterns = [
    path("ws/models/", ModelsTabConsumer.as_asgi()),
    path("ws/chat/", ChatConsumer.as_asgi()),
]
