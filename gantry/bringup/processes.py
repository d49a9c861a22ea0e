"""The commands of the three kinds of processes that `up` runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gantry.env import SUPERVISED

# Seconds that an answer may go on after its reader left, so that it is stored, before the web server ends it.
CLOSE_TIMEOUT_SECONDS = 30
# One thread runs the switch; the others reconcile, scan and answer chats meanwhile.
WORKER_THREADS = 8


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the commands depend on."""

    host: str
    bind: str
    port: int
    run_dir: Path
    log_level: str


def commands(role: str, options: RunOptions) -> dict[str, list[str]]:
    """Name and command of each process of a role: all, web, worker or scheduler."""
    known = {"web": web_command, "worker": worker_command, "scheduler": scheduler_command}
    return {name: make(options) for name, make in known.items() if role in {"all", name}}


def web_command(options: RunOptions) -> list[str]:
    """Daphne. Quiet: requests are no news, and what goes wrong comes through the log."""
    daphne = [sys.executable, "-m", "daphne", "--verbosity", "0", "--no-server-name"]
    listening = ["--bind", options.bind.strip("[]"), "--port", str(options.port)]
    return [*daphne, *listening, "--application-close-timeout", str(CLOSE_TIMEOUT_SECONDS), "gantry.asgi:application"]


def worker_command(options: RunOptions) -> list[str]:
    """A worker that takes what any worker may do and what concerns this host's runtimes."""
    queues = f"gantry,host.{options.host}"
    pool = ["--pool", "threads", "--concurrency", str(WORKER_THREADS), "--queues", queues]
    alone = ["--without-gossip", "--without-mingle"]  # workers have nothing to tell each other
    return [*_celery("worker", options), *pool, "--hostname", f"{options.host}@%h", *alone]


def scheduler_command(options: RunOptions) -> list[str]:
    """Celery's beat; its memory of what ran when lies beside the locks."""
    return [*_celery("beat", options), "--schedule", str(options.run_dir / "schedule"), "--pidfile", ""]


def _celery(command: str, options: RunOptions) -> list[str]:
    return [
        sys.executable,
        "-m",
        "celery",
        "--quiet",
        "--app",
        "gantry.celery",
        command,
        "--loglevel",
        options.log_level,
    ]


def environment_for(host: str, additions: Mapping[str, str]) -> dict[str, str]:
    """The environment of the processes: this one's, with `additions`."""
    settings_module = os.environ.get("DJANGO_SETTINGS_MODULE", "gantry.settings")
    return {
        **os.environ,
        **additions,
        "DJANGO_SETTINGS_MODULE": settings_module,
        "GANTRY_HOST": host,
        SUPERVISED: "1",
        "PYTHONUNBUFFERED": "1",  # a line is shown when it is written
    }
