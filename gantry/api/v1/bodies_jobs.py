"""Jobs, plans and events as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Schema
from pydantic import Field

from gantry.api.v1.bodies import Cursor, Strict
from gantry.planning.states import JobKind, JobState
from models_admin.actor import Actor
from models_admin.models import SwitchJob
from models_admin.models.api_key import Scope
from models_admin.snapshots import job_snapshot


class Message(Strict):
    """One message of a chat call."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1)


class Wanted(Strict):
    """What a job is to do."""

    kind: JobKind = Field(
        JobKind.SWITCH,
        description="switch: make the model the one that serves. unload. unload_all: everything that a host holds. restart. "
        "preload: load beside what is there. call: switch, one chat call, everything back as it was.",
    )
    model_id: str | None = Field(None, max_length=200, description="Needed for all but unload_all.")
    host: str | None = Field(
        None, max_length=100, description="For unload_all: which host; may be left out where there is only one."
    )
    context: int | None = Field(None, description="For switch: tokens of context for this load.")
    unpin: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="For switch: ids of models that are unpinned first. Needs the right to change models.",
    )


class JobIn(Wanted):
    """A job to be made."""

    confirm: bool = Field(
        False,
        description="What was answered with `needs_confirmation` is done all the same: another switch that is half done is taken "
        "over, and what the plan unloads is unloaded.",
    )
    messages: list[Message] = Field(default_factory=list, max_length=1000, description="For call: at least one.")
    sampling: dict[str, Any] = Field(
        default_factory=dict,
        description="For call: temperature, top_p, top_k, min_p, repeat_penalty, max_tokens, stop, beside the model's own defaults.",
    )


class PlanStep(Schema):
    """One thing to do."""

    kind: str = Field(description="drain, unload, free, load, verify or call.")
    model_id: str
    model_name: str
    expected_seconds: float


class Evicted(Schema):
    """A model that is unloaded for it."""

    model_id: str
    name: str
    held_bytes: int
    is_busy: bool = Field(description="It is answering somebody.")
    is_active: bool = False


class Plan(Schema):
    """What will be done. No steps: nobody can say yet, for another job is at work."""

    target_id: str
    target_name: str
    steps: list[PlanStep]
    evicted: list[Evicted]
    needed_bytes: int = Field(description="What the target takes.")
    free_bytes: int = Field(description="Free now.")
    freed_bytes: int = Field(description="What comes free.")
    total_bytes: int = Field(description="Of the memory as a whole.")
    expected_seconds: float
    load_low_seconds: float
    load_high_seconds: float
    load_samples: int = Field(description="How many loads stand behind these figures; 0: worked out from the size.")
    devices: list[str] = Field(default_factory=list, description="Where the target is put; empty: anywhere.")
    interrupts: bool = Field(True, description="There is a time in which no model answers.")
    downtime_seconds: float = Field(0.0, description="How long that is.")


class Preview(Schema):
    """A plan, and the same in words."""

    plan: Plan
    title: str
    wait_text: str = Field(description="Who has to wait, and for how long.")
    time_text: str = Field(description="How sure the time is.")
    takes_over_job: int | None = Field(description="Number of the switch under way that this one would take over from.")


class Step(Schema):
    """A step of a job."""

    kind: str
    model_id: str = ""
    model_name: str
    state: str = Field(description="pending, running, done, failed or skipped.")
    percent: float
    expected_seconds: float
    started_at: datetime | None
    seconds: float | None = Field(description="How long it took, or has taken so far.")
    bytes_done: int | None
    bytes_total: int | None


class Job(Schema):
    """One request to change what is loaded, from its beginning to its end."""

    id: int
    seq: int = Field(description="Number of its last event.")
    kind: JobKind
    state: JobState
    is_finished: bool
    target_id: str = Field(description="Model id; empty when it was deleted, or when the job is about all models.")
    target_name: str
    from_name: str = Field(description="The model that was active before; empty: none.")
    requested_by: str
    via: str = Field(description="page, chat, rest, websocket, gateway, command or system.")
    created_at: datetime
    elapsed_seconds: float
    expected_seconds: float
    eta_seconds: float | None = Field(description="Left; null: not known, or over.")
    is_over_estimate: bool
    percent: int = Field(description="0 to 100; 100 only of what has succeeded.")
    bytes_done: int | None
    bytes_total: int | None
    stage_text: str
    steps: list[Step]
    error_code: str = Field(description="Empty unless it failed: out_of_memory, file_damaged, load_timeout …")
    error_text: str
    error_hint: str
    error_data: dict[str, int] = Field(
        default_factory=dict,
        description="With insufficient_memory: `required_bytes`, `available_bytes`, `freeable_bytes`, as the worker found them.",
    )
    aftermath: str = Field(description="What was done about a failure: “SmolLM2 was put back.”")
    is_cancelling: bool
    interrupts: bool
    downtime_seconds: float | None


class JobDetail(Job):
    """A job with its plan and its result."""

    plan: Plan | None
    superseded_by: int | None = Field(description="Number of the job that took over from it.")
    started_at: datetime | None
    finished_at: datetime | None
    result: dict[str, Any] = Field(
        description="Of a call: what was answered. Only the one who asked sees it; a key needs the scope switch."
    )
    log_tail: str = Field(description="The end of the server's log, when it failed. For those who may see switches.")


class JobAnswer(Schema):
    """What became of a request."""

    status: Literal["accepted", "joined", "already_loaded"] = Field(
        description="accepted: `job` is new. joined: `job` does the same already. already_loaded: there is nothing to do."
    )
    job: Job | None
    plan: Plan | None = Field(description="Of a new job, as far as anybody can say yet.")


class JobQuery(Cursor):
    """Which jobs; newest first."""

    kind: JobKind | None = None
    state: JobState | None = None
    model_id: str | None = Field(None, max_length=200)
    unfinished: bool = Field(False, description="Only those that wait or are at work.")


class JobList(Schema):
    """A page of jobs."""

    items: list[Job]
    next: int | None = Field(description="`after` of the next page; null: this is the last one.")


def job_body(job: SwitchJob) -> dict[str, Any]:
    """Job of a row with its target."""
    return dict(job_snapshot(job))


def job_detail(job: SwitchJob, actor: Actor) -> dict[str, Any]:
    """JobDetail of a row with its target, for whoever asks."""
    is_own = actor.user is not None and job.requested_by_id == actor.user.pk
    return {
        **job_body(job),
        "plan": plan_body(job.plan),
        "superseded_by": job.superseded_by_id,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "result": job.result if is_own and actor.has_scope(Scope.SWITCH) else {},
        "log_tail": job.log_tail if actor.may("view_switchjob") else "",
    }


def plan_body(plan: dict[str, Any]) -> dict[str, Any] | None:
    """Plan of what a job keeps; None when it has none yet."""
    return plan if plan.get("steps") is not None else None
