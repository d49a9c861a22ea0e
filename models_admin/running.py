"""Runs one job on the host that owns its pool."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import structlog
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.utils import timezone

from gantry.engine.runner import Limits, Outcome, put_back, run_plan
from gantry.hardware.base import MemoryUnreadable
from gantry.planning.exceptions import DeviceUnknown, DoesNotFit
from gantry.planning.states import DrainAction, ErrorCode, InstanceState, JobKind, JobState, StepKind
from gantry.planning.types import PlanStep, SwitchPlan
from gantry.planning.wording import wording
from gantry.runtimes.base import Runtime as Adapter
from gantry.runtimes.exceptions import RuntimeFault
from models_admin import actions, catalog, job_locks, job_moves, memory, plans
from models_admin.effects import DatabaseEffects, new_step
from models_admin.model_files import damage
from models_admin.models import ModelInstance, SwitchJob, SwitchPolicy
from models_admin.plans import Wish
from models_admin.runtime_access import fleet_for

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 2.0


def run_job(job_id: int) -> None:
    """Claim a job and run it to its end. A job that is not waiting, or cannot be claimed now, is left alone."""
    job = job_moves.claim(job_id)
    if job is None:
        return
    with job_locks.held(job.pk), _heartbeat(job.pk):
        try:
            outcome = _carry_out(job)
        except Exception:  # the boundary of a job: whatever happens, the job ends and says so
            log.exception("job_errored", job=job.pk)
            outcome = Outcome(
                JobState.FAILED,
                wording(ErrorCode.INTERNAL).sentence,
                error_code=ErrorCode.INTERNAL,
                log_tail=tuple(traceback.format_exc(limit=-5).splitlines()),
            )
        _look_at_memory(job)
    job_moves.finish(
        job,
        outcome.state,
        text=outcome.text,
        error_code=outcome.error_code,
        error_text=outcome.error_text,
        log_tail="\n".join(outcome.log_tail),
        rolled_back=outcome.rolled_back,
        aftermath=outcome.aftermath,
        downtime_seconds=outcome.downtime_seconds,
    )
    if outcome.error_code == ErrorCode.INTERNAL:  # it could not put back itself what it had unloaded
        actions.put_back_after(job)


def _look_at_memory(job: SwitchJob) -> None:
    """The next plan, made a moment later, must not count with the memory of before."""
    try:
        memory.refresh_pool(job.pool)
    except Exception:  # whatever it is, it must not keep a job that is done from ending
        log.exception("memory_unreadable", pool=job.pool_id)


def _carry_out(job: SwitchJob) -> Outcome:
    if job.target is None and job.kind != JobKind.UNLOAD_ALL:
        return Outcome(JobState.FAILED, "The model was deleted.", error_code=ErrorCode.NOT_DOWNLOADED)
    wish = Wish(JobKind(job.kind), job.pool, job.target, job.options.get("context"))
    try:
        return _carry_out_on(fleet_for(job.pool, job.target), job, wish)
    except RuntimeFault as fault:  # before there was a plan; the engine tells of its own
        return _failed(fault.code, fault.detail)


def _carry_out_on(runtime: Adapter, job: SwitchJob, wish: Wish) -> Outcome:
    effects = DatabaseEffects(job)
    owed = _inherit_unloaded(job)
    policy = SwitchPolicy.current()
    if effects.is_cancelled():
        outcome: Outcome | SwitchPlan = Outcome(
            JobState.SUPERSEDED if effects.is_superseded() else JobState.CANCELLED, "Cancelled"
        )
    else:
        held = list(ModelInstance.objects.filter(runtime__pool=job.pool))
        _clear_leftovers(held, runtime)
        _look_who_is_busy(held, runtime)
        outcome = _plan(job, wish, policy)
    limits, fallback = limits_of(policy), _fallback(policy, job)
    if isinstance(outcome, SwitchPlan):
        _keep_plan(job, outcome)
        return run_plan(outcome, runtime, effects, limits, owed=owed, **fallback)
    if owed and outcome.state != JobState.SUPERSEDED:
        rolled_back, aftermath = put_back(owed, plans.empty_plan(wish), runtime, effects, limits, **fallback)
        return replace(outcome, rolled_back=rolled_back, aftermath=aftermath)
    return outcome


def _inherit_unloaded(job: SwitchJob) -> list[PlanStep]:
    """What jobs that this one took over from have unloaded: this one owes it to whoever used it."""
    entries = [
        entry
        for earlier in job.supersedes.exclude(state=JobState.SUCCEEDED).order_by("id")
        for entry in earlier.unloaded
    ]
    loaded = set(_ids_of_loaded() if entries else ())
    inherited = list({entry["model_id"]: entry for entry in entries if entry["model_id"] not in loaded}.values())
    if job.unloaded != inherited:
        job.unloaded = inherited
        job.save(update_fields=["unloaded"])
    return [PlanStep(StepKind.UNLOAD, entry["model_id"], entry["name"], "", 0.0) for entry in job.unloaded]


def _ids_of_loaded() -> QuerySet[ModelInstance, str]:
    return ModelInstance.objects.filter(state=InstanceState.LOADED).values_list("model__model_id", flat=True)


def _fallback(policy: SwitchPolicy, job: SwitchJob) -> dict[str, str]:
    """The default model, where it can be loaded into the job's pool at all."""
    default = policy.default_model
    if default is None or not default.is_available or default.runtime.pool_id != job.pool_id:
        return {}
    return {"fallback": default.model_id, "fallback_name": default.name}


def limits_of(policy: SwitchPolicy) -> Limits:
    """How long the engine waits. SWITCH_TIMEOUT, where it is set, is the longest that any load may take."""
    return Limits(
        drain_seconds=policy.drain_seconds,
        drain_action=DrainAction(policy.drain_action),
        stall_seconds=policy.stall_seconds,
        load_seconds=settings.SWITCH_TIMEOUT or policy.load_seconds,
    )


def _look_who_is_busy(held: Sequence[ModelInstance], runtime: Adapter) -> None:
    """Who answers at this moment decides who goes, where there is a choice; the records are some seconds old."""
    loaded = [instance for instance in held if instance.state == InstanceState.LOADED]
    for instance in loaded if len(loaded) > 1 else ():
        with suppress(RuntimeFault):
            busy = runtime.busy_count(str(instance.instance_id))
            ModelInstance.objects.filter(pk=instance.pk).update(busy_count=busy)


def _clear_leftovers(held: Sequence[ModelInstance], runtime: Adapter) -> None:
    """End what died, and what a worker that died left half loaded or half unloaded.

    The pool is ours alone from the claim on, so nobody is at work on an instance in such a state.
    """
    for left in held:
        if left.is_external or left.state == InstanceState.LOADED:
            continue
        runtime.unload(str(left.instance_id))
        runtime.forget(str(left.instance_id))
        left.delete()


def _plan(job: SwitchJob, wish: Wish, policy: SwitchPolicy) -> SwitchPlan | Outcome:
    """The plan as things are now, or how the job ends without one."""
    if reason := _damage(wish):
        return _failed(ErrorCode.FILE_DAMAGED, f"It {reason}.")
    try:
        return plans.make_plan(wish, memory.budget_now(wish.pool), policy)
    except DeviceUnknown as exc:
        return _failed(ErrorCode.BAD_PARAMETER, str(exc))
    except MemoryUnreadable as exc:
        return _failed(ErrorCode.MEMORY_UNREADABLE, str(exc))
    except DoesNotFit as exc:
        job.plan["shortage"] = {
            "required_bytes": exc.required_bytes,
            "available_bytes": exc.available_bytes,
            "freeable_bytes": exc.freeable_bytes,
        }
        job.save(update_fields=["plan"])
        return _failed(
            ErrorCode.INSUFFICIENT_MEMORY,
            f"It needs {exc.required_bytes / 1e9:.1f} GB; {exc.available_bytes / 1e9:.1f} GB are free "
            f"and {exc.freeable_bytes / 1e9:.1f} GB more could be freed.",
        )


def _damage(wish: Wish) -> str:
    """What is wrong with the file that is to be loaded: it was whole when the job was asked for, which may be a while ago."""
    if wish.target is None or wish.kind == JobKind.UNLOAD:
        return ""
    return damage(catalog.resolve_path(wish.target))


def _failed(code: ErrorCode, detail: str) -> Outcome:
    sentence = wording(code).sentence
    return Outcome(JobState.FAILED, sentence, error_code=code, error_text=f"{sentence} {detail}")


def _keep_plan(job: SwitchJob, plan: SwitchPlan) -> None:
    job_moves.record_event(
        job,
        text="Planned",
        plan=plan.as_dict(),
        steps=[new_step(step) for step in plan.steps],
        expected_seconds=plan.expected_seconds,
        eta_seconds=plan.expected_seconds if plan.is_time_known else None,
    )


@contextmanager
def _heartbeat(job_id: int) -> Iterator[None]:
    """Keep the job's sign of life fresh from a thread of its own: unloading and verifying may block for long."""
    stop = threading.Event()

    def beat() -> None:
        try:
            while not stop.wait(HEARTBEAT_SECONDS):
                try:
                    SwitchJob.objects.filter(pk=job_id).update(heartbeat_at=timezone.now())
                except DatabaseError as exc:  # one missed beat is nothing; the next one tries on a new connection
                    log.warning("heartbeat_missed", job=job_id, reason=str(exc))
                    connection.close()
        finally:
            connection.close()

    thread = threading.Thread(target=beat, name=f"heartbeat-{job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=HEARTBEAT_SECONDS)
