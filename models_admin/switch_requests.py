"""Asking for a model: somebody who may not switch asks, somebody who may answers. The only code that moves a request.

open -> approved | declined | withdrawn | expired

To ask takes the right to chat; to see what others ask for, the right to view requests; to answer, the right to switch besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from gantry import live
from models_admin import actions, audit
from models_admin.actions import SwitchDecision
from models_admin.actor import SYSTEM, Actor
from models_admin.audit import AuditEvent
from models_admin.exceptions import ActionRefused, NotAllowed, NotDownloaded, RequestAnswered
from models_admin.job_requests import need_permission
from models_admin.models import ModelDefinition, ModelInstance, SwitchJob, SwitchRequest

MOST_OPEN = 5  # of one person
MOST_CHARACTERS = 300
NEWS = timedelta(hours=1)  # how long an answer is shown to the one who asked

_State = SwitchRequest.State


def may_ask(actor: Actor) -> bool:
    """Whether somebody would ask for a model, since they may chat and not switch."""
    return actor.user is not None and actor.may("chat") and not actor.may("switch_model")


def may_answer(actor: Actor) -> bool:
    """Whether somebody sees what others ask for and may do it."""
    return actor.may("switch_model") and actor.may("view_switchrequest")


def check_askable(model: ModelDefinition, *, actor: Actor) -> None:
    """Before somebody is shown how to ask.

    Raises:
        ActionRefused: as `ask` would.
    """
    _asker(model, actor)


def ask(model: ModelDefinition, *, actor: Actor, reason: str = "") -> SwitchRequest:
    """Ask those who may switch for a model. Asking twice for the same one gives the request that is open.

    Raises:
        NotAllowed: the actor may not chat, or has no need to ask.
        NotDownloaded: nobody could switch to it.
        ActionRefused: it answers already, or the person has asked for too many.
    """
    user = _asker(model, actor)
    with transaction.atomic():
        _expire(SwitchRequest.objects.outdated().filter(user=user))
        found = _open_one(user, model)
        if found is not None:
            return found
        if SwitchRequest.objects.open().filter(user=user).count() >= MOST_OPEN:
            raise ActionRefused(
                f"You have asked for {MOST_OPEN} models already.", "Withdraw one, or wait for an answer."
            )
        try:
            with transaction.atomic():
                request = SwitchRequest.objects.create(user=user, model=model, reason=_short(reason))
        except IntegrityError:  # a second click was faster: one_open_request_per_person_and_model
            return SwitchRequest.objects.open().get(user=user, model=model)
        after = {"reason": request.reason}
        audit.write(AuditEvent.MODEL_ASK, actor=actor, object_text=model.name, after=after)
        _tell([request])
    return request


def check_answerable(request: SwitchRequest, *, actor: Actor) -> None:
    """Before somebody is shown how to answer.

    Raises:
        NotAllowed: the actor may not answer requests.
        RequestAnswered: it is not open any more.
    """
    _need_answerer(actor, request)
    if not request.is_open:
        raise _answered(request)


def approve(
    request: SwitchRequest, *, actor: Actor, confirm: bool = False, plan_was_shown: bool = False
) -> SwitchDecision:
    """Switch to the model in the approver's name, with the same checks, limits and confirmations as any switch.

    Everybody who asked for this model is answered with it. Until what needs confirmation is confirmed, nothing changes.

    Raises:
        NotAllowed: the actor may not answer requests.
        RequestAnswered: it is not open any more.
        ActionRefused: the switch is not possible now; the request stays open.
    """
    _need_answerer(actor, request)
    with transaction.atomic():
        same = _claim(request, model=request.model_id)
        decision = actions.request_switch(request.model, actor=actor, confirm=confirm, plan_was_shown=plan_was_shown)
        if decision.status == "needs_confirmation":
            return decision
        for one in same:
            _answer(one, _State.APPROVED, AuditEvent.MODEL_ASK_APPROVE, actor, job=decision.job)
        _tell(same)
    return decision


def decline(request: SwitchRequest, *, actor: Actor, answer: str = "") -> None:
    """Say no, with a word to the one who asked.

    Raises:
        NotAllowed: the actor may not answer requests.
        RequestAnswered: it is not open any more.
    """
    _need_answerer(actor, request)
    with transaction.atomic():
        for one in _claim(request):
            _answer(one, _State.DECLINED, AuditEvent.MODEL_ASK_DECLINE, actor, answer=_short(answer))
        _tell([request])


def withdraw(request: SwitchRequest, *, actor: Actor) -> None:
    """Take back what one has asked for; twice, or after an answer, changes nothing.

    Raises:
        NotAllowed: somebody else asked.
    """
    if actor.user is None or actor.user.pk != request.user_id or not actor.may("chat"):
        raise NotAllowed("Only the one who asked can withdraw this.")
    with transaction.atomic():
        try:
            held = _claim(request)
        except RequestAnswered:
            return
        for one in held:
            _answer(one, _State.WITHDRAWN, AuditEvent.MODEL_ASK_WITHDRAW, actor)
        _tell(held)


def expire_outdated() -> int:
    """End the requests that nobody has answered for a day; how many there were."""
    with transaction.atomic():
        return _expire(SwitchRequest.objects.outdated())


def open_requests() -> models.QuerySet[SwitchRequest]:
    """What people ask for and nobody has answered, oldest first, with person and model."""
    return SwitchRequest.objects.open().order_by("pk")


def news_for(user: User) -> list[SwitchRequest]:
    """What somebody asked for that is open or was answered a short time ago, newest first: at most one for each model.

    An approval is news as long as its switch is under way.
    """
    now = timezone.now()
    is_fresh = models.Q(answered_at__gt=now - NEWS, state__in=(_State.APPROVED, _State.DECLINED))
    asked = SwitchRequest.objects.select_related("model", "job").filter(user=user)
    latest: dict[int, SwitchRequest] = {}
    for request in asked.filter(models.Q(state=_State.OPEN) | is_fresh).order_by("-pk")[: 2 * MOST_OPEN]:
        latest.setdefault(request.model_id, request)
    return [request for request in latest.values() if _is_news(request)]


def last_of(user: User, model: ModelDefinition) -> SwitchRequest | None:
    """What somebody last asked about this model."""
    return SwitchRequest.objects.select_related("model", "job").filter(user=user, model=model).order_by("-pk").first()


def _is_news(request: SwitchRequest) -> bool:
    if request.state == _State.APPROVED:
        return request.job is not None and not request.job.is_finished
    return not request.is_outdated


def _asker(model: ModelDefinition, actor: Actor) -> User:
    need_permission(actor, "chat", "ask for models")
    if actor.user is None or not actor.may_use(model):
        raise NotAllowed(f"You may not ask for {model.name}.")
    if actor.may("switch_model"):
        raise NotAllowed(
            "You may switch models yourself, so there is nobody to ask.", "Choose the model to switch to it."
        )
    if not model.is_available:
        raise NotDownloaded(f"{model.name} is not downloaded.", "Ask an administrator for its file.")
    if ModelInstance.objects.filter(model=model, is_active=True).exists():
        raise ActionRefused(f"{model.name} is active already.", "You can chat with it now.")
    return actor.user


def _need_answerer(actor: Actor, request: SwitchRequest) -> None:
    if not may_answer(actor):
        raise NotAllowed("You may not answer what others ask for.", "Operators and administrators do.")
    if not actor.may_use(request.model):
        raise NotAllowed(f"This key may not be used for {request.model.name}.", "Use another key, or ask its owner.")


def _open_one(user: User, model: ModelDefinition) -> SwitchRequest | None:
    return SwitchRequest.objects.open().filter(user=user, model=model).first()


def _claim(request: SwitchRequest, **wanted: int) -> list[SwitchRequest]:
    """The request, or all open ones that are `wanted`, locked until the end of the transaction.

    All at once, by number, and before the pool and the audit log, which a switch locks after them: so no two wait for each other.

    Raises:
        RequestAnswered: it is not open any more.
    """
    found = SwitchRequest.objects.open().select_for_update(of=("self",)).filter(**wanted or {"pk": request.pk})
    held = list(found.order_by("pk"))
    if not any(one.pk == request.pk for one in held):
        raise _answered(SwitchRequest.objects.get(pk=request.pk))
    return held


def _answered(request: SwitchRequest) -> RequestAnswered:
    return RequestAnswered(f"This is not open any more: {request.words}.", "Look at the list again.")


def _answer(
    request: SwitchRequest,
    state: SwitchRequest.State,
    event: AuditEvent,
    actor: Actor,
    *,
    answer: str = "",
    job: SwitchJob | None = None,
) -> None:
    """Write the end of a request and its audit entry, which names both: who asked and who answered."""
    request.state, request.answered_at, request.answer, request.job = state, timezone.now(), answer, job
    request.answered_by_name = actor.name
    request.save(update_fields=["state", "answered_at", "answered_by_name", "answer", "job"])
    after = {"asked_by": request.user.get_username(), "reason": request.reason, "answered_by": actor.name}
    if answer:
        after["answer"] = answer
    audit.write(
        event, actor=actor, object_text=request.model.name, job=job, before={"state": _State.OPEN.value}, after=after
    )


def _expire(outdated: models.QuerySet[SwitchRequest]) -> int:
    found = list(outdated.select_related("user", "model").select_for_update(of=("self",)).order_by("pk"))
    for request in found:
        _answer(request, _State.EXPIRED, AuditEvent.MODEL_ASK_EXPIRE, SYSTEM)
    if found:
        _tell(found)
    return len(found)


def _tell(requests: Sequence[SwitchRequest]) -> None:
    people = sorted({request.user_id for request in requests})
    live.publish_requests_changed(people, event_id=f"requests-{timezone.now().timestamp()}")


def _short(text: str) -> str:
    return " ".join(text.split())[:MOST_CHARACTERS]
