"""What a run tells: a line for each round, all that is known of a violation, and the table at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.db.models import Count

from models_admin.models import ModelInstance, SwitchEvent, SwitchJob
from tests.chaos.doing import Story
from tests.chaos.schedule import Fault, Round
from tests.chaos.striking import Struck
from tests.chaos.world import World

TAIL_LINES = 60
SHOWN_JOBS = 12


@dataclass
class Tally:
    """The figures of a run."""

    rounds: int = 0
    struck: Struck = field(default_factory=Struck)
    slowest: dict[str, float] = field(default_factory=dict)  # by fault, seconds from the last strike until quiet
    violations: list[str] = field(default_factory=list)

    def note_recovery(self, round_: Round, seconds: float) -> None:
        """How long it took until all was quiet again. Rounds with two faults count for themselves."""
        kind = str(round_.strikes[0].kind) if len(round_.strikes) == 1 else "two at once"
        self.slowest[kind] = max(seconds, self.slowest.get(kind, 0.0))


def table(tally: Tally) -> str:
    """Faults by kind, jobs by end, violations."""
    return "\n".join([*_fault_lines(tally), "", *_job_lines(), "", f"{'violations':<24}{len(tally.violations):>8}"])


def _fault_lines(tally: Tally) -> Iterator[str]:
    yield f"{'fault':<24}{'times':>8}{'missed':>8}{'slowest recovery':>20}"
    for kind in Fault:
        times, missed = tally.struck.counts.get(kind, 0), tally.struck.missed.get(kind, 0)
        if times or missed:
            yield f"{kind:<24}{times:>8}{missed:>8}{_seconds(tally.slowest.get(kind)):>20}"
    if "two at once" in tally.slowest:
        yield f"{'two at once':<40}{_seconds(tally.slowest['two at once']):>20}"


def _seconds(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.1f} s"


def _job_lines() -> Iterator[str]:
    yield f"{'jobs ended as':<24}{'times':>8}"
    ends = SwitchJob.objects.values_list("state").annotate(times=Count("pk")).order_by("-times")
    for state, times in ends:
        yield f"{state:<24}{times:>8}"
    codes = Counter(SwitchJob.objects.exclude(error_code="").values_list("error_code", flat=True))
    yield "reasons: " + (", ".join(f"{code} {times}" for code, times in codes.most_common()) or "none")


def story_of(world: World, seed: int, round_: Round, story: Story, found: list[str], *, is_only: bool = False) -> str:
    """Everything that is needed to understand a violation, and to see it again."""
    parts: list[tuple[str, Callable[[], str]]] = [
        ("what was planned", lambda: str(round_)),
        ("what happened", story.as_text),
        ("the last jobs", _jobs_text),
        ("what is recorded as loaded", _instances_text),
        ("the end of the log of `up`", lambda: "\n".join(world.stack.lines[-TAIL_LINES:])),
        ("the ends of the models' logs", lambda: "\n".join(_model_logs(world.runtime_dir))),
    ]
    head = f"VIOLATED in round {round_.number} of seed {seed}:\n" + "\n".join(f"  {line}" for line in found)
    only = f" --fault {round_.strikes[0].kind}" if is_only else ""
    again = f"See it again: python -m tests.chaos --seed {seed} --first {round_.number} --rounds 1{only}"
    return "\n\n".join([head, *(f"--- {title}\n{text()}" for title, text in parts), again])


def _jobs_text() -> str:
    lines = []
    for job in reversed(SwitchJob.objects.order_by("-pk")[:SHOWN_JOBS]):
        asked = f"cancel asked {job.cancel_requested_at:%X}" if job.cancel_requested_at else ""
        lines.append(
            f"#{job.pk} {job.kind} {job.target_name} {job.state} {job.error_code} by {job.requested_by_name} "
            f"created {job.created_at:%X.%f} started {job.started_at and f'{job.started_at:%X.%f}'} "
            f"heartbeat {job.heartbeat_at and f'{job.heartbeat_at:%X}'} ended {job.finished_at and f'{job.finished_at:%X.%f}'} {asked} "
            f"superseded by {job.superseded_by_id} unloaded {[entry['model_id'] for entry in job.unloaded]} {job.aftermath}"
        )
        events = SwitchEvent.objects.filter(job=job).order_by("seq")
        lines += [f"    {e.seq} {e.at:%X.%f} {e.state} {e.percent:.0f} % {e.text}" for e in events]
    return "\n".join(lines)


def _instances_text() -> str:
    rows = ModelInstance.objects.select_related("model")
    return "\n".join(
        f"{row.model.model_id} {row.instance_id} {row.state} active {row.is_active} pid {row.pid} {row.base_url} {row.exit_text}"
        for row in rows
    )


def _model_logs(runtime_dir: Path) -> Iterator[str]:
    newest = sorted(runtime_dir.rglob("*.log"), key=lambda path: path.stat().st_mtime)[-4:]
    for path in newest:
        yield f"{path.relative_to(runtime_dir)}:"
        yield from (f"    {line[:200]}" for line in path.read_text(errors="replace").splitlines()[-8:])
