"""The one door in: every mutation that a page, the chat, an endpoint or a command asks for.

Each function checks permission, writes row and audit entry in one transaction, and lets tasks and live events leave on commit.
All raise `ActionRefused` subclasses (models_admin.exceptions), which carry a sentence for people and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from django.db import transaction
from django.utils import timezone

from gantry import live
from gantry.live import JobSnapshot
from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_file import read_gguf
from gantry.planning.exceptions import DoesNotFit
from gantry.planning.states import TERMINAL_STATES, InstanceState, JobKind, JobState
from gantry.planning.types import SwitchPlan
from models_admin import audit, catalog, job_moves, plans
from models_admin.actor import SYSTEM, Actor
from models_admin.exceptions import (
    ActionRefused,
    AnotherJobRunning,
    DoesNotFitNow,
    FileDamaged,
    ModelUnknown,
    NotAllowed,
    NotDownloaded,
    NotLoaded,
    RuntimeUnusable,
)
from models_admin.model_files import is_on_this_host, is_there
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, SwitchJob
from models_admin.snapshots import job_snapshot

HALF_DONE_PERCENT = 50.0  # from here on a running switch is superseded only when that is confirmed

_EVENTS = {
    JobKind.SWITCH: audit.AuditEvent.SWITCH_REQUEST,
    JobKind.UNLOAD: audit.AuditEvent.UNLOAD_REQUEST,
    JobKind.RESTART: audit.AuditEvent.RESTART_REQUEST,
}


@dataclass(frozen=True, slots=True)
class SwitchDecision:
    """What became of a request.

    accepted: `job` is new. joined: `job` does the same already. already_loaded: there is nothing to do.
    needs_confirmation: `job` is another switch that is half done or more; ask again with `confirm` to take over from it.
    """

    status: Literal["accepted", "already_loaded", "joined", "needs_confirmation"]
    job: SwitchJob | None


def find_model(model_id: str) -> ModelDefinition:
    """The model with this id.

    Raises:
        ModelUnknown: there is none.
    """
    model = ModelDefinition.objects.with_runtime().filter(model_id=model_id).first()
    if model is None:
        raise ModelUnknown(f"There is no model “{model_id}”.", "The Models tab lists the models there are.")
    return model


def preview(model: ModelDefinition, *, kind: str = "switch", actor: Actor) -> SwitchPlan:
    """What a switch, unload or restart would do now, without doing anything.

    Uses the last reading of the memory (at most a few seconds old); the job measures again. While another switch is under way
    (`switch_to_take_over`) nobody can say what will be loaded when it has ended: then the plan has no steps.
    """
    _need_permission(actor, "switch_model", "switch models")
    _check_possible(model, JobKind(kind))
    if JobKind(kind) == JobKind.SWITCH and switch_to_take_over(model) is not None:
        return plans.empty_plan(model)
    return _plan(model, JobKind(kind), MemoryPool.objects.get(pk=model.runtime.pool_id))


def switch_to_take_over(model: ModelDefinition) -> SwitchJob | None:
    """The unfinished switch to another model that a switch to this one would cancel and take over from."""
    jobs = SwitchJob.objects.unfinished().filter(pool=model.runtime.pool_id, kind=JobKind.SWITCH)
    return jobs.exclude(target=model).select_related("target").order_by("-id").first()


def request_switch(model: ModelDefinition, *, actor: Actor, confirm: bool = False) -> SwitchDecision:
    """Make `model` the one that serves.

    A switch to another model that is under way is cancelled and superseded; once it is half done, only with `confirm`.
    """
    return _request(model, JobKind.SWITCH, actor, confirm=confirm)


def request_unload(model: ModelDefinition, *, actor: Actor) -> SwitchDecision:
    """Unload a model without loading another."""
    return _request(model, JobKind.UNLOAD, actor)


def request_restart(model: ModelDefinition, *, actor: Actor) -> SwitchDecision:
    """Unload a model, or clear away what is left of it, and load it again."""
    return _request(model, JobKind.RESTART, actor)


def cancel_job(job: SwitchJob, *, actor: Actor) -> None:
    """Ask a job to end; it puts back what it has unloaded. Cancelling what has ended, or twice, changes nothing."""
    if not may_cancel(job, actor):
        raise NotAllowed("Only the one who asked, or an administrator, can cancel this.", "Ask them to cancel it.")
    with transaction.atomic():
        asked = (
            SwitchJob.objects.unfinished()
            .filter(pk=job.pk, cancel_requested_at=None)
            .update(cancel_requested_at=timezone.now(), cancelled_by_name=actor.name)
        )
        if not asked:
            return
        audit.write(audit.AuditEvent.JOB_CANCEL, actor=actor, object_text=job.target_name, job=job)
        job.refresh_from_db()
        # Nobody works on it: it ends here. One that took over from another still owes what that one unloaded.
        if job.state == JobState.WAITING and not job.supersedes.exists():
            job_moves.finish(job, JobState.CANCELLED, text="Cancelled", actor=actor)
        else:
            live.publish_job(job_snapshot(job))


def may_cancel(job: SwitchJob | JobSnapshot, actor: Actor) -> bool:
    """Whether the actor may cancel this job: the one who asked for it, or who may cancel any."""
    if isinstance(job, SwitchJob):
        is_over, asked_by = job.state in TERMINAL_STATES, job.requested_by_name
    else:
        is_over, asked_by = job["is_finished"], job["requested_by"]
    if is_over:
        return False
    return actor.may("cancel_any_job") or (actor.user is not None and actor.name == asked_by)


def set_pinned(model: ModelDefinition, is_pinned: bool, *, actor: Actor) -> None:
    """Pin a model, so that no switch to another one unloads it, or unpin it."""
    _need_permission(actor, "change_modeldefinition", "pin models")
    with transaction.atomic():
        changed = ModelDefinition.objects.filter(pk=model.pk).exclude(is_pinned=is_pinned).update(is_pinned=is_pinned)
        if not changed:
            return
        model.is_pinned = is_pinned
        audit.write(
            audit.AuditEvent.MODEL_PIN,
            actor=actor,
            object_text=model.name,
            before={"is_pinned": not is_pinned},
            after={"is_pinned": is_pinned},
        )
        live.publish_models_changed([model.model_id], event_id=f"pin-{model.pk}-{timezone.now().timestamp()}")


def _request(model: ModelDefinition, kind: JobKind, actor: Actor, *, confirm: bool = False) -> SwitchDecision:
    _need_permission(
        actor,
        "switch_model",
        {JobKind.UNLOAD: "unload models", JobKind.RESTART: "restart models"}.get(kind, "switch models"),
    )
    with transaction.atomic():
        # Requests for one pool decide one after the other, so that two at once cannot both see it free.
        pool = MemoryPool.objects.select_for_update().get(pk=model.runtime.pool_id)
        unfinished = list(SwitchJob.objects.unfinished().filter(pool=pool).order_by("id"))
        met = _meet(unfinished, model, kind, confirm=confirm)
        if met is not None:
            return met
        if not unfinished and kind == JobKind.SWITCH and _is_serving(model):
            return SwitchDecision("already_loaded", None)
        _check_possible(model, kind)
        # While another job is at work nobody can say what will be loaded and free when it has ended: the worker plans then.
        plan = _plan(model, kind, pool) if not unfinished else plans.empty_plan(model)
        job = _create_job(model, kind, plan, pool, actor)
        _supersede(unfinished, job, actor)
        job_moves.enqueue_on_commit(job)
    return SwitchDecision("accepted", job)


def put_back_after(interrupted: SwitchJob) -> SwitchJob | None:
    """A job in the system's own name that brings back the model which a job unloaded whose worker died.

    None when nothing was unloaded, when somebody has asked for something else meanwhile, or when the interrupted job was such
    a return itself: what kills its worker twice is not tried a third time.
    """
    # It may have died before it took over what it owes for others.
    earlier = interrupted.supersedes.exclude(state=JobState.SUCCEEDED)
    entries = [entry for job in [*earlier, interrupted] for entry in job.unloaded]
    wanted = sorted(entries, key=lambda entry: not entry["was_active"])
    model = ModelDefinition.objects.with_runtime().filter(model_id=wanted[0]["model_id"]).first() if wanted else None
    if model is None or interrupted.via == SYSTEM.via:
        return None
    with transaction.atomic():
        pool = MemoryPool.objects.select_for_update().get(pk=interrupted.pool_id)
        is_served = ModelInstance.objects.filter(runtime__pool=pool, is_active=True).exists()
        if is_served or SwitchJob.objects.unfinished().filter(pool=pool).exists():
            return None
        job = _create_job(model, JobKind.SWITCH, plans.empty_plan(model), pool, SYSTEM)
        SwitchJob.objects.filter(pk=interrupted.pk).update(
            superseded_by=job, aftermath=f"{model.name} is being put back by job {job.pk}."
        )
        job_moves.enqueue_on_commit(job)
    return job


def _create_job(model: ModelDefinition, kind: JobKind, plan: SwitchPlan, pool: MemoryPool, actor: Actor) -> SwitchJob:
    active = ModelInstance.objects.filter(is_active=True).select_related("model").first()
    job = SwitchJob.objects.create(
        kind=kind,
        pool=pool,
        target=model,
        target_name=model.name,
        from_name=active.model.name if active else "",
        requested_by=actor.user,
        requested_by_name=actor.name,
        via=actor.via,
        plan=plan.as_dict(),
        expected_seconds=plan.expected_seconds,
        eta_seconds=plan.expected_seconds,
        heartbeat_at=timezone.now(),
    )
    audit.write(
        _EVENTS[kind],
        actor=actor,
        object_text=model.name,
        job=job,
        before={"active": job.from_name},
        after={"plan": job.plan},
    )
    job_moves.record_event(job, text="Asked for")
    return job


def _meet(
    unfinished: Sequence[SwitchJob], model: ModelDefinition, kind: JobKind, *, confirm: bool
) -> SwitchDecision | None:
    """What a request finds that meets jobs which have not ended, the latest of them last. None: it may go on.

    The same job is joined. A switch takes over from a switch (that is half done: only when confirmed); anything else waits.
    """
    if not unfinished:
        return None
    running = unfinished[-1]
    if running.target_id == model.pk and running.kind == kind and running.cancel_requested_at is None:
        return SwitchDecision("joined", running)
    if kind == JobKind.SWITCH and all(job.kind == JobKind.SWITCH for job in unfinished):
        half_done = next((job for job in unfinished if _is_half_done(job)), None)
        return SwitchDecision("needs_confirmation", half_done) if half_done and not confirm else None
    doing = {JobKind.UNLOAD: "Unloading", JobKind.RESTART: "Restarting"}.get(JobKind(running.kind), "Switching to")
    raise AnotherJobRunning(
        f"{doing} {running.target_name} is under way (asked by {running.requested_by_name}).",
        "Wait until it has ended, or cancel it first.",
        running,
    )


def _is_half_done(job: SwitchJob) -> bool:
    return job.percent >= HALF_DONE_PERCENT and job.cancel_requested_at is None


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


def _is_serving(model: ModelDefinition) -> bool:
    return ModelInstance.objects.filter(model=model, state=InstanceState.LOADED, is_active=True).exists()


def _check_possible(model: ModelDefinition, kind: JobKind) -> None:
    """Refuse what cannot work before anything is planned or started."""
    held = ModelInstance.objects.filter(model=model).first()
    if kind != JobKind.SWITCH and held is None:
        raise NotLoaded(f"{model.name} is not loaded.", "Switch to it to load it.")
    if kind == JobKind.UNLOAD:
        return
    if not model.runtime.is_enabled:
        raise RuntimeUnusable(f"The runtime {model.runtime.name} is switched off.", "Switch it on under Runtimes.")
    if model.runtime.checked_at and not model.runtime.is_healthy:
        reason = model.runtime.health_text or "it does not answer"
        raise RuntimeUnusable(
            f"The runtime {model.runtime.name} cannot be used: {reason}", "See Runtimes for its state."
        )
    _check_file(model)


def _check_file(model: ModelDefinition) -> None:
    """A model whose file is missing or damaged is refused here, not after others were unloaded for it."""
    path = catalog.resolve_path(model)
    # Looked at now, for it may have gone since somebody last looked. Another host's file: its worker looks.
    is_gone = is_on_this_host(model) and not is_there(path)
    if is_gone or not model.is_available:
        raise NotDownloaded(
            f"{model.name} is not downloaded.", "Put its file in place or correct its path, then scan again."
        )
    if path.suffix.lower() != ".gguf" or not is_there(path):
        return
    try:
        read_gguf(path)
    except ModelFileInvalid as exc:
        raise FileDamaged(
            f"The file of {model.name} cannot be used: it {exc.reason}.", "Copy or download the file again."
        ) from exc


def _plan(model: ModelDefinition, kind: JobKind, pool: MemoryPool) -> SwitchPlan:
    try:
        return plans.make_plan(kind, model, plans.budget_of(pool))
    except DoesNotFit as exc:
        raise DoesNotFitNow(
            f"{model.name} needs {exc.required_bytes / 1e9:.1f} GB; {exc.available_bytes / 1e9:.1f} GB are free "
            f"and {exc.freeable_bytes / 1e9:.1f} GB more could be freed.",
            "Choose a smaller model or a smaller context, or unpin a model that is loaded.",
            required_bytes=exc.required_bytes,
            available_bytes=exc.available_bytes,
            freeable_bytes=exc.freeable_bytes,
        ) from exc


def _need_permission(actor: Actor, permission: str, doing: str) -> None:
    if not actor.may(permission):
        raise NotAllowed(f"You may not {doing}.", "Ask an administrator.")


__all__ = [
    "ActionRefused",
    "NotDownloaded",
    "SwitchDecision",
    "cancel_job",
    "find_model",
    "may_cancel",
    "preview",
    "put_back_after",
    "request_restart",
    "request_switch",
    "request_unload",
    "set_pinned",
    "switch_to_take_over",
]
