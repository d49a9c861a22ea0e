"""Carrying out what a schedule says: each person in a thread of their own, as they are in life."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from django.db import connection

from gantry.chat.models import Message
from models_admin.models import SwitchJob
from tests.chaos.people import Person, Reply
from tests.chaos.schedule import ON_A_MODEL, Deed
from tests.chaos.world import Model, World

Thing = TypeVar("Thing")


@dataclass
class Story:
    """What really happened in a round, as lines with the seconds since its start."""

    began_at: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)
    broken: list[str] = field(
        default_factory=list
    )  # answers that were a fault of Gantry's own, and what could not be done
    struck_at: float = 0.0  # when the last strike was over, seconds since the epoch

    @property
    def seconds(self) -> float:
        """Since the start of the round."""
        return time.monotonic() - self.began_at

    def tell(self, text: str) -> None:
        """Add a line."""
        self.lines.append((self.seconds, text))

    def as_text(self) -> str:
        """All of it, in the order of time."""
        return "\n".join(f"  {seconds:6.2f} s  {text}" for seconds, text in sorted(self.lines))


def everybody_acts(world: World, deeds: Sequence[Deed], story: Story) -> list[threading.Thread]:
    """Start one thread for each person, who does their deeds in order; the caller joins them."""
    threads = [
        threading.Thread(
            target=_act_in_turn,
            args=(world, person, [deed for deed in deeds if deed.person == number], story),
            name=f"person-{person.name}",
        )
        for number, person in enumerate(world.people)
    ]
    for thread in threads:
        thread.start()
    return threads


def _act_in_turn(world: World, person: Person, deeds: Sequence[Deed], story: Story) -> None:
    try:
        for deed in deeds:
            time.sleep(max(0.0, deed.at_seconds - story.seconds))
            reply = _DOING[deed.what](world, person, deed)
            if reply is not None:
                _note(story, person, deed, reply, world.models[deed.model])
    except Exception as exc:  # noqa: BLE001 - what was not done was not tested, which must not pass for "held"
        story.broken.append(f"{person.name} could not go on: {exc!r}")
    finally:
        connection.close()


def _note(story: Story, person: Person, deed: Deed, reply: Reply, model: Model) -> None:
    outcome = f"lost ({reply.reason})" if reply.is_lost else f"{reply.status} {reply.location}".strip()
    details = f" {model.model_id}{' confirmed' if deed.is_confirmed else ''}" if deed.what in ON_A_MODEL else ""
    line = f"{person.name} {deed.what}{details}: {outcome}"
    story.tell(line)
    if reply.is_broken:
        story.broken.append(line)


def _switch(world: World, person: Person, deed: Deed) -> Reply | None:
    if not person.may_use_admin:
        return _chat_switch(world, person, deed)
    data = {"confirm": "1"} if deed.is_confirmed else {}
    if deed.context:
        data["context"] = str(deed.context)
    return person.post(f"/admin/models/{world.models[deed.model].pk}/switch/", data)


def _chat_switch(world: World, person: Person, deed: Deed) -> Reply | None:
    data = {"confirmed": "1", "next": "/"} | ({"confirm": "1"} if deed.is_confirmed else {})
    return person.post(f"/models/{world.models[deed.model].pk}/switch/", data)


def _on_model(verb: str, **data: str) -> Callable[[World, Person, Deed], Reply | None]:
    """A button of the Models tab; whoever may not see the tab opens the chat page instead."""

    def act(world: World, person: Person, deed: Deed) -> Reply | None:
        if not person.may_use_admin:
            return person.get("/")
        return person.post(f"/admin/models/{world.models[deed.model].pk}/{verb}/", data)

    return act


def _unload_all(world: World, person: Person, _deed: Deed) -> Reply | None:
    if not person.may_use_admin:
        return person.get("/")
    return person.post(f"/admin/pools/{world.pool_pk}/unload-all/")


def _cancel(world: World, person: Person, deed: Deed) -> Reply | None:
    job = _some_unfinished_job(deed.choice)
    if job is None or not person.may_use_admin:
        return _chat_cancel(world, person, deed)
    return person.post(f"/admin/switches/{job}/cancel/")


def _chat_cancel(_world: World, person: Person, deed: Deed) -> Reply | None:
    job = _some_unfinished_job(deed.choice)
    return person.post(f"/jobs/{job}/cancel/", {"next": "/"}) if job else None


def _some_unfinished_job(choice: float) -> int | None:
    jobs = list(SwitchJob.objects.unfinished().order_by("pk").values_list("pk", flat=True))
    return pick(jobs, choice)


def _ask(_world: World, person: Person, deed: Deed) -> Reply | None:
    # Half of the questions go on with a conversation, where an answer may still be being written.
    conversation = pick(person.conversations[-3:], deed.choice) if deed.is_confirmed else None
    return person.ask_model(conversation)


def _stop(_world: World, person: Person, deed: Deed) -> Reply | None:
    answers = Message.objects.being_written().filter(conversation__user__username=person.name)
    answer = pick(list(answers.values_list("pk", flat=True)), deed.choice)
    return person.post(f"/messages/{answer}/stop/") if answer else None


def pick(things: Sequence[Thing], choice: float) -> Thing | None:
    """One of the things, by a figure from 0 to 1; None when there are none."""
    return things[min(int(choice * len(things)), len(things) - 1)] if things else None


_DOING: dict[str, Callable[[World, Person, Deed], Reply | None]] = {
    "switch": _switch,
    "chat_switch": _chat_switch,
    "ask": _ask,
    "cancel": _cancel,
    "chat_cancel": _chat_cancel,
    "unload": _on_model("unload"),
    "restart": _on_model("restart"),
    "preload": _on_model("preload"),
    "unload_all": _unload_all,
    "pin": _on_model("pin", is_pinned="1"),
    "unpin": _on_model("pin", is_pinned="0"),
    "stop": _stop,
}
