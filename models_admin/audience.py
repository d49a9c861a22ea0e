"""What of a live part depends on who looks at it."""

from __future__ import annotations

from dataclasses import dataclass

from gantry.live import JobSnapshot
from models_admin import actions, switch_requests
from models_admin.actor import Actor


@dataclass(frozen=True, slots=True)
class Audience:
    """People for whom the same HTML is right. Few different ones exist, so a part is rendered a few times for all browsers."""

    may_switch: bool
    may_change: bool
    may_cancel: bool  # the job that is shown
    may_answer: bool = False  # what others ask for

    @classmethod
    def of(cls, actor: Actor, job: JobSnapshot | None) -> Audience:
        """The audience that an actor belongs to while this job is shown."""
        return cls(
            may_switch=actor.may("switch_model"),
            may_change=actor.may("change_modeldefinition"),
            may_cancel=job is not None and actions.may_cancel(job, actor),
            may_answer=switch_requests.may_answer(actor),
        )
