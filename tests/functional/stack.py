"""A whole Gantry for tests: `manage.py up` in a data folder of its own, on a free port, always ended again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
ADMIN_NAME, ADMIN_PASSWORD = "ann", "pass-ann"
READY_SECONDS = 60.0
END_SECONDS = 40.0  # five for the processes, then what models need to end
_FOREIGN = ("GANTRY_", "DJANGO_", "DATABASE_URL", "REDIS_URL", "SECRET_KEY")


@dataclass
class Stack:
    """A running `up`. `lines` grows as it prints."""

    url: str  # ends with a slash
    data_dir: Path
    process: subprocess.Popen[str]
    environment: Mapping[str, str] = field(repr=False)
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Begin to read what it prints."""
        self.reader = threading.Thread(target=_read, args=(self.process, self.lines), daemon=True)
        self.reader.start()

    @property
    def pid(self) -> int:
        """Of `up` itself."""
        return self.process.pid

    def children(self) -> list[psutil.Process]:
        """Every process below `up`, models too as long as the worker that loaded them lives."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def child(self, *words: str) -> psutil.Process:
        """The one child whose command holds all these words, such as ("celery", "worker")."""
        # Each is started by a copy of `up`, which has up's own command line.
        [found] = [child for child in self.children() if _has(child, words)]
        return found

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of manage.py in the same surroundings."""
        return run_manage(arguments, self.environment)

    def has_said(self, text: str) -> bool:
        """Whether a line with this text was printed."""
        return any(text in line for line in list(self.lines))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as a person would and return its exit code; whatever is left after a while is killed.

        Raises:
            AssertionError: it had to be killed.
        """
        children = self.children()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError("\n".join(["up did not end:", *self.lines])) from None
        finally:
            _kill([*children, *self.children()])
            self.kill()

    def kill(self) -> None:
        """End `up` itself by SIGKILL, as the kernel might."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(timeout=5)  # what it started may still hold the other end for a moment


def start_stack(data_dir: Path, env: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> Stack:
    """Start Gantry and return once /readyz says that database, broker and worker answer.

    The administrator is ADMIN_NAME with ADMIN_PASSWORD; models have 1 GiB unless `env` says otherwise.

    Raises:
        AssertionError: it ended or was not ready in time; the text holds what it printed. Nothing is left running.
    """
    stack = launch(data_dir, env, arguments)
    try:
        wait_until(lambda: _is_ready(stack), READY_SECONDS, lambda: "\n".join(["not ready:", *stack.lines]))
    except BaseException:
        stack.stop()
        raise
    return stack


def launch(data_dir: Path, env: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> Stack:
    """Start Gantry and return at once."""
    environment = environment_for(data_dir, env)
    process = subprocess.Popen(
        [sys.executable, "manage.py", "up", *arguments],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return Stack(f"http://127.0.0.1:{environment['GANTRY_PORT']}/", data_dir, process, environment)


def environment_for(data_dir: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without anybody's Gantry settings, and with those of the test."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return {
        **own,
        "GANTRY_ENV_FILE": "",
        "GANTRY_DATA_DIR": str(data_dir),
        "GANTRY_PORT": str(free_port()),
        "GANTRY_MEMORY": "fixed:1GiB",
        "GANTRY_LIMITS": "false",  # tests switch more often than people do; those of the limits say otherwise
        "DJANGO_SETTINGS_MODULE": "gantry.settings",
        "DJANGO_SUPERUSER_USERNAME": ADMIN_NAME,
        "DJANGO_SUPERUSER_PASSWORD": ADMIN_PASSWORD,
        **(env or {}),
    }


def run_manage(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of manage.py to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], seconds: float, story: Callable[[], str] = lambda: "") -> None:
    """Ask again and again until `condition` holds.

    Raises:
        AssertionError: it did not within `seconds`; the text is `story`'s.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, story() or f"not within {seconds} s"
        time.sleep(0.05)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; one that has ended and was not collected yet does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
    if process.stdout:
        with process.stdout:
            lines.extend(line.rstrip("\n") for line in process.stdout)


def _is_ready(stack: Stack) -> bool:
    assert stack.process.poll() is None, "\n".join(["up ended:", *stack.lines])
    try:
        return httpx.get(f"{stack.url}readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _has(process: psutil.Process, words: Sequence[str]) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    return all(word in command for word in words)


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        if is_alive(process):
            process.kill()
