"""The chat's mutations: ask, ask again, stop. Each writes rows in one transaction; live events leave on commit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction
from django.utils import timezone

from gantry import live
from gantry.chat.exceptions import SendRefused
from gantry.chat.models import Conversation, Message
from gantry.planning.states import InstanceState
from models_admin import overview
from models_admin.models import ModelInstance

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MAX_CHARACTERS = 32_000
TITLE_CHARACTERS = 60

NO_MODEL = "Select a model to start chatting."
MAY_NOT_CHAT = "You may not chat; ask an administrator."
STILL_ANSWERING = "An answer is still being written. Wait for it or stop it first."


def ask(user: User, conversation: Conversation | None, text: str) -> Message:
    """Write a question and the empty answer to it; start a conversation when there is none.

    Returns:
        The answer, in state streaming. The caller starts the generation after this has committed.

    Raises:
        SendRefused: the person may not chat, the text is empty or too long, no model is active, a job is running, or an answer is
            being written.
    """
    _need_right(user)
    text = _checked(text)
    with _one_answer_at_a_time(), transaction.atomic():
        instance = serving_instance()
        if conversation is None:
            conversation = Conversation.objects.create(user=user, title=title_for(text))
        question = conversation.messages.create(role=Message.Role.USER, text=text)
        answer = _begin_answer(conversation, instance)
        _publish(question)
        _publish(answer)
    return answer


def ask_again(failed: Message) -> Message:
    """A new answer to the question whose answer failed; the failed one stays as it is.

    Raises:
        SendRefused: the person may not chat, it did not fail or is not the last message, no model is active, a job is running, or an
            answer is being written.
    """
    conversation = failed.conversation
    _need_right(conversation.user)
    with _one_answer_at_a_time(), transaction.atomic():
        is_last = not conversation.messages.filter(pk__gt=failed.pk).exists()
        if failed.state != Message.State.FAILED or not is_last:
            raise SendRefused("This answer can no longer be asked for again. Send the question anew.")
        answer = _begin_answer(conversation, serving_instance())
        _publish(failed)
        _publish(answer)
    return answer


def stop(answer: Message) -> bool:
    """End an answer that is being written; what is there is kept. Whether this call ended it.

    The process that writes it sees at its next write that the row is no longer streaming, and hangs up on the model.
    """
    with transaction.atomic():
        ended = Message.objects.being_written().filter(pk=answer.pk).update(state=Message.State.STOPPED)
        answer.refresh_from_db(fields=["state", "text"])
        if ended:
            _publish(answer)
    return bool(ended)


def serving_instance() -> ModelInstance:
    """The instance that questions go to now, with its model.

    Raises:
        SendRefused: there is none, it cannot chat, or a job is about to change it.
    """
    job = overview.current_job()
    if job is not None and job["interrupts"]:
        raise SendRefused("The model is being changed. Your text is kept; send it when the change is done.")
    instance = ModelInstance.objects.filter(is_active=True, state=InstanceState.LOADED).select_related("model").first()
    if instance is None:
        raise SendRefused(NO_MODEL)
    if instance.model.is_embedding:
        raise SendRefused(f"{instance.model.name} makes embeddings and cannot chat. Select another model.")
    return instance


def title_for(text: str) -> str:
    """A conversation's first title: the first line of its first question, cut at a word."""
    line = " ".join(text.strip().splitlines()[0].split())
    if len(line) <= TITLE_CHARACTERS:
        return line
    head = line[:TITLE_CHARACTERS]
    return f"{head.rsplit(' ', 1)[0] if ' ' in head else head}…"


def _need_right(user: User) -> None:
    if not user.has_perm("models_admin.chat"):
        raise SendRefused(MAY_NOT_CHAT, 403)


def _checked(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\x00", "").strip()
    if not text:
        raise SendRefused("Write something first.", status=422)
    if len(text) > MAX_CHARACTERS:
        raise SendRefused(
            f"The text has {len(text):,} characters; at most {MAX_CHARACTERS:,} can be sent. Shorten it.", status=422
        )
    return text


def _begin_answer(conversation: Conversation, instance: ModelInstance) -> Message:
    now = timezone.now()
    Conversation.objects.filter(pk=conversation.pk).update(updated_at=now)
    return conversation.messages.create(
        role=Message.Role.ASSISTANT,
        state=Message.State.STREAMING,
        model_id=instance.model.model_id,
        model_name=instance.model.name,
        heartbeat_at=now,
    )


def _publish(message: Message) -> None:
    live.publish_message(message.conversation_id, message.pk, message.state)


@contextmanager
def _one_answer_at_a_time() -> Iterator[None]:
    """Words for the database's refusal of a second answer in the same conversation."""
    try:
        yield
    except IntegrityError as exc:
        raise SendRefused(STILL_ANSWERING) from exc
