"""How often models may be switched. The figures stand in the switch policy; an administrator changes them.

| limit | as delivered | whom it holds |
|---|---|---|
| switches of one person in a minute | 3 | each person with all keys of theirs; a key with a limit of its own is held to that one instead |
| switches in all in a minute | 10 | people and programs together |
| shortest stay of a model | 0 s | all but those who may cancel everybody's switches |
| pause after failed loads of a model | 5 s, doubled with each failure, at most 10 min | all but those who may cancel everybody's switches, whose try begins the count anew; a success ends it |

What counts is a switch, a restart, a background load or a call that becomes a job: one that only joins a running job, finds its model
active, or is refused for another reason costs nothing. Unloading is free. What Gantry does by itself, and what is typed on the server's
own command line, is not held.

When Redis is away, nobody can say how often models were switched. Then it is CLOSED for switches, which are refused as `Unavailable`
with one log line, and OPEN for everything that only reads, which never asks here. The two limits that come from the rows
(stay and pause) need no Redis.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from math import floor
from typing import Any

import structlog
from django.conf import settings
from django.utils import timezone

from gantry.planning.states import ErrorCode, JobKind, JobState
from gantry.ratelimit.base import LimiterAway, Refusal, Window
from gantry.ratelimit.moving_window import limiter_for
from models_admin.actor import Actor
from models_admin.exceptions import RateLimited, Unavailable
from models_admin.models import ModelDefinition, ModelInstance, SwitchJob, SwitchPolicy
from models_admin.plans import Wish
from models_admin.templatetags.gantry_format import seconds

log = structlog.get_logger(__name__)

TRIED_ANYWAY = "tried_anyway"  # option of a job that began the count of failures anew
_COUNTED = frozenset({JobKind.SWITCH, JobKind.RESTART, JobKind.PRELOAD, JobKind.CALL})
_LEAVING = frozenset({JobKind.SWITCH, JobKind.CALL})  # another model serves afterwards
_FAILURES_LOOKED_AT = 20
# The model was tried and did not come up; not: no room was found, or something else was in the way.
_FAILED_LOADS = frozenset(
    {
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.FILE_DAMAGED,
        ErrorCode.BAD_PARAMETER,
        ErrorCode.WRONG_CPU,
        ErrorCode.KILLED,
        ErrorCode.CRASHED,
        ErrorCode.LOAD_FAILED,
        ErrorCode.LOAD_STALLED,
        ErrorCode.LOAD_TIMEOUT,
        ErrorCode.VERIFY_FAILED,
    }
)


def check(wish: Wish, actor: Actor, policy: SwitchPolicy) -> dict[str, Any]:
    """Whether it is too soon for this model, as the rows tell; costs nothing.

    Returns:
        Options for the job that is made of the wish.

    Raises:
        RateLimited: another model has not served long enough, or this one failed a short time ago.
    """
    if not _holds(wish, actor):
        return {}
    is_free = actor.may("cancel_any_job")
    if not is_free:
        _check_stay(wish, policy)
    left, failures = _pause(wish.target, policy) if wish.target else (0.0, 0)
    if left > 0 and not is_free:
        times = "failed to load" if failures == 1 else f"failed to load {failures} times in a row"
        raise _too_soon(f"{wish.target_name} {times}, so it is left alone for a while.", left)
    return {TRIED_ANYWAY: True} if left > 0 else {}


def spend(wish: Wish, actor: Actor, policy: SwitchPolicy) -> None:
    """Count a switch that is about to become a job.

    Raises:
        RateLimited: there were too many within the last minute.
        Unavailable: nobody can say, because Redis is away.
    """
    if not _holds(wish, actor):
        return
    try:
        refusal = limiter_for(settings.LIMITS_URL).take(_windows(actor, policy))
    except LimiterAway as exc:
        log.warning("switch_limits_away", reason=str(exc))
        raise Unavailable(
            "The message broker does not answer, so nobody can say how often models were switched.",
            "Try again when it is back.",
        ) from exc
    if refusal is not None:
        raise _too_soon(_too_often(refusal), refusal.wait_seconds)


def _holds(wish: Wish, actor: Actor) -> bool:
    return actor.user is not None and wish.kind in _COUNTED and bool(settings.LIMITS_URL)


def _windows(actor: Actor, policy: SwitchPolicy) -> list[Window]:
    """The windows that a switch of this actor uses; the common one last, so that a race cannot spend it in vain."""
    key, own = actor.key, Window(f"user-{actor.user.pk if actor.user else 0}", policy.switches_per_user)
    if key is not None and key.switches_per_minute is not None:
        own = Window(f"key-{key.pk}", key.switches_per_minute)
    return [window for window in (own, Window("all", policy.switches_in_all)) if window.most]


def _too_often(refusal: Refusal) -> str:
    most = refusal.window.most
    times = "once" if most == 1 else f"{most} times"
    if refusal.window.key == "all":
        return f"Models were switched {times} within a minute by everybody together; more are not allowed."
    who = "This key has" if refusal.window.key.startswith("key-") else "You have"
    return f"{who} switched models {times} within a minute; more are not allowed."


def _too_soon(sentence: str, wait_seconds: float) -> RateLimited:
    # A window is free again only once its second is over, so a whole number is rounded up too.
    wait = floor(wait_seconds) + 1
    return RateLimited(sentence, f"Try again in {seconds(wait)}.", retry_after=wait)


def _check_stay(wish: Wish, policy: SwitchPolicy) -> None:
    if not policy.stay_seconds or wish.kind not in _LEAVING:
        return
    active = ModelInstance.objects.filter(is_active=True).exclude(model=wish.target).select_related("model").first()
    if active is None:
        return
    left = _seconds_until(_active_since(active), policy.stay_seconds)
    if left > 0:
        stay = seconds(policy.stay_seconds)
        raise _too_soon(f"{active.model.name} has only begun to serve; each model stays for at least {stay}.", left)


def _active_since(active: ModelInstance) -> datetime:
    """When it began to serve: at the end of the switch to it, or when it was loaded, if nobody switched."""
    ended = SwitchJob.objects.filter(
        target=active.model, kind__in=(JobKind.SWITCH, JobKind.RESTART), state=JobState.SUCCEEDED
    )
    last: SwitchJob | None = ended.only("finished_at").order_by("-id").first()
    moments = [active.loaded_at or active.created_at, last.finished_at if last else None]
    return max(moment for moment in moments if moment)


def _pause(target: ModelDefinition, policy: SwitchPolicy) -> tuple[float, int]:
    """(seconds for which the model is still left alone, failures in a row)."""
    failed_at, failures = _failures(target)
    if failed_at is None or not policy.cool_down_seconds:
        return 0.0, failures
    pause = min(policy.cool_down_seconds * 2 ** (failures - 1), policy.cool_down_most_seconds)
    return _seconds_until(failed_at, pause), failures


def _failures(target: ModelDefinition) -> tuple[datetime | None, int]:
    """When the model last failed to load, and how often in a row since it last came up or somebody began anew."""
    ended = SwitchJob.objects.filter(
        target=target, kind__in=_COUNTED, state__in=(JobState.SUCCEEDED, JobState.FAILED), finished_at__isnull=False
    )
    jobs = ended.only("state", "error_code", "options", "finished_at").order_by("-id")[:_FAILURES_LOOKED_AT]
    last, failures = None, 0
    for job in jobs:
        if job.state == JobState.SUCCEEDED:
            break
        if job.error_code in _FAILED_LOADS:
            last, failures = last or job.finished_at, failures + 1
        if TRIED_ANYWAY in job.options:
            break
    return last, failures


def _seconds_until(begin: datetime, pause_seconds: float) -> float:
    return (begin + timedelta(seconds=pause_seconds) - timezone.now()).total_seconds()
