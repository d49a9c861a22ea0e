"""What a chat page shows of models and of a switch: banner, lock of the input, model menu. Made from the rows, or from a job's event.

Nothing here decides: who may switch or cancel is asked by the caller and comes in as an `Audience`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from gantry.live import JobSnapshot
from gantry.planning.states import JobKind, JobState, ModelState
from gantry.planning.wording import wording
from models_admin import overview
from models_admin.job_view import putting_back
from models_admin.models import ModelDefinition, ModelInstance, SwitchJob
from models_admin.overview import ModelRow
from models_admin.snapshots import job_snapshot
from models_admin.templatetags.gantry_format import seconds, seconds_left

SELECT_A_MODEL = "Select a model to start chatting"
FAILURE_SHOWN = timedelta(minutes=10)  # how long a page that is opened still tells of the last failure

DOING: Mapping[str, str] = {
    JobKind.UNLOAD: "Unloading",
    JobKind.UNLOAD_ALL: "Unloading",
    JobKind.RESTART: "Restarting",
    JobKind.PRELOAD: "Loading in the background:",
    JobKind.CALL: "Making one call to",
}

_LOADED = {ModelState.ACTIVE, ModelState.LOADED, ModelState.DRAINING, ModelState.UNLOADING}


@dataclass(frozen=True, slots=True)
class Audience:
    """Who looks, as far as the picture depends on it."""

    may_switch: bool
    may_cancel: bool
    may_ask: bool = False  # others, for a model


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong last, and the model that can be tried (again)."""

    sentence: str
    aftermath: str
    model_pk: int | None
    action: str


@dataclass(frozen=True, slots=True)
class MenuGroup:
    """Part of the model menu."""

    title: str
    rows: tuple[ModelRow, ...]


@dataclass(frozen=True, slots=True)
class ChatStatus:
    """All of it. `rows` are all models, or only those that the job's progress changes (and the active one) when `is_partial`."""

    job: JobSnapshot | None
    rows: tuple[ModelRow, ...]
    failure: Failure | None = None
    is_partial: bool = False

    @property
    def active(self) -> ModelRow | None:
        """The model that answers now."""
        return next((row for row in self.rows if row.state == ModelState.ACTIVE), None)

    @property
    def target(self) -> ModelRow | None:
        """The model that the job is about."""
        return next((row for row in self.rows if self.job and row.model.model_id == self.job["target_id"]), None)

    @property
    def is_locked(self) -> bool:
        """The input is locked because no model answers for a while. A job for which nobody has to wait locks nothing."""
        return self.job is not None and self.job["interrupts"]

    @property
    def is_putting_back(self) -> bool:
        """The job has failed; its target will not answer, and what answered before comes back."""
        return self.job is not None and bool(putting_back(self.job))

    @property
    def can_choose(self) -> bool:
        """Another model can be chosen: also while a switch runs, which is then taken over from."""
        return self.job is None or self.job["kind"] in {JobKind.SWITCH, JobKind.PRELOAD}

    @property
    def can_send(self) -> bool:
        """A question would be taken."""
        return not self.is_locked and self.active is not None and not self.active.model.is_embedding

    @property
    def placeholder(self) -> str:
        """What the empty input says."""
        if self.job is not None and (self.is_locked or self.active is None):
            return _placeholder(self.job)
        if self.active is None:
            return SELECT_A_MODEL
        if self.active.model.is_embedding:
            return f"{self.active.model.name} makes embeddings and cannot chat. Select another model"
        return f"Message {self.active.model.name}"

    @property
    def headline(self) -> str:
        """The banner's first line."""
        return _headline(self.job) if self.job else ""

    @property
    def time_text(self) -> str:
        """How long it will still take, as far as that is known."""
        return _time_text(self.job) if self.job else ""

    @property
    def announcement(self) -> str:
        """For screen readers: changes when a state does, and every 25 %; not with each percent."""
        if self.job is not None:
            quarter = self.job["percent"] // 25 * 25
            return _headline(self.job) + (f" {quarter} percent" if quarter else "")
        if self.failure is not None:
            return f"{self.failure.sentence} {self.failure.aftermath}".strip()
        return f"{self.active.model.name} is active." if self.active else f"{SELECT_A_MODEL}."

    @property
    def groups(self) -> tuple[MenuGroup, ...]:
        """The model menu, in groups that are not empty."""
        loaded = tuple(row for row in self.rows if row.state in _LOADED)
        missing = tuple(row for row in self.rows if row.state == ModelState.NOT_DOWNLOADED)
        ready = tuple(row for row in self.rows if row.state not in _LOADED | {ModelState.NOT_DOWNLOADED})
        groups = (
            MenuGroup("Loaded", tuple(sorted(loaded, key=lambda row: row.state != ModelState.ACTIVE))),
            MenuGroup("Ready to load", ready),
            MenuGroup("Not downloaded", missing),
        )
        return tuple(group for group in groups if group.rows)


def read() -> ChatStatus:
    """The status from the rows. The number of queries does not depend on how many models or jobs there are."""
    job = overview.current_job()
    rows = overview.model_rows(job)
    return ChatStatus(job=job, rows=rows, failure=None if job else _failure(rows))


def progress(job: JobSnapshot) -> ChatStatus:
    """The status while a job goes on, as far as its progress changes it: two queries, three when people go on chatting."""
    ids = [job["target_id"]]
    if not job["interrupts"]:
        ids += ModelInstance.objects.filter(is_active=True).values_list("model__model_id", flat=True)
    return ChatStatus(job=job, rows=overview.model_rows(job, model_ids=ids), is_partial=True)


def _failure(rows: Iterable[ModelRow]) -> Failure | None:
    """A model that crashed, else the last job when it failed a short time ago."""
    crashed = next((row for row in rows if row.is_crashed), None)
    if crashed is not None:
        return _crash(crashed)
    last = SwitchJob.objects.select_related("target").first()
    if last is None or last.state not in {JobState.FAILED, JobState.INTERRUPTED}:
        return None
    if last.finished_at is None or last.finished_at < timezone.now() - FAILURE_SHOWN:
        return None
    return _failed_job(job_snapshot(last), last.target)


def _crash(row: ModelRow) -> Failure:
    code = row.instance.error_code if row.instance else ""
    cause = f": {wording(code).short}" if code else ""
    return Failure(f"{row.model.name} crashed{cause}.", "", row.model.pk, "Load it again")


def _failed_job(job: JobSnapshot, target: ModelDefinition | None) -> Failure:
    doing = DOING.get(job["kind"], "Switching to")
    cause = wording(job["error_code"]).short if job["error_code"] else "interrupted"
    is_load = target is not None and job["kind"] in {JobKind.SWITCH, JobKind.RESTART}
    return Failure(
        sentence=f"{doing} {job['target_name']} failed: {cause}.",
        aftermath=job["aftermath"],
        model_pk=target.pk if target is not None and is_load else None,
        action="Try again",
    )


def _doing(job: JobSnapshot, *, with_source: bool) -> str:
    if last_act := putting_back(job):
        return f"{last_act}…"
    if job["kind"] != JobKind.SWITCH:
        return f"{DOING[job['kind']]} {job['target_name']}…"
    has_source = with_source and job["from_name"] and job["from_name"] != job["target_name"]
    return f"Switching{' from ' + job['from_name'] if has_source else ''} to {job['target_name']}…"


def _headline(job: JobSnapshot) -> str:
    return _doing(job, with_source=True)


def _placeholder(job: JobSnapshot) -> str:
    words = _doing(job, with_source=False)
    left = job["eta_seconds"]
    if left is None or job["is_over_estimate"]:
        return words
    return f"{words} ({max(1, round(left))}s remaining)"


def _time_text(job: JobSnapshot) -> str:
    if job["is_over_estimate"]:
        return f"taking longer than usual (usually {seconds(round(job['expected_seconds']))})"
    return "" if job["eta_seconds"] is None else f"about {seconds_left(job['eta_seconds'])} left"
