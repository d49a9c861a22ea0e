"""Runs one job on the host that owns its pool."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.db import connection
from django.utils import timezone

from gantry.engine.runner import Outcome, run_plan
from gantry.hardware.base import MemoryUnreadable
from gantry.planning.exceptions import DoesNotFit
from gantry.planning.states import ErrorCode, InstanceState, JobKind, JobState
from gantry.planning.types import MemoryBudget, SwitchPlan
from gantry.planning.wording import wording
from models_admin import job_moves, memory, plans
from models_admin.effects import DatabaseEffects, new_step
from models_admin.models import ModelInstance, SwitchJob
from models_admin.runtime_access import runtime_for

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 2.0


def run_job(job_id: int) -> None:
    """Claim a job and run it to its end. A job that is not waiting, or cannot be claimed now, is left alone."""
    job = job_moves.claim(job_id)
    if job is None:
        return
    with _heartbeat(job.pk):
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
        memory.refresh_pool(job.pool)  # the next plan, made a moment later, must not count with the memory of before
    job_moves.finish(
        job,
        outcome.state,
        text=outcome.text,
        error_code=outcome.error_code,
        error_text=outcome.error_text,
        log_tail="\n".join(outcome.log_tail),
        rolled_back=outcome.rolled_back,
        aftermath=outcome.aftermath,
    )


def _carry_out(job: SwitchJob) -> Outcome:
    if job.target is None:
        return Outcome(JobState.FAILED, "The model was deleted.", error_code=ErrorCode.NOT_DOWNLOADED)
    effects = DatabaseEffects(job)
    if effects.is_cancelled():
        return Outcome(JobState.CANCELLED, "Cancelled")
    runtime = runtime_for(job.target.runtime)
    for dead in ModelInstance.objects.filter(runtime=job.target.runtime, state=InstanceState.CRASHED):
        runtime.forget(str(dead.instance_id))
        dead.delete()
    try:
        reading = memory.read_pool(job.pool)
        plan = plans.make_plan(JobKind(job.kind), job.target, MemoryBudget(reading.total_bytes, reading.free_bytes))
    except MemoryUnreadable as exc:
        words = wording(ErrorCode.MEMORY_UNREADABLE)
        return Outcome(
            JobState.FAILED,
            words.sentence,
            error_code=ErrorCode.MEMORY_UNREADABLE,
            error_text=f"{words.sentence} {exc}",
        )
    except DoesNotFit as exc:
        return _does_not_fit(exc)
    _keep_plan(job, plan)
    return run_plan(plan, runtime, effects)


def _keep_plan(job: SwitchJob, plan: SwitchPlan) -> None:
    job_moves.record_event(
        job,
        text="Planned",
        plan=plan.as_dict(),
        steps=[new_step(step) for step in plan.steps],
        expected_seconds=plan.expected_seconds,
        eta_seconds=plan.expected_seconds,
    )


def _does_not_fit(exc: DoesNotFit) -> Outcome:
    figures = (
        f"It needs {exc.required_bytes / 1e9:.1f} GB; {exc.available_bytes / 1e9:.1f} GB are free "
        f"and {exc.freeable_bytes / 1e9:.1f} GB more could be freed."
    )
    words = wording(ErrorCode.INSUFFICIENT_MEMORY)
    return Outcome(
        JobState.FAILED,
        words.sentence,
        error_code=ErrorCode.INSUFFICIENT_MEMORY,
        error_text=f"{words.sentence} {figures}",
    )


@contextmanager
def _heartbeat(job_id: int) -> Iterator[None]:
    """Keep the job's sign of life fresh from a thread of its own: unloading and verifying may block for long."""
    stop = threading.Event()

    def beat() -> None:
        try:
            while not stop.wait(HEARTBEAT_SECONDS):
                SwitchJob.objects.filter(pk=job_id).update(heartbeat_at=timezone.now())
        finally:
            connection.close()

    thread = threading.Thread(target=beat, name=f"heartbeat-{job_id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=HEARTBEAT_SECONDS)
