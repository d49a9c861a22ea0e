"""Turning a wish into a job: who may, what else is under way on the same memory, whether it can fit; the row and its audit entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from django.db import transaction
from django.utils import timezone

from gantry import live
from gantry.planning.exceptions import DeviceUnknown, DoesNotFit
from gantry.planning.states import InstanceState, JobKind, JobState
from gantry.planning.types import SwitchPlan
from models_admin import audit, fitting, job_moves, limits, load_checks, plans
from models_admin.actor import SYSTEM, Actor
from models_admin.exceptions import AnotherJobRunning, InvalidDefinition, NotAllowed, RuntimeUnusable
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, SwitchJob, SwitchPolicy
from models_admin.plans import Wish
from models_admin.runtime_access import model_limit
from models_admin.snapshots import job_snapshot

HALF_DONE_PERCENT = 50.0  # from here on a running switch is superseded only when that is confirmed

_EVENTS = {
    JobKind.SWITCH: audit.AuditEvent.SWITCH_REQUEST,
    JobKind.UNLOAD: audit.AuditEvent.UNLOAD_REQUEST,
    JobKind.UNLOAD_ALL: audit.AuditEvent.UNLOAD_REQUEST,
    JobKind.RESTART: audit.AuditEvent.RESTART_REQUEST,
    JobKind.PRELOAD: audit.AuditEvent.PRELOAD_REQUEST,
    JobKind.CALL: audit.AuditEvent.CALL_REQUEST,
}
_DOING = {
    JobKind.SWITCH: "switch models",
    JobKind.UNLOAD: "unload models",
    JobKind.UNLOAD_ALL: "unload models",
    JobKind.RESTART: "restart models",
    JobKind.PRELOAD: "load models",
    JobKind.CALL: "switch models",
}
_UNDER_WAY = {
    JobKind.SWITCH: "Switching to {}",
    JobKind.UNLOAD: "Unloading {}",
    JobKind.UNLOAD_ALL: "Unloading {}",
    JobKind.RESTART: "Restarting {}",
    JobKind.PRELOAD: "Loading {} in the background",
    JobKind.CALL: "A call to {}",
}


@dataclass(frozen=True, slots=True)
class SwitchDecision:
    """What became of a request.

    accepted: `job` is new. joined: `job` does the same already. already_loaded: there is nothing to do.
    needs_confirmation: ask again with `confirm`, because `job`, another switch, is half done or more, or because `plan`
    unloads something and policy wants that confirmed.
    """

    status: Literal["accepted", "already_loaded", "joined", "needs_confirmation"]
    job: SwitchJob | None = None
    plan: SwitchPlan | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """What the one who asks has agreed to."""

    takes_over: bool = False  # from a switch that is half done
    unloads: bool = False  # what the plan says, which was shown


def request(
    wish: Wish, *, actor: Actor, consent: Consent = Consent(), options: dict[str, Any] | None = None
) -> SwitchDecision:
    """Make a job of a wish, or say why there is none.

    Args:
        options: kept with the job beside the context, such as the messages of a call.

    Raises:
        ActionRefused: one of its kinds; nothing was written.
    """
    need_permission(actor, "switch_model", _DOING[wish.kind])
    if wish.unpinned:
        need_permission(actor, "change_modeldefinition", "unpin models")
    _need_allowed_models(actor, wish)
    if wish.target:
        load_checks.check_possible(wish.target, wish.kind)
        _check_beside(wish.target, wish.kind)
    with transaction.atomic():
        # Requests for one pool decide one after the other, so that two at once cannot both see it free.
        MemoryPool.objects.select_for_update().get(pk=wish.pool.pk)
        return _decide(wish, actor, consent, options or {})


def _check_beside(target: ModelDefinition, kind: JobKind) -> None:
    """A server that holds as many models as it can would give one up, which a background load must not do."""
    if kind == JobKind.PRELOAD and plans.same_server(target):
        limit = model_limit(target.runtime)
        words = (
            "one model at a time, and it holds one" if limit == 1 else f"{limit} models at a time, and it holds them"
        )
        raise RuntimeUnusable(f"{target.runtime.name} holds {words}.", f"Switch to {target.name} instead.")


def _decide(wish: Wish, actor: Actor, consent: Consent, options: dict[str, Any]) -> SwitchDecision:
    # Locked before anything is written down: a worker that ends one of them holds its row and then waits for the end of the audit log.
    jobs = SwitchJob.objects.unfinished().select_for_update(of=("self",)).filter(pool=wish.pool)
    unfinished = list(jobs.select_related("target").order_by("id"))
    met = _meet(unfinished, wish, consent)
    if met is not None:
        return met
    if not unfinished and _is_done_already(wish):
        return SwitchDecision("already_loaded")
    policy = SwitchPolicy.current()
    options = {**options, **limits.check(wish, actor, policy)}
    # While another job is at work nobody can say what will be loaded and free when it has ended: the worker plans then.
    plan = plan_or_refuse(wish, policy) if not unfinished else plans.empty_plan(wish)
    if policy.confirm_before_unload and _wants_consent(wish, plan, unfinished, consent, actor):
        return SwitchDecision("needs_confirmation", plan=plan)
    limits.spend(wish, actor, policy)
    unpinned = ModelDefinition.objects.filter(model_id__in=wish.unpinned, is_pinned=True)
    set_pins([(model, False) for model in unpinned], actor=actor)
    job = create_job(wish, plan, actor, options, consent)
    _supersede(unfinished, job, actor)
    return SwitchDecision("accepted", job, plan)


def plan_or_refuse(wish: Wish, policy: SwitchPolicy | None = None) -> SwitchPlan:
    """The plan as of the last reading of the memory, under the present policy unless one is given.

    Raises:
        DoesNotFitNow: there is none, with the ways out.
        InvalidDefinition: the model is to be on a device that is not there.
    """
    try:
        return plans.make_plan(wish, policy=policy)
    except DeviceUnknown as exc:
        raise InvalidDefinition(f"{wish.target_name} cannot be placed: {exc}", [("devices", str(exc))]) from exc
    except DoesNotFit as exc:
        raise fitting.refusal(wish, exc) from exc


def switch_to_take_over(model: ModelDefinition) -> SwitchJob | None:
    """The unfinished switch to another model that a switch to this one would cancel and take over from."""
    jobs = SwitchJob.objects.unfinished().filter(pool=model.runtime.pool_id, kind__in=_GIVING_WAY)
    return jobs.exclude(target=model).select_related("target").order_by("-id").first()


def create_job(
    wish: Wish,
    plan: SwitchPlan,
    actor: Actor,
    options: dict[str, Any] | None = None,
    consent: Consent = Consent(),
    *,
    is_sent: bool = True,
) -> SwitchJob:
    """Write the row, its first event and its audit entry, inside a transaction. One that is not sent waits until another job wakes it."""
    active = ModelInstance.objects.filter(is_active=True).values_list("model__name", flat=True).first()
    job = SwitchJob.objects.create(
        kind=wish.kind,
        pool=wish.pool,
        target=wish.target,
        target_name=wish.target_name,
        from_name=active or "",
        requested_by=actor.user,
        requested_by_name=actor.name,
        via=actor.via,
        options={**(options or {}), **({"context": wish.context} if wish.context else {})},
        plan=plan.as_dict(),
        expected_seconds=plan.expected_seconds,
        eta_seconds=plan.expected_seconds if plan.is_time_known else None,
        heartbeat_at=timezone.now(),
    )
    audit.write(
        _EVENTS[wish.kind],
        actor=actor,
        object_text=wish.target_name,
        job=job,
        before={"active": job.from_name},
        after={"plan": job.plan, "confirmed": consent.takes_over or consent.unloads},
    )
    if is_sent:  # before the pages are told: the worker is on its way meanwhile
        job_moves.enqueue_on_commit(job)
    job_moves.record_event(job, text="Asked for")
    return job


def set_pins(pins: Iterable[tuple[ModelDefinition, bool]], *, actor: Actor) -> None:
    """Pin or unpin models, with an audit entry for each that changes. Inside a transaction.

    All rows before the first entry, and by number: whoever writes an entry holds the end of the audit log until the end of the
    transaction. Two that each held that or a model and wanted the other would wait for each other for ever (PostgreSQL ends one).
    """
    changed = [(model, is_pinned) for model, is_pinned in sorted(pins, key=_number) if _pin(model, is_pinned)]
    for model, is_pinned in changed:
        audit.write(
            audit.AuditEvent.MODEL_PIN,
            actor=actor,
            object_text=model.name,
            before={"is_pinned": not is_pinned},
            after={"is_pinned": is_pinned},
        )
        live.publish_models_changed([model.model_id], event_id=f"pin-{model.pk}-{timezone.now().timestamp()}")


def _number(pin: tuple[ModelDefinition, bool]) -> int:
    return pin[0].pk


def _pin(model: ModelDefinition, is_pinned: bool) -> bool:
    """Whether that changed the row."""
    others = ModelDefinition.objects.filter(pk=model.pk).exclude(is_pinned=is_pinned)
    model.is_pinned = is_pinned
    return bool(others.update(is_pinned=is_pinned))


def need_permission(actor: Actor, permission: str, doing: str) -> None:
    """Raises NotAllowed when the actor does not hold the permission."""
    if not actor.may(permission):
        raise NotAllowed(f"You may not {doing}.", "Ask an administrator.")


def need_status(actor: Actor) -> None:
    """Raises NotAllowed when the actor may not see which model serves and how a switch goes."""
    if not actor.may_see_status:
        raise NotAllowed("You may not see the state of models.", "Ask an administrator.")


def _need_allowed_models(actor: Actor, wish: Wish) -> None:
    """Raises NotAllowed when a key is for other models. What a switch unloads may be others; what it unpins may not."""
    own = set(actor.key.model_ids) if actor.key else set()
    if not own:
        return
    hint = "Use another key, or ask its owner."
    if wish.target is None or wish.target.model_id not in own:
        raise NotAllowed(f"This key may not be used for {wish.target_name}.", hint)
    if others := sorted(set(wish.unpinned) - own):
        raise NotAllowed(f"This key may not be used for {others[0]}, so it cannot unpin it.", hint)


def put_back_after(interrupted: SwitchJob) -> SwitchJob | None:
    """Jobs in the system's own name that bring back what a job took away whose worker died, all of it; the first of them.

    A switch to the model that served, unless another one serves by now, and a load in the background for each of the others.
    None when nothing is owed, or when somebody has asked for something else meanwhile, which then owes it.
    """
    with transaction.atomic():
        pool = MemoryPool.objects.select_for_update().get(pk=interrupted.pool_id)
        wishes = [] if SwitchJob.objects.unfinished().filter(pool=pool).exists() else _returns(interrupted, pool)
        # The first one is sent, the others follow as each job wakes the next.
        jobs = [create_job(wish, plans.empty_plan(wish), SYSTEM, is_sent=wish is wishes[0]) for wish in wishes]
        if not jobs:
            return None
        SwitchJob.objects.filter(pk=interrupted.pk).update(superseded_by=jobs[0], aftermath=_being_put_back(jobs))
    return jobs[0]


def _returns(interrupted: SwitchJob, pool: MemoryPool) -> list[Wish]:
    """What would bring back everything that a job owes, the model that served first."""
    was_active = _owed_by(interrupted)
    models = ModelDefinition.objects.with_runtime().filter(model_id__in=was_active, runtime__pool=pool)
    ordered = sorted(models, key=lambda model: (not was_active[model.model_id], model.pk))
    serves = ModelInstance.objects.filter(is_active=True).exists()
    loaded = set(ModelInstance.objects.filter(state=InstanceState.LOADED).values_list("model_id", flat=True))
    wishes: list[Wish] = []
    for model in ordered:
        if was_active[model.model_id] and not serves:
            wishes.append(Wish(JobKind.SWITCH, pool, model))
            serves = True
        elif model.pk not in loaded:
            wishes.append(Wish(JobKind.PRELOAD, pool, model))
    return wishes


def _owed_by(interrupted: SwitchJob) -> dict[str, bool]:
    """Model id -> whether it served, of everything that a job took away and has not brought back.

    Nothing for a job that had done its work but for its last word, for one that was to take everything away, and for a return
    that was interrupted itself: what kills its worker twice is not tried a third time.
    """
    is_restart = interrupted.kind == JobKind.RESTART
    is_return = interrupted.via == SYSTEM.via and not is_restart
    is_done = ModelInstance.objects.filter(model=interrupted.target, is_active=True).exists()
    if is_return or is_done or interrupted.kind == JobKind.UNLOAD_ALL:
        return {}
    # It may have died before it took over what it owes for others.
    earlier = interrupted.supersedes.exclude(state=JobState.SUCCEEDED)
    owed = {entry["model_id"]: entry["was_active"] for job in [*earlier, interrupted] for entry in job.unloaded}
    if is_restart and interrupted.target:
        owed.setdefault(interrupted.target.model_id, True)
    return owed


def _being_put_back(jobs: Sequence[SwitchJob]) -> str:
    names = " and ".join(job.target_name for job in jobs)
    if len(jobs) == 1:
        return f"{names} is being put back by job {jobs[0].pk}."
    return f"{names} are being put back by jobs {' and '.join(str(job.pk) for job in jobs)}."[:500]


# What a switch takes over from. A preload is nobody's wait, so it gives way to anything.
_GIVING_WAY = frozenset({JobKind.SWITCH, JobKind.PRELOAD})


def _meet(unfinished: Sequence[SwitchJob], wish: Wish, consent: Consent) -> SwitchDecision | None:
    """What a wish finds that meets jobs which have not ended, the latest of them last. None: it may go on.

    The same job is joined. A switch takes over from a switch (that is half done: only when confirmed), anything from a preload;
    anything else waits.
    """
    if not unfinished:
        return None
    running = unfinished[-1]
    if _is_same(running, wish):
        return SwitchDecision("joined", running)
    if wish.kind != JobKind.PRELOAD and all(job.kind == JobKind.PRELOAD for job in unfinished):
        return None
    if wish.kind == JobKind.SWITCH and all(JobKind(job.kind) in _GIVING_WAY for job in unfinished):
        half_done = next((job for job in unfinished if _is_half_done(job)), None)
        return SwitchDecision("needs_confirmation", half_done) if half_done and not consent.takes_over else None
    doing = _UNDER_WAY[JobKind(running.kind)].format(running.target_name)
    raise AnotherJobRunning(
        f"{doing} is under way (asked by {running.requested_by_name}).",
        "Wait until it has ended, or cancel it first.",
        running,
    )


def _is_same(job: SwitchJob, wish: Wish) -> bool:
    return (
        job.kind == wish.kind
        and wish.kind != JobKind.CALL  # each call has messages of its own
        and job.target_id == (wish.target.pk if wish.target else None)
        and job.options.get("context") == wish.context
        and job.cancel_requested_at is None
    )


def _is_half_done(job: SwitchJob) -> bool:
    return job.kind == JobKind.SWITCH and job.percent >= HALF_DONE_PERCENT and job.cancel_requested_at is None


def _is_done_already(wish: Wish) -> bool:
    if wish.kind not in {JobKind.SWITCH, JobKind.PRELOAD}:
        return False
    held = ModelInstance.objects.filter(model=wish.target, state=InstanceState.LOADED)
    if wish.context is not None and not held.filter(parameters=plans.parameters_of(wish)).exists():
        return False
    return held.exists() if wish.kind == JobKind.PRELOAD else held.filter(is_active=True).exists()


def _wants_consent(
    wish: Wish, plan: SwitchPlan, unfinished: Sequence[SwitchJob], consent: Consent, actor: Actor
) -> bool:
    """Whether the plan is one to confirm that nobody has confirmed yet. What Gantry does by itself asks nobody."""
    if wish.kind not in {JobKind.SWITCH, JobKind.CALL} or consent.unloads or actor == SYSTEM:
        return False
    return bool(plan.evicted or unfinished)


def _supersede(unfinished: Sequence[SwitchJob], by: SwitchJob, actor: Actor) -> None:
    """End the jobs that `by` takes over from: one that waits at once, one at work by asking its worker to stop."""
    for job in unfinished:
        SwitchJob.objects.filter(pk=job.pk).update(superseded_by=by)
        SwitchJob.objects.filter(pk=job.pk, cancel_requested_at=None).update(
            cancel_requested_at=timezone.now(), cancelled_by_name=actor.name
        )
        job.refresh_from_db()
        if job.state == JobState.WAITING:
            # What it had taken over itself goes to the new one.
            SwitchJob.objects.filter(superseded_by=job).update(superseded_by=by)
            job_moves.finish(
                job, JobState.SUPERSEDED, text=f"Superseded by the switch to {by.target_name}", actor=actor
            )
        else:
            audit.write(
                audit.AuditEvent.JOB_CANCEL,
                actor=actor,
                object_text=job.target_name,
                job=job,
                after={"superseded_by": by.pk},
            )
            live.publish_job(job_snapshot(job))
