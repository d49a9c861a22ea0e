"""Putting right what a web process left behind when it ended."""

from __future__ import annotations

from django.db import transaction

from gantry import live
from gantry.chat.models import Message

INTERRUPTED = "The answer was interrupted when Gantry restarted. Ask again."


def end_orphans() -> int:
    """End answers that nobody writes any more; what is there is kept. How many there were.

    An answer whose process is merely slow loses nothing but its end: its next write meets no row, and it hangs up.
    """
    with transaction.atomic():
        orphans = Message.objects.orphaned()
        return sum(_end(message) for message in orphans.only("pk", "conversation_id"))


def _end(message: Message) -> int:
    ended = Message.objects.orphaned().filter(pk=message.pk).update(state=Message.State.FAILED, error_text=INTERRUPTED)
    if ended:
        live.publish_message(message.conversation_id, message.pk, Message.State.FAILED)
    return ended
