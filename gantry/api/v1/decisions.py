"""What became of a request, as an answer."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from ninja import Status

from gantry.api.errors import NeedsConfirmation
from gantry.api.v1.bodies_jobs import job_body, plan_body
from models_admin.actions import SwitchDecision


def answer_decision(decision: SwitchDecision, response: HttpResponse) -> Status[Any]:
    """JobAnswer: 201 with a new job, 200 when there is one already or nothing to do.

    Raises:
        NeedsConfirmation: nothing was done yet.
    """
    if decision.status == "needs_confirmation":
        raise NeedsConfirmation(decision)
    body = {
        "status": decision.status,
        "job": job_body(decision.job) if decision.job else None,
        "plan": plan_body(decision.plan.as_dict()) if decision.plan else None,
    }
    if decision.status != "accepted" or decision.job is None:
        return Status(200, body)
    response.headers["Location"] = f"/api/v1/jobs/{decision.job.pk}"
    return Status(201, body)
