"""The chat pages as an app."""

from django.apps import AppConfig
from typing_extensions import override


class ChatConfig(AppConfig):
    """Conversations and their pages."""

    name = "gantry.chat"
    label = "chat"
    verbose_name = "Chat"

    @override
    def ready(self) -> None:
        """Say how its running answers are counted."""
        from gantry.chat.models import Message
        from models_admin import answering

        answering.count_by(Message.objects.answers_running)
