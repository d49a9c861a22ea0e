"""The chat page's socket: it authenticates, joins, and forwards what happened as HTML for out-of-band swaps."""

from __future__ import annotations

import time
import uuid
from collections.abc import Hashable
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth.models import User
from typing_extensions import override

from gantry import live
from gantry.chat import rendering, requests, status
from gantry.chat.markdown import GrowingMarkdown
from gantry.chat.models import Conversation, Message
from gantry.chat.rendering import MessageView
from gantry.chat.status import Audience, ChatStatus
from gantry.live import ConversationChanged, JobSnapshot, JobUpdated, MemoryChanged, ModelsChanged, RequestsChanged
from gantry.once import Once
from models_admin import actions, switch_requests
from models_admin.actor import Actor

RIGHTS_SECONDS = 30.0  # how long somebody who was switched off may still see what is said

_Banner = tuple[int, bool, bool]  # job, may be cancelled by who looks, is being cancelled

_statuses: Once[ChatStatus] = Once()
_pages: Once[str] = Once()


class ChatConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One tab. What it shows of models is the same for everybody with the same rights and rendered once for them."""

    actor: Actor
    may_switch = False
    may_ask = False
    may_answer = False
    # What the page tells of requests changes when a job ends, too: an approved one is news until then.
    _tells_of_requests = False
    conversation: Conversation | None = None
    # Which banner stands on the page: as long as it is the same, only its bar and words are sent, so that a click on its button
    # does not fall into the moment in which the button is replaced.
    _banner: _Banner | None = None
    _shown = (0, 0)  # job and its event that the page shows

    @override
    async def connect(self) -> None:
        """Let a signed-in person in, and show how things are now."""
        user: User = self.scope["user"]
        if not user.is_authenticated or not user.is_active:
            await self.close()
            return
        self._growing: dict[int, tuple[GrowingMarkdown, int]] = {}
        self.actor, self._asked_at = Actor(user, "chat"), time.monotonic()
        await database_sync_to_async(self._read_rights)(user)
        # Join first, then read: what changes in between comes as a hint.
        await self.channel_layer.group_add(live.STATUS_GROUP, self.channel_name)
        if self.may_ask or self.may_answer:
            await self.channel_layer.group_add(live.REQUESTS_GROUP, self.channel_name)
        if self.conversation is not None:
            await self.channel_layer.group_add(live.conversation_group(self.conversation.pk), self.channel_name)
        await self.accept()
        await self._send_status(f"connect-{uuid.uuid4()}", beside=await self._requests_html())
        await self._send_message(None)

    @override
    async def disconnect(self, code: int) -> None:
        """Leave."""
        await self.channel_layer.group_discard(live.STATUS_GROUP, self.channel_name)
        await self.channel_layer.group_discard(live.REQUESTS_GROUP, self.channel_name)
        if self.conversation is not None:
            await self.channel_layer.group_discard(live.conversation_group(self.conversation.pk), self.channel_name)

    async def job_updated(self, event: JobUpdated) -> None:
        """A job began, moved or ended."""
        job = event["job"]
        if job["id"] == self._shown[0] and job["seq"] < self._shown[1]:
            return  # the page was rendered from the row meanwhile, which is ahead of what is sent about it
        audience = self._audience(job)
        # A cancel that is asked for changes the job without a new event number.
        key = event["event_id"], job["is_cancelling"]
        if job["is_finished"] and self.may_ask and self._tells_of_requests:
            await self.send(text_data=await self._requests_html())
        if self._banner is None or self._banner != _banner_key(job, audience):
            await self._send_status(key)
            return
        moved = await _statuses.get((key, "progress"), lambda: _progress(job))
        await self.send(await _pages.get((key, "progress", audience), lambda: _render(moved, audience)))

    async def models_changed(self, event: ModelsChanged) -> None:
        """Models changed state."""
        await self._send_status(event["event_id"])

    async def memory_changed(self, event: MemoryChanged) -> None:
        """Memory is not shown here."""

    async def requests_changed(self, event: RequestsChanged) -> None:
        """Somebody asked for a model, or was answered."""
        if (self.may_answer or self.scope["user"].pk in event["user_ids"]) and await self._still_may_see():
            await self.send(text_data=await self._requests_html())

    async def message_updated(self, event: ConversationChanged) -> None:
        """A message of the open conversation changed: an answer grew, or a row has to be read again."""
        if not await self._still_may_see():
            return
        message_id, text = event["message_id"], event.get("text")
        if text is None or message_id not in self._growing:
            await self._send_message(message_id, text or "")
            return
        growing, sent = self._growing[message_id]
        growing.feed(text)
        self._growing[message_id] = growing, len(growing.blocks)
        await self.send(text_data=rendering.growth_html(message_id, growing, sent))

    async def _still_may_see(self) -> bool:
        """Asked again now and then: an account can be switched off while its pages are open."""
        if time.monotonic() - self._asked_at < RIGHTS_SECONDS:
            return True
        self._asked_at = time.monotonic()
        is_active = await database_sync_to_async(User.objects.filter(pk=self.scope["user"].pk, is_active=True).exists)()
        if not is_active:
            await self.close()
        return bool(is_active)

    async def _send_status(self, key: Hashable, beside: str = "") -> None:
        """Everything about models, from the rows, and what is to be told `beside` it."""
        current = await _statuses.get(key, _read)
        audience = self._audience(current.job)
        page = await _pages.get((key, audience), lambda: _render(current, audience))
        await self.send(text_data=page + beside)
        self._banner = _banner_key(current.job, audience)
        if current.job is not None:
            self._shown = current.job["id"], current.job["seq"]

    async def _requests_html(self) -> str:
        """What this person asked for, or is asked, from the rows; nothing for those who do neither."""
        if not (self.may_ask or self.may_answer):
            return ""
        view = await database_sync_to_async(requests.read)(self.actor)
        self._tells_of_requests = not view.is_empty
        html: str = await database_sync_to_async(requests.html)(view)
        return html

    async def _send_message(self, message_id: int | None, text: str = "") -> None:
        """One message from its row; the last one for None. `text` may be further than the row."""
        view, page = await database_sync_to_async(self._read_message)(message_id, text)
        if view is None:
            return
        self._growing.pop(view.message.pk, None)
        if view.growing is not None:
            self._growing[view.message.pk] = view.growing, len(view.growing.blocks)
        await self.send(text_data=page)

    def _read_message(self, message_id: int | None, text: str) -> tuple[MessageView | None, str]:
        if self.conversation is None:
            return None, ""
        messages = Message.objects.filter(conversation=self.conversation)
        message = messages.filter(pk=message_id).first() if message_id else messages.last()
        if message is None:
            return None, ""
        if message.is_streaming and len(text) > len(message.text):
            message.text = text
        view = rendering.message_view(message)
        return view, rendering.messages_html([view], messages.being_written().first())

    def _read_rights(self, user: User) -> None:
        self.may_switch = self.actor.may("switch_model")
        self.may_ask, self.may_answer = switch_requests.may_ask(self.actor), switch_requests.may_answer(self.actor)
        self.actor.may("cancel_any_job")  # read now: `may_cancel` is asked at each event, from the event loop
        query = parse_qs(self.scope["query_string"].decode())
        wanted = next(iter(query.get("conversation", ())), "")
        self.conversation = Conversation.objects.of(user).filter(pk=wanted).first() if wanted.isdecimal() else None

    def _audience(self, job: JobSnapshot | None) -> Audience:
        may_cancel = job is not None and actions.may_cancel(job, self.actor)
        return Audience(self.may_switch, may_cancel, self.may_ask)


def _banner_key(job: JobSnapshot | None, audience: Audience) -> _Banner | None:
    if job is None or job["is_finished"]:
        return None
    return job["id"], audience.may_cancel, job["is_cancelling"]


async def _read() -> ChatStatus:
    current: ChatStatus = await database_sync_to_async(status.read)()
    return current


async def _progress(job: JobSnapshot) -> ChatStatus:
    current: ChatStatus = await database_sync_to_async(status.progress)(job)
    return current


async def _render(current: ChatStatus, audience: Audience) -> str:
    html: str = await database_sync_to_async(rendering.status_html)(current, audience)
    return html
