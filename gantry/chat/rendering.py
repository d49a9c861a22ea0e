"""Rows to HTML: the same partials for the page, for the answer to a form and for the socket's out-of-band swaps."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.db.models import Q
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from gantry.chat.markdown import GrowingMarkdown, render_markdown
from gantry.chat.models import Conversation, Message
from gantry.chat.status import Audience, ChatStatus

# One for each answer that somebody in this process looks at; it goes when the last of them does.
_growing: weakref.WeakValueDictionary[int, GrowingMarkdown] = weakref.WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as a template needs it."""

    message: Message
    starts_model: bool = False  # the line "from here: …" stands above it
    growing: GrowingMarkdown | None = None

    @property
    def html(self) -> SafeString:
        """The text of an answer that has ended."""
        return render_markdown(self.message.text)


def growing_text(message_id: int, text: str) -> GrowingMarkdown:
    """The blocks of an answer being written, shared by all tabs of this process that show it. Keep the reference."""
    growing = _growing.get(message_id)
    if growing is None:
        growing = _growing[message_id] = GrowingMarkdown()
    growing.feed(text)
    return growing


def message_views(messages: Iterable[Message], before: str = "") -> list[MessageView]:
    """Messages in order, with the places where the model changed. `before` is the model that answered ahead of them."""
    views = []
    for message in messages:
        is_new = bool(before and message.model_name and message.model_name != before)
        before = message.model_name or before
        views.append(MessageView(message, is_new, _growing_of(message)))
    return views


def message_view(message: Message) -> MessageView:
    """One message, with what its predecessors say about it. One query."""
    earlier = Message.objects.filter(~Q(model_name=""), conversation_id=message.conversation_id, pk__lt=message.pk)
    before = earlier.order_by("-id").values_list("model_name", flat=True).first() if message.model_name else ""
    return message_views([message], before or "")[0]


def _growing_of(message: Message) -> GrowingMarkdown | None:
    return growing_text(message.pk, message.text) if message.is_streaming else None


def messages_html(views: Sequence[MessageView], streaming: Message | None, *, only_new: bool = False) -> str:
    """Messages for an out-of-band swap, with the button that fits: Stop while an answer is being written, else Send.

    Args:
        only_new: leave a message alone that the page has already; the socket may have been faster and further.
    """
    context = {"views": views, "only_new": only_new, "streaming": streaming, "oob": True}
    return render_to_string("chat/_messages_oob.html", context)


def status_html(status: ChatStatus, audience: Audience) -> str:
    """Banner, lock and model menu for out-of-band swaps; only what moves when the status is partial."""
    template = "chat/_progress_oob.html" if status.is_partial else "chat/_status_oob.html"
    return render_to_string(template, {"status": status, "audience": audience, "oob": True})


def conversation_html(conversation: Conversation, *, is_open: bool) -> str:
    """A conversation's line in the list and its title, for out-of-band swaps."""
    context = {"conversation": conversation, "open_pk": conversation.pk if is_open else None, "oob": True}
    return render_to_string("chat/_conversation_oob.html", context)


def growth_html(message_id: int, growing: GrowingMarkdown, sent: int) -> str:
    """What has come since `sent` blocks were sent: finished blocks to append, and the last one anew."""
    new = format_html_join("", "{}", ((block,) for block in growing.blocks[sent:]))
    blocks = format_html('<div hx-swap-oob="beforeend:#message-{}-blocks">{}</div>', message_id, new) if new else ""
    return blocks + format_html('<div id="message-{}-tail" hx-swap-oob="innerHTML">{}</div>', message_id, growing.tail)
