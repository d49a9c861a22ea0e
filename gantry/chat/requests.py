"""What a chat page shows of requests: to the one who asked, how they stand; to those who answer, who waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.template.loader import render_to_string

from models_admin import switch_requests
from models_admin.actor import Actor
from models_admin.models import SwitchRequest


@dataclass(frozen=True, slots=True)
class RequestsView:
    """One person's part. `own` is what they asked for, `waiting` what others ask of them; `may_open` the page to answer on."""

    own: Sequence[SwitchRequest] = ()
    waiting: Sequence[SwitchRequest] = ()
    may_open: bool = False

    @property
    def is_empty(self) -> bool:
        """There is nothing to tell."""
        return not self.own and not self.waiting


def read(actor: Actor) -> RequestsView:
    """What there is to tell this person; one query, none to those who neither ask nor answer."""
    if switch_requests.may_answer(actor):
        may_open = actor.may("view_modeldefinition")
        return RequestsView(waiting=list(switch_requests.open_requests()), may_open=may_open)
    if actor.user is not None and switch_requests.may_ask(actor):
        return RequestsView(own=switch_requests.news_for(actor.user))
    return RequestsView()


def html(view: RequestsView) -> str:
    """For an out-of-band swap."""
    return render_to_string("chat/_requests.html", {"requests": view, "oob": True})
