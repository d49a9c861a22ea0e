"""A job in words and figures, as its panel and its page show it. Made from the snapshot alone, so it is the same for page and event."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from django.utils import timezone

from gantry.live import JobSnapshot, StepSnapshot
from gantry.planning.states import JobKind, JobState, StepKind
from models_admin.templatetags.gantry_format import seconds, seconds_left

Tone = Literal["blue", "green", "amber", "red"]

VIA_WORDS = {
    "page": "from the Models tab",
    "chat": "from the chat",
    "rest": "through the REST API",
    "websocket": "through a WebSocket",
    "gateway": "through the OpenAI-compatible API",
    "command": "from the command line",
    "system": "by Gantry itself",
}
_STEP_LABELS = {
    StepKind.DRAIN: "Let running answers of {name} finish",
    StepKind.UNLOAD: "Unload {name}",
    StepKind.FREE: "Check that the memory is free",
    StepKind.LOAD: "Load {name}",
    StepKind.VERIFY: "Get a first token from {name}",
    StepKind.CALL: "Make the call to {name}",
}
_STEP_TONES: dict[str, Tone] = {"done": "green", "failed": "red"}
_UNFINISHED_NOUNS = {
    JobKind.SWITCH: "The switch to {name}",
    JobKind.UNLOAD: "Unloading {name}",
    JobKind.UNLOAD_ALL: "Unloading {name}",
    JobKind.RESTART: "The restart of {name}",
    JobKind.PRELOAD: "Loading {name} in the background",
    JobKind.CALL: "The call to {name}",
}
_TITLES = {  # while it runs, and once it is over
    JobKind.UNLOAD: ("Unloading {name}", "Unload of {name}"),
    JobKind.UNLOAD_ALL: ("Unloading {name}", "Unload of {name}"),
    JobKind.RESTART: ("Restarting {name}", "Restart of {name}"),
    JobKind.PRELOAD: ("Loading {name} in the background", "Background load of {name}"),
    JobKind.CALL: ("Making one call to {name}", "Call to {name}"),
}
_DONE = {
    JobKind.UNLOAD: "{name} was unloaded.",
    JobKind.UNLOAD_ALL: "All models were unloaded.",
    JobKind.RESTART: "{name} was restarted.",
    JobKind.PRELOAD: "{name} is loaded.",
    JobKind.CALL: "{name} has answered.",
}


@dataclass(frozen=True, slots=True)
class StepView:
    """One step. `percent` is 0 to 100; the timeline figures are percent of the whole job."""

    kind: str
    label: str
    state: str
    tone: Tone
    percent: float
    figures: str  # "120 of 253 MB", or ""
    seconds: float | None
    expected_seconds: float
    is_slow: bool  # has taken clearly longer than expected
    started_at: datetime | None
    offset_seconds: float | None  # from the request to its start
    timeline_start: float
    timeline_width: float


@dataclass(frozen=True, slots=True)
class JobView:
    """One job. `title` while it runs and above its page, `outcome` once it has ended."""

    job: JobSnapshot
    title: str
    outcome: str
    tone: Tone
    steps: tuple[StepView, ...]
    created_at: datetime
    time_left: str
    announcement: str  # for screen readers: changes with the step and with each quarter, not with each percent

    @property
    def is_failure(self) -> bool:
        """It ended badly, and somebody should look."""
        return self.job["state"] in {JobState.FAILED, JobState.INTERRUPTED}

    @property
    def ended_at(self) -> datetime:
        """When it ended (or now, while it runs)."""
        return self.created_at + timedelta(seconds=self.job["elapsed_seconds"])

    @property
    def via_words(self) -> str:
        """Through what it was asked for."""
        return VIA_WORDS.get(self.job["via"], self.job["via"])

    @property
    def figures(self) -> str:
        """Bytes of bytes of the load at work, or nothing."""
        return _figures(self.job["bytes_done"], self.job["bytes_total"])

    def is_recent(self, minutes: int = 60) -> bool:
        """It ended so lately that its good end is still news."""
        return timezone.now() - self.ended_at < timedelta(minutes=minutes)


def job_view(job: JobSnapshot) -> JobView:
    """The job as people read it."""
    return JobView(
        job=job,
        title=_title(job),
        outcome=_outcome(job),
        tone=_tone(job),
        steps=tuple(_step_view(step, job) for step in job["steps"]),
        created_at=datetime.fromisoformat(job["created_at"]),
        time_left=_time_left(job),
        announcement=_announcement(job),
    )


def step_label(kind: str, model_name: str) -> str:
    """What a step does: "Load Gemma 3"."""
    return _STEP_LABELS[StepKind(kind)].format(name=model_name)


def putting_back(job: JobSnapshot) -> str:
    """What the rest of a job that failed does: "The switch to Gemma 3 failed: putting SmolLM2 back"; empty while it has not failed."""
    target, steps = job["target_name"], job["steps"]
    if job["is_finished"] or not any(step["state"] == "failed" and step["model_name"] == target for step in steps):
        return ""
    last = steps[-1]["model_name"]
    if last == target:
        return ""
    return f"{_UNFINISHED_NOUNS[JobKind(job['kind'])].format(name=target)} failed: putting {last} back"


def _title(job: JobSnapshot) -> str:
    name = job["target_name"]
    over = job["is_finished"]
    if last_act := putting_back(job):
        return last_act
    if job["kind"] != JobKind.SWITCH:
        return _TITLES[JobKind(job["kind"])][over].format(name=name)
    verb = "Switch" if over else "Switching"
    if job["from_name"] and job["from_name"] != name:
        return f"{verb} from {job['from_name']} to {name}"
    return f"{verb} to {name}"


def _outcome(job: JobSnapshot) -> str:
    if not job["is_finished"]:
        return ""
    name, kind = job["target_name"], JobKind(job["kind"])
    if job["state"] == JobState.SUCCEEDED:
        done = _DONE.get(kind, "{name} is active.").format(name=name)
        return f"{done} {_took(job)}{_waited(job)}"
    noun = _UNFINISHED_NOUNS[kind].format(name=name)
    after = f"after {seconds(job['elapsed_seconds'])}"
    return {
        JobState.CANCELLED: f"{noun} was cancelled {after}.",
        JobState.SUPERSEDED: f"{noun} gave way to a later one {after}.",
        JobState.INTERRUPTED: f"{noun} was interrupted {after}.",
    }.get(JobState(job["state"]), f"{noun} failed {after}.")


def _took(job: JobSnapshot) -> str:
    expected = f" (expected {seconds(job['expected_seconds'])})" if job["expected_seconds"] else ""
    return f"Took {seconds(job['elapsed_seconds'])}{expected}."


def _waited(job: JobSnapshot) -> str:
    """How long nobody could chat, where that differs from the whole."""
    waited = job["downtime_seconds"]
    if waited is None:
        return ""
    return f" Chat waited {seconds(waited)} of it." if waited > 0 else " Nobody had to wait."


def _tone(job: JobSnapshot) -> Tone:
    if not job["is_finished"]:
        return "amber" if job["is_cancelling"] else "blue"
    return {JobState.SUCCEEDED: "green", JobState.CANCELLED: "amber", JobState.SUPERSEDED: "amber"}.get(  # type: ignore[return-value]
        JobState(job["state"]), "red"
    )


def _time_left(job: JobSnapshot) -> str:
    if job["is_finished"]:
        return ""
    if job["state"] == JobState.WAITING:
        return "waiting for its turn"
    if job["is_over_estimate"]:
        return f"taking longer than usual (usually {seconds(job['expected_seconds'])})"
    return f"about {seconds_left(job['eta_seconds'])} left" if job["eta_seconds"] is not None else ""


def _announcement(job: JobSnapshot) -> str:
    if job["is_finished"]:
        return " ".join(part for part in (_outcome(job), job["error_text"], job["aftermath"]) if part)
    running = next((step for step in job["steps"] if step["state"] == "running"), None)
    doing = step_label(running["kind"], running["model_name"]) if running else job["stage_text"]
    return f"{_title(job)}. {doing}. {25 * (job['percent'] // 25)} %"


def _step_view(step: StepSnapshot, job: JobSnapshot) -> StepView:
    started = datetime.fromisoformat(step["started_at"]) if step["started_at"] else None
    offset = (started - datetime.fromisoformat(job["created_at"])).total_seconds() if started else None
    whole = max(job["elapsed_seconds"], 0.1)
    start = min(100.0, max(0.0, 100 * (offset or 0) / whole))
    took = step["seconds"] or 0.0
    return StepView(
        kind=step["kind"],
        label=step_label(step["kind"], step["model_name"]),
        state=step["state"],
        tone=_STEP_TONES.get(step["state"], "blue"),
        percent=100.0 if step["state"] == "done" else step["percent"],
        figures=_figures(step["bytes_done"], step["bytes_total"]),
        seconds=step["seconds"],
        expected_seconds=step["expected_seconds"],
        is_slow=0 < step["expected_seconds"] < (took - 1) / 1.5,
        started_at=started,
        offset_seconds=max(0.0, offset) if offset is not None else None,
        timeline_start=round(start, 2),
        timeline_width=round(max(0.6, min(100 - start, 100 * took / whole)), 2),
    )


def _figures(done: int | None, total: int | None) -> str:
    if done is None or not total:
        return ""
    return f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total < 1e9 else f"{done / 1e9:.1f} of {total / 1e9:.1f} GB"
