"""A job as people see it, made from its row: the same for the page and for the live event."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.utils import timezone

from gantry.live import JobSnapshot
from gantry.planning.states import TERMINAL_STATES, ErrorCode, JobState
from gantry.planning.wording import wording

if TYPE_CHECKING:
    from models_admin.models import SwitchJob


def job_snapshot(job: SwitchJob, now: datetime | None = None) -> JobSnapshot:
    """The job at this moment. Reads `job.target` (select it with the job)."""
    now = now or timezone.now()
    elapsed = ((job.finished_at or now) - job.created_at).total_seconds()
    is_finished = job.state in TERMINAL_STATES
    return {
        "id": job.pk,
        "seq": job.seq,
        "kind": job.kind,
        "state": job.state,
        "is_finished": is_finished,
        "target_id": job.target.model_id if job.target else "",
        "target_name": job.target_name,
        "from_name": job.from_name,
        "requested_by": job.requested_by_name,
        "requested_by_id": job.requested_by_id,
        "via": job.via,
        "created_at": job.created_at.isoformat(),
        "elapsed_seconds": round(elapsed, 1),
        "expected_seconds": round(job.expected_seconds, 1),
        "eta_seconds": None if is_finished else job.eta_seconds,
        "is_over_estimate": not is_finished and 0 < job.expected_seconds < elapsed,
        # 100 is said of what is done only; everything before it is at most 99.
        "percent": 100 if job.state == JobState.SUCCEEDED else min(99, int(job.percent)),
        "bytes_done": job.bytes_done,
        "bytes_total": job.bytes_total,
        "stage_text": job.stage_text,
        "steps": job.steps,
        "error_code": job.error_code,
        "error_text": job.error_text or (wording(job.error_code).sentence if job.error_code else ""),
        "error_hint": wording(job.error_code).hint if job.error_code else "",
        "error_data": _error_data(job),
        "aftermath": job.aftermath,
        "is_cancelling": not is_finished and job.cancel_requested_at is not None,
        "interrupts": _interrupts(job),
        "downtime_seconds": job.downtime_seconds,
        "url": job.get_absolute_url(),
    }


def _error_data(job: SwitchJob) -> dict[str, int]:
    """What the worker has measured; a list that leaves plans unread does without."""
    is_known = job.error_code == ErrorCode.INSUFFICIENT_MEMORY and "plan" not in job.get_deferred_fields()
    return dict(job.plan.get("shortage", {})) if is_known else {}


def _interrupts(job: SwitchJob) -> bool:
    """Whether the chat has to wait for it. As long as there is no plan nobody knows; with no model active there is nothing to wait with."""
    if job.state in TERMINAL_STATES:  # also, lists of jobs that have ended leave their plans unread
        return False
    is_planned = bool(job.plan.get("total_bytes"))
    return bool(job.plan["interrupts"]) if is_planned and job.from_name and "interrupts" in job.plan else True
