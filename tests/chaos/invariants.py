"""What always holds, asked of the rows and of the machine once a round has become quiet. Each check yields sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from django.db import connection

from gantry.chat.models import Message
from models_admin.models import AuditEntry, SwitchEvent, SwitchJob
from tests.chaos.people import Person
from tests.chaos.striking import Struck
from tests.chaos.watching import Life, Watcher
from tests.chaos.world import World

ENDS = frozenset({"succeeded", "failed", "cancelled", "superseded", "interrupted"})
# Two instants taken by two processes just before they wrote; the database may have let one of them wait.
CLOCK_TOLERANCE = timedelta(seconds=1.5)
_ASKED_FOR = frozenset({"unload", "unload_all", "restart"})


@dataclass
class Memory:
    """What was seen in earlier rounds and must never change."""

    jobs: dict[int, tuple[object, ...]] = field(default_factory=dict)
    answers: dict[int, tuple[str, str]] = field(default_factory=dict)
    audit: Mapping[int, tuple[object, ...]] = field(default_factory=dict)
    lives: set[str] = field(default_factory=set)  # whose end was explained
    lines_read: int = 0


def violations(world: World, watcher: Watcher, struck: Struck, memory: Memory) -> list[str]:
    """Everything that does not hold, each with the name of the invariant."""
    new = [job for job in SwitchJob.objects.order_by("pk") if job.pk not in memory.jobs]
    return [
        *watcher.take_problems(),
        *one_at_a_time(new),
        *ended_once(new, memory),
        *pins_held(new),
        *only_planned_unloads(watcher, struck, memory),
        *no_fault_of_its_own(new),
        *_decoy_untouched(world),
        *_answered_once(world, memory),
        *audit_only_grows(memory),
        *_no_secret_seen(world, watcher, new, memory),
    ]


def one_at_a_time(jobs: list[SwitchJob]) -> Iterator[str]:
    """I1: the constraint is there, and no two jobs were at work at once."""
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, SwitchJob._meta.db_table)
    constraint: Mapping[str, object] = constraints.get("one_working_job_per_pool", {})
    if not constraint.get("unique"):
        yield "I1: the constraint one_working_job_per_pool is missing"
    worked = sorted((job for job in jobs if job.started_at and job.finished_at), key=_began)
    for earlier, later in pairwise(worked):
        if earlier.finished_at and _began(later) < earlier.finished_at - CLOCK_TOLERANCE:
            yield f"I1: job {later.pk} began at {later.started_at} before job {earlier.pk} ended at {earlier.finished_at}"


def _began(job: SwitchJob) -> datetime:
    assert job.started_at
    return job.started_at


def ended_once(new: list[SwitchJob], memory: Memory) -> Iterator[str]:
    """I2: each job has one end, told once as its last event and once in the audit log, and it never changes again."""
    for job in new:
        yield from _end_problems(job)
        memory.jobs[job.pk] = (job.state, job.finished_at, job.seq)
    for job in SwitchJob.objects.filter(pk__in=memory.jobs):
        now = (job.state, job.finished_at, job.seq)
        if now != memory.jobs[job.pk]:
            yield f"I2: job {job.pk} changed after its end: {memory.jobs[job.pk]} became {now}"
            memory.jobs[job.pk] = now


def _end_problems(job: SwitchJob) -> Iterator[str]:
    events = list(SwitchEvent.objects.filter(job=job).order_by("seq").values_list("seq", "state"))
    ends = [seq for seq, state in events if state in ENDS]
    if job.state not in ENDS or not job.finished_at:
        yield f"I2: job {job.pk} has not ended: {job.state}"
    if len(ends) != 1 or ends[-1] != events[-1][0]:
        yield f"I2: job {job.pk} ended {len(ends)} times: {events}"
    if [seq for seq, _ in events] != list(range(1, job.seq + 1)):
        yield f"I2: the events of job {job.pk} are not 1 to {job.seq}: {events}"
    if (entries := AuditEntry.objects.filter(job=job, event="job:end").count()) != 1:
        yield f"I2: the end of job {job.pk} stands in the audit log {entries} times"


def pins_held(jobs: list[SwitchJob]) -> Iterator[str]:
    """I6: no switch unloads a model that was pinned when it began and still when it had its plan."""
    for job in jobs:
        planned = SwitchEvent.objects.filter(job=job, text="Planned").first()
        if job.kind in _ASKED_FOR or planned is None or job.started_at is None:
            continue
        for model in job.plan.get("evicted", []):
            if _was_pinned(model["name"], job.started_at, planned.at) and model["model_id"] != _target(job):
                yield f"I6: job {job.pk} ({job.kind} {job.target_name}) was to unload {model['name']}, which was pinned"


def _was_pinned(name: str, began_at: datetime, planned_at: datetime) -> bool:
    """Throughout, by the audit log. What changed within a second of the start counts for nobody."""
    changes = list(AuditEntry.objects.filter(event="model:pin:change", object_text=name).order_by("pk"))
    before = [change for change in changes if change.at < began_at - timedelta(seconds=1)]
    between = [change for change in changes if began_at - timedelta(seconds=1) <= change.at <= planned_at]
    return bool(before) and bool(before[-1].after.get("is_pinned")) and not between


def _target(job: SwitchJob) -> str:
    return job.target.model_id if job.target else ""


def only_planned_unloads(watcher: Watcher, struck: Struck, memory: Memory) -> Iterator[str]:
    """I6, I7: whatever was loaded and is gone was ended by a job whose plan said so, or by a strike."""
    for life in list(watcher.lives.values()):
        is_over = life.crashed or life.gone_at
        if not life.loaded_at or not is_over or life.instance_id in memory.lives:
            continue
        memory.lives.add(life.instance_id)
        if life.instance_id in struck.instances:
            continue
        if life.crashed:
            yield f"I7: {life.model_id} ({life.instance_id[:8]}) crashed, and nothing had struck it"
        elif not any(_explains(job, life) for job in _jobs_around(life.gone_at)):
            yield f"I6: {life.model_id} ({life.instance_id[:8]}) was unloaded, and no plan said so"


def _jobs_around(at: float) -> list[SwitchJob]:
    """Jobs that were at work within a second of this moment."""
    moment = datetime.fromtimestamp(at, tz=UTC)
    second = timedelta(seconds=1)
    jobs = SwitchJob.objects.filter(started_at__lte=moment + second, finished_at__gte=moment - second)
    return list(jobs.select_related("target"))


def _explains(job: SwitchJob, life: Life) -> bool:
    """Whether the job was to unload this, or dropped its own target because it did not succeed."""
    said = {step.get("instance_id") for step in job.plan.get("steps", []) if step["kind"] == "unload"}
    evicted = {model["model_id"] for model in job.plan.get("evicted", [])}
    is_target = _target(job) == life.model_id
    return (
        life.instance_id in said
        or life.model_id in evicted
        or job.kind == "unload_all"
        or (is_target and (job.kind in _ASKED_FOR or job.state != "succeeded"))
    )


def no_fault_of_its_own(jobs: list[SwitchJob]) -> Iterator[str]:
    """No job ended by a bug: what is killed around it is foreseen."""
    for job in jobs:
        if job.error_code == "internal":
            yield f"broken: job {job.pk} ({job.kind} {job.target_name}) met a bug: {job.log_tail}"


def _decoy_untouched(world: World) -> Iterator[str]:
    if not world.decoy.is_untouched:
        yield f"I7: the decoy, process {world.decoy.mark.pid}, was ended (exit {world.decoy.process.poll()})"


def _answered_once(world: World, memory: Memory) -> Iterator[str]:
    """I4: each accepted question has one answer, or an error that says why; what was refused left nothing behind."""
    for person in world.people:
        yield from questions_of(person)
        person.questions.clear()
    for answer in Message.objects.filter(role=Message.Role.ASSISTANT):
        now = (answer.state, answer.text)
        if memory.answers.setdefault(answer.pk, now) != now:
            yield f"I4: answer {answer.pk} changed after its end: {memory.answers[answer.pk]} became {now}"
            memory.answers[answer.pk] = now
            continue
        if answer.state == Message.State.COMPLETE and not answer.text:
            yield f"I4: answer {answer.pk} is complete and empty"
        if answer.state == Message.State.FAILED and not answer.error_text:
            yield f"I4: answer {answer.pk} failed and does not say why"


def questions_of(person: Person) -> Iterator[str]:
    for sent in person.questions:
        found = list(
            Message.objects.filter(role=Message.Role.USER, text=sent.text, conversation__user__username=person.name)
        )
        allowed = {1} if sent.was_accepted else {0, 1} if sent.reply.is_lost or sent.reply.is_broken else {0}
        if len(found) not in allowed:
            yield f"I4: “{sent.text}” was told {sent.reply.status} and is there {len(found)} times"
        for question in found:
            if (answers := len(_answers_to(question))) != 1:
                yield f"I4: “{sent.text}” has {answers} answers"


def _answers_to(question: Message) -> list[Message]:
    answers = []
    for message in Message.objects.filter(conversation=question.conversation_id, pk__gt=question.pk).order_by("pk"):
        if message.role == Message.Role.USER:
            break
        answers.append(message)
    return answers


def audit_only_grows(memory: Memory) -> Iterator[str]:
    """I5: no entry that was there has changed or gone."""
    now = {
        row[0]: row
        for row in AuditEntry.objects.values_list("pk", "at", "event", "object_text", "outcome", "actor_name")
    }
    changed = [pk for pk, row in memory.audit.items() if now.get(pk) != row]
    if changed:
        yield f"I5: audit entries changed or gone: {changed}"
    memory.audit = now


def _no_secret_seen(world: World, watcher: Watcher, jobs: list[SwitchJob], memory: Memory) -> Iterator[str]:
    """I8: no key and no password in a page, an event, the audit log, or what was logged."""
    secrets = {*watcher.secrets, *world.secrets}
    places = {
        "a page": [text for person in world.people for text in person.seen],
        "the log of `up`": world.stack.lines[memory.lines_read :],
        "a job": [f"{job.plan} {job.steps} {job.error_text} {job.log_tail} {job.aftermath}" for job in jobs],
        "an event": SwitchEvent.objects.filter(job__in=jobs).values_list("text", flat=True),
        "the audit log": [str(row) for row in AuditEntry.objects.filter(job__in=jobs).values_list("before", "after")],
        "a log file": [
            path.read_text(errors="replace") for path in world.stack.data_dir.rglob("*.log*") if path.is_file()
        ],
    }
    memory.lines_read = len(world.stack.lines)
    for place, texts in places.items():
        if any(secret in text for text in texts for secret in secrets):
            yield f"I8: a secret stands in {place}"
    for person in world.people:
        person.seen.clear()
