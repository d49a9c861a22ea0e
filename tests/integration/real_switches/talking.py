"""A long real answer that is being written, from the chat's question to its row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import User

from gantry.chat import sending
from gantry.chat.generation import Writer
from gantry.chat.models import Message
from models_admin.models import ModelDefinition
from tests.functional.stack import wait_until
from tests.integration.real_switches.host import WAIT_SECONDS, Host


@dataclass
class Talk:
    """An answer of the active model, and the thread that writes it."""

    model: ModelDefinition
    answer: Message
    thread: threading.Thread

    @property
    def has_ended(self) -> bool:
        """Whether nobody writes it any more."""
        return not self.thread.is_alive()

    def stop(self) -> None:
        """Press Stop."""
        sending.stop(self.answer)
        self.join()

    def join(self) -> Message:
        """The answer, once it has ended."""
        self.thread.join(WAIT_SECONDS)
        assert self.has_ended
        self.answer.refresh_from_db()
        return self.answer


@contextmanager
def talking(host: Host, user: User, **sampling: Any) -> Iterator[Talk]:
    """A model that takes its time for each word is active, and `user` is getting a long answer from it."""
    model = host.add("talker", sampling=sampling)
    host.switch(model)
    answer = sending.ask(user, None, "Tell me a long story")
    thread = threading.Thread(target=lambda: asyncio.run(Writer(answer).run()))
    thread.start()
    talk = Talk(model, answer, thread)
    try:
        wait_until(lambda: Message.objects.get(pk=answer.pk).text, WAIT_SECONDS)
        yield talk
    finally:
        if not talk.has_ended:
            talk.stop()
