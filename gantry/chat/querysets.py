"""Every reusable filter of the chat."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Self

from django.apps import apps
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

    from gantry.chat.models import Conversation, Message  # noqa: F401 - named in the strings below

ORPHAN_SECONDS = 15  # an answer's process writes every quarter of a second; after this long it is taken for dead


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """Conversations. Every page starts from `of`: nobody sees those of others."""

    def of(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        """Those of one person."""
        return self.filter(user_id=user.pk)

    def matching(self, words: str) -> Self:
        """Those with these words in the title or in a message."""
        in_messages = apps.get_model("chat", "Message").objects.filter(
            conversation=OuterRef("pk"), text__icontains=words
        )
        return self.filter(Q(title__icontains=words) | Exists(in_messages))


class MessageQuerySet(models.QuerySet["Message"]):
    """Messages."""

    def of(self, user: AbstractBaseUser | AnonymousUser) -> Self:
        """Those in conversations of one person, with the conversation."""
        return self.filter(conversation__user_id=user.pk).select_related("conversation")

    def being_written(self, model_id: str | None = None) -> Self:
        """Answers being written, by any model or by the one with this id."""
        answers = self.filter(state="streaming")
        return answers if model_id is None else answers.filter(model_id=model_id)

    def answers_running(self, model_id: str) -> int:
        """How many answers a model is giving; those whose process has died do not count."""
        lately = timezone.now() - timedelta(seconds=ORPHAN_SECONDS)
        return self.being_written(model_id).filter(heartbeat_at__gte=lately).count()

    def orphaned(self) -> Self:
        """Answers whose process has given no sign for `ORPHAN_SECONDS`."""
        return self.being_written().filter(heartbeat_at__lt=timezone.now() - timedelta(seconds=ORPHAN_SECONDS))
