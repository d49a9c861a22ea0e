"""Conversations and their messages."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.urls import reverse
from typing_extensions import override

from gantry.chat.querysets import ConversationQuerySet, MessageQuerySet


class Conversation(models.Model):
    """One person's conversation. `updated_at` is the time of its last question; it orders the list."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations")
    title = models.CharField(max_length=200, default="New chat")
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now_add=True)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at", "-id"]
        indexes = [
            # The list on the left of the chat page.
            models.Index(fields=["user", "-updated_at", "-id"], name="conversations_of_user")
        ]

    @override
    def __str__(self) -> str:
        """Its title."""
        return self.title

    def get_absolute_url(self) -> str:
        """Its page."""
        return reverse("chat:conversation", args=[self.pk])


class Message(models.Model):
    """One message of a conversation.

    A question is `complete` at once. An answer goes streaming -> complete | stopped | failed, by conditional updates only, so that
    stopping it and ending it cannot both win.
    """

    class Role(models.TextChoices):
        USER = "user", "User"
        ASSISTANT = "assistant", "Assistant"

    class State(models.TextChoices):
        STREAMING = "streaming", "Streaming"
        COMPLETE = "complete", "Complete"
        STOPPED = "stopped", "Stopped"
        FAILED = "failed", "Failed"

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="messages")
    role = models.CharField(max_length=20, choices=Role)
    state = models.CharField(max_length=20, choices=State, default=State.COMPLETE)
    text = models.TextField(blank=True)
    model_name = models.CharField(
        max_length=200, blank=True, help_text="Which model answered; kept when it is deleted."
    )
    model_id = models.CharField(max_length=200, blank=True)
    error_text = models.CharField(max_length=500, blank=True)
    token_count = models.PositiveIntegerField(default=0)
    tokens_per_second = models.FloatField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField(null=True, help_text="Last sign of the process that writes it.")

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        indexes = [
            # Answers being written: asked by drain and by recovery.
            models.Index(fields=["state"], condition=models.Q(state="streaming"), name="streaming_messages")
        ]
        constraints = [
            # Two tabs that send at once: the second is refused by the database, not by luck.
            models.UniqueConstraint(
                fields=["conversation"], condition=models.Q(state="streaming"), name="one_answer_at_a_time"
            )
        ]

    @override
    def __str__(self) -> str:
        """Role and start of the text."""
        return f"{self.role}: {self.text[:40]}"

    @property
    def is_streaming(self) -> bool:
        """It is being written."""
        return self.state == self.State.STREAMING
