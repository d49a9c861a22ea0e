"""The chat pages as an app."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    """Conversations and their pages."""

    name = "gantry.chat"
    label = "chat"
    verbose_name = "Chat"
