"""A job in a terminal: a bar for people, lines for logs, and what becomes of it at Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import redis
from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db.utils import DatabaseError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from typing_extensions import override

from gantry.live import JobSnapshot
from gantry.planning.states import JobState
from models_admin import actions, worker_signs
from models_admin.actor import COMMAND
from models_admin.exceptions import ActionRefused, InvalidDefinition, ModelUnknown
from models_admin.job_view import job_view
from models_admin.models import ModelDefinition, SwitchJob
from models_admin.snapshots import job_snapshot

LOOK_SECONDS = 0.2
FAILED, BAD_USAGE = 1, 2  # exit codes
_TENTH = 10  # percent between two lines


class WordyCommand(BaseCommand):
    """Base of commands that ask for an action. Exit codes: 0 done (or asked for), 1 it failed or was refused, 2 bad usage."""

    @override
    def execute(self, *args: object, **options: object) -> str | None:
        """Say refusals in words, with what to do."""
        try:
            return super().execute(*args, **options)
        except ModelUnknown as exc:
            raise CommandError(f"{exc} See `manage.py models list`.", returncode=BAD_USAGE) from exc
        except InvalidDefinition as exc:
            errors = "; ".join(f"{place} {message}" for place, message in exc.errors)
            raise CommandError(f"{exc} {errors}".strip(), returncode=BAD_USAGE) from exc
        except ActionRefused as exc:
            raise CommandError(f"{exc} {exc.hint}".strip()) from exc
        except DatabaseError as exc:
            raise CommandError(f"The database cannot be read ({exc}): start Gantry once with `manage.py up`.") from exc


class JobCommand(WordyCommand):
    """Base of the commands that ask for a job."""

    def find_model(self, name: str) -> ModelDefinition:
        """A model by its id or, where only one has it, by its name.

        Raises:
            ModelUnknown: there is none.
        """
        named = list(ModelDefinition.objects.with_runtime().filter(name=name)[:2])
        if len(named) == 1 and not ModelDefinition.objects.filter(model_id=name).exists():
            return named[0]
        return actions.find_model(name)

    @property
    def has_terminal(self) -> bool:
        """Somebody sits in front of it: may be asked, and sees a bar."""
        return bool(self.stdout.isatty())

    def confirmed(self, question: str) -> bool:
        """Ask on the terminal; no answer is a no."""
        try:
            return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
        except (EOFError, KeyboardInterrupt):
            self.stdout.write("")
            return False

    def finish(self, jobs: Sequence[SwitchJob], *, waits: bool) -> None:
        """Follow jobs to their end, one after the other, or say how to.

        Raises:
            CommandError: one did not succeed.
        """
        for job in jobs:
            self._warn_without_worker(job)
            if not waits:
                title = job_view(job_snapshot(job)).title
                self.stdout.write(
                    f"{title}: asked for as job {job.pk}. `manage.py status` shows how far it is, --wait waits for it."
                )
                continue
            end = follow(job.pk, self.stdout)
            if end is None:
                self.stdout.write(f"Job {job.pk} goes on. `manage.py status` shows how far it is.")
                return
            self._tell_end(end)

    def _tell_end(self, job: JobSnapshot) -> None:
        words = " ".join(part for part in (job_view(job).outcome, job["error_text"], job["aftermath"]) if part)
        if job["state"] != JobState.SUCCEEDED:
            raise CommandError(f"{words} {job['error_hint']}".strip(), returncode=FAILED)
        self.stdout.write(words)

    def _warn_without_worker(self, job: SwitchJob) -> None:
        try:
            is_heard = job.pool.host in worker_signs.living_hosts()
        except redis.RedisError:
            is_heard = False
        if not is_heard:
            self.stderr.write(
                f"No worker is heard of on {job.pool.host}: job {job.pk} begins once one runs (`manage.py up`)."
            )


class _View(Protocol):
    """Shows a job as it moves."""

    def show(self, job: JobSnapshot) -> None: ...

    def close(self) -> None: ...


def follow(job_id: int, out: OutputWrapper) -> JobSnapshot | None:
    """Show a job until it has ended. At Ctrl-C, ask what shall become of it.

    Returns:
        Its end; None when it is left alone.
    """
    has_terminal = bool(out.isatty())
    while True:
        view: _View = _Bar() if has_terminal else _Lines(out)
        try:
            return _watch(job_id, view)
        except KeyboardInterrupt:
            view.close()
            if not has_terminal or _leaves_it(job_id):
                return None
        finally:
            view.close()


def _watch(job_id: int, view: _View) -> JobSnapshot:
    while True:
        job = job_snapshot(SwitchJob.objects.select_related("target").get(pk=job_id))
        view.show(job)
        if job["is_finished"]:
            return job
        time.sleep(LOOK_SECONDS)


def _leaves_it(job_id: int) -> bool:
    """Whether the job is to go on alone; cancels it if that is what is wanted."""
    try:
        answer = input("\nCancel it, leave it running, or watch on? [c/l/W] ").strip().lower()
    except (EOFError, KeyboardInterrupt):  # once more: out of here, and nothing is broken off
        return True
    if answer.startswith("c"):
        actions.cancel_job(SwitchJob.objects.get(pk=job_id), actor=COMMAND)
    return answer.startswith("l")


class _Bar:
    """One line that redraws itself: what is done, how much of it, how long it will still take."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[figures]}", markup=False),
            TextColumn("{task.fields[left]}", markup=False),
            console=Console(highlight=False),
        )
        self._task: TaskID | None = None

    def show(self, job: JobSnapshot) -> None:
        """Redraw."""
        if self._task is None:
            self._progress.start()
            self._task = self._progress.add_task("", total=100, figures="", left="")
        view = job_view(job)
        text = "Cancelling" if job["is_cancelling"] else job["stage_text"]
        self._progress.update(
            self._task, description=text, completed=job["percent"], figures=view.figures, left=view.time_left
        )

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()


class _Lines:
    """A line whenever the stage changes, and at every tenth."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        self._last: tuple[str, int] | None = None

    def show(self, job: JobSnapshot) -> None:
        """Write a line if there is something new to say."""
        now = job["stage_text"], job["percent"] // _TENTH
        if now == self._last or job["is_finished"]:
            return
        self._last = now
        view = job_view(job)
        parts = [f"{job['percent']:3} %  {job['stage_text']}", view.figures, view.time_left]
        self._out.write(", ".join(part for part in parts if part))
        self._out.flush()

    def close(self) -> None:
        """Nothing to tidy up."""
