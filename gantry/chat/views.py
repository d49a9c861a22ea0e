"""The chat's pages and forms: parse, call, render."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django_htmx.http import HttpResponseClientRedirect, trigger_client_event

from gantry.chat import generation, rendering, requests, sending, status
from gantry.chat.exceptions import SendRefused
from gantry.chat.forms import RenameForm
from gantry.chat.models import Conversation, Message
from gantry.chat.status import Audience
from gantry.chat.web import ChatRequest, dialog, page_path, signed_in
from models_admin import actions, switch_requests
from models_admin.actor import Actor

LISTED_CONVERSATIONS = 100
SHOWN_MESSAGES = 100


@require_GET
@signed_in
def page(request: ChatRequest, pk: int | None = None) -> HttpResponse:
    """The chat: a conversation, or a new one."""
    return render(request, "chat/page.html", _page_context(request, _conversation(request, pk)))


@require_GET
@signed_in
def conversations(request: ChatRequest) -> HttpResponse:
    """The list of conversations that match a search; without htmx the whole page with it."""
    if not request.htmx:
        return render(request, "chat/page.html", _page_context(request, None))
    is_open = re.fullmatch(r"/c/(\d{1,18})/", page_path(request))
    context = _list_context(request) | {"open_pk": int(is_open[1]) if is_open else None}
    return render(request, "chat/_conversations.html", context)


@require_POST
@signed_in
def send(request: ChatRequest, pk: int | None = None) -> HttpResponse:
    """Take a question and begin to answer it. When it is refused, its text comes back."""
    conversation = _conversation(request, pk)
    text = request.POST.get("text", "")
    try:
        answer = sending.ask(request.user, conversation, text)
    except SendRefused as exc:
        return _refused(request, exc, conversation, text)
    generation.start(answer)
    return _answering(request, answer, is_new=conversation is None)


@require_POST
@signed_in
def again(request: ChatRequest, pk: int) -> HttpResponse:
    """Answer a question anew after its answer failed."""
    failed = get_object_or_404(Message.objects.of(request.user), pk=pk)
    try:
        answer = sending.ask_again(failed)
    except SendRefused as exc:
        return _refused(request, exc, failed.conversation, "")
    generation.start(answer)
    return _answering(request, answer, is_new=False)


@require_POST
@signed_in
def stop(request: ChatRequest, pk: int) -> HttpResponse:
    """End an answer that is being written."""
    answer = get_object_or_404(Message.objects.of(request.user), pk=pk)
    sending.stop(answer)
    if not request.htmx:
        return redirect(answer.conversation)
    return HttpResponse(rendering.messages_html([rendering.message_view(answer)], None))


@require_http_methods(["GET", "POST"])
@signed_in
def rename(request: ChatRequest, pk: int) -> HttpResponse:
    """Give a conversation another title."""
    conversation = get_object_or_404(Conversation.objects.of(request.user), pk=pk)
    form = RenameForm(request.POST or None, instance=conversation)
    if request.method == "POST" and form.is_valid():
        form.save()
        return _changed(request, conversation)
    status_code = 422 if form.is_bound else 200
    return dialog(request, "chat/_rename_dialog.html", {"conversation": conversation, "form": form}, status_code)


@require_http_methods(["GET", "POST"])
@signed_in
def delete(request: ChatRequest, pk: int) -> HttpResponse:
    """Delete a conversation, after asking."""
    conversation = get_object_or_404(Conversation.objects.of(request.user), pk=pk)
    if request.method == "GET":
        return dialog(request, "chat/_delete_dialog.html", {"conversation": conversation})
    address, deleted = conversation.get_absolute_url(), f'<li id="conversation-{pk}" hx-swap-oob="delete"></li>'
    conversation.delete()
    if not request.htmx:
        return redirect("chat:new")
    if page_path(request) == address:
        return HttpResponseClientRedirect("/")
    return trigger_client_event(HttpResponse(deleted), "dialogDone")


def _conversation(request: ChatRequest, pk: int | None) -> Conversation | None:
    return None if pk is None else get_object_or_404(Conversation.objects.of(request.user), pk=pk)


def _answering(request: ChatRequest, answer: Message, *, is_new: bool) -> HttpResponse:
    """Where a question leads: to its conversation, or its messages into the open one."""
    address = answer.conversation.get_absolute_url()
    if not request.htmx:
        return redirect(address)
    if is_new:
        return HttpResponseClientRedirect(address)
    newest = list(answer.conversation.messages.order_by("-id")[:2])[::-1]
    views = [*rendering.message_views(newest[:1]), rendering.message_view(newest[1])]
    response = HttpResponse(rendering.messages_html(views, newest[1], only_new=True))
    return trigger_client_event(response, "messageSent")


def _refused(request: ChatRequest, exc: SendRefused, conversation: Conversation | None, text: str) -> HttpResponse:
    if request.htmx:
        return render(request, "chat/_composer_error.html", {"error": str(exc), "oob": True}, status=exc.status)
    context = _page_context(request, conversation) | {"text": text, "error": str(exc)}
    return render(request, "chat/page.html", context, status=exc.status)


def _changed(request: ChatRequest, conversation: Conversation) -> HttpResponse:
    if not request.htmx:
        return redirect(conversation)
    is_open = page_path(request) == conversation.get_absolute_url()
    response = HttpResponse(rendering.conversation_html(conversation, is_open=is_open))
    return trigger_client_event(response, "dialogDone")


def _page_context(request: ChatRequest, conversation: Conversation | None) -> dict[str, Any]:
    actor = Actor.from_request(request, via="chat")
    current = status.read()
    may_cancel = current.job is not None and actions.may_cancel(current.job, actor)
    return {
        "conversation": conversation,
        "open_pk": conversation.pk if conversation else None,
        "status": current,
        "audience": Audience(actor.may("switch_model"), may_cancel, switch_requests.may_ask(actor)),
        "requests": requests.read(actor),
        "max_characters": sending.MAX_CHARACTERS,
        **_messages_context(request, conversation),
        **_list_context(request),
    }


def _messages_context(request: HttpRequest, conversation: Conversation | None) -> dict[str, Any]:
    if conversation is None:
        return {"views": []}
    limit = None if "all" in request.GET else SHOWN_MESSAGES
    newest = list(conversation.messages.order_by("-id")[: limit + 1 if limit else None])
    shown = newest[:limit][::-1]
    return {
        "views": rendering.message_views(shown),
        "has_earlier": len(newest) > len(shown),
        "streaming": next((message for message in reversed(shown) if message.is_streaming), None),
    }


def _list_context(request: ChatRequest) -> dict[str, Any]:
    words = request.GET.get("q", "").strip()[:100]
    mine = Conversation.objects.of(request.user)
    found = list((mine.matching(words) if words else mine)[: LISTED_CONVERSATIONS + 1])
    return {
        "query": words,
        "groups": _by_day(found[:LISTED_CONVERSATIONS]),
        "has_more": len(found) > LISTED_CONVERSATIONS,
        "listed": LISTED_CONVERSATIONS,
    }


def _by_day(found: list[Conversation]) -> list[tuple[str, list[Conversation]]]:
    midnight: datetime = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    today = [conversation for conversation in found if conversation.updated_at >= midnight]
    earlier = found[len(today) :]
    return [(title, group) for title, group in (("Today", today), ("Earlier", earlier)) if group]
