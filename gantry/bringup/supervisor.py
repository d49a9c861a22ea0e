"""Runs the processes of `up`: honcho's manager, except that a process that ends by itself comes back."""

from __future__ import annotations

import ctypes
import multiprocessing
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from honcho.manager import Manager
from honcho.printer import Message, Printer
from honcho.process import Popen, Process
from typing_extensions import override

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_AFTER_SECONDS = 60.0  # a process that lived this long starts over with the first pause
_PR_SET_PDEATHSIG = 1


class Supervisor(Manager):  # type: ignore[misc] # honcho ships no types
    """Starts processes, shows their lines, brings back what ends by itself, and ends them all together.

    honcho asks `_any_stopped` on each turn whether it is time to end everything, and `_all_stopped` whether it is done:
    that is where this class answers differently.
    """

    on_turn: Callable[[], None] | None = None  # called several times a second while everything runs

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(_Lines(sys.stdout, time_format=""))  # the processes put the time into their own lines
        self._process_ctor = _Child
        self._terminating = False
        self._say = say
        self._last = ""

    def add(
        self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path, *, ends_last: bool = False
    ) -> None:
        """Add a process; `loop` starts it, or `start` at once. The one that `ends_last` serves all the others."""
        self.add_process(name, list(command), env=dict(env), cwd=str(cwd))
        if ends_last:
            self._last = name

    def start(self, name: str) -> None:
        """Start a process, for the first time or again."""
        process = self._processes[name]
        for stale in ("pid", "returncode", "due_at", "is_asked"):
            process.pop(stale, None)
        process["started_at"] = time.monotonic()
        process["process"] = _fork(name, process["obj"].run, self.events)

    def wait_for(self, condition: Callable[[], bool], name: str, seconds: float) -> bool:
        """Show lines until `condition` holds; False when process `name` ends or `seconds` pass before."""
        deadline = time.monotonic() + seconds
        while not condition():
            if "returncode" in self._processes[name] or time.monotonic() > deadline:
                return False
            self._take_event()
        return True

    def close(self) -> None:
        """Make sure that nothing is left; after `loop` there is nothing to do."""
        for process in self._processes.values():
            if "process" in process and process["process"].is_alive():
                process["process"].kill()  # what it runs has asked the kernel to go with it
                process["process"].join(timeout=5)

    @override
    def terminate(self) -> None:
        self._terminating = True  # nothing is printed here: it runs in the signal's handler, perhaps amid another print
        self._killall()

    @override
    def _start(self) -> None:
        for name, process in self._processes.items():
            if "process" not in process:
                self.start(name)

    @override
    def _any_stopped(self) -> bool:
        if self._terminating:
            self._say("Ending…")
            return True
        if self.on_turn:
            self.on_turn()
        for name, process in self._processes.items():
            if "returncode" in process or not process["process"].is_alive():
                self._bring_back(name, process)
        return False

    @override
    def _all_started(self) -> bool:
        return all("pid" in process or not process["process"].is_alive() for process in self._processes.values())

    @override
    def _all_stopped(self) -> bool:
        if not self._terminating:
            return False
        if self._last and not any(self._runs(name) for name in self._processes if name != self._last):
            self._end(self._last)
        return not any(self._runs(name) for name in self._processes)

    @override
    def _killall(self, force: bool = False) -> None:
        for name in self._processes:
            if force or name != self._last:
                self._end(name, force=force)

    @override
    def _system_print(self, data: str) -> None:
        """Honcho's own remarks give way to `say`."""

    def _bring_back(self, name: str, process: dict[str, Any]) -> None:
        now = time.monotonic()
        if "due_at" not in process:
            lived = now - process["started_at"]
            is_first = lived > HEALTHY_AFTER_SECONDS or "pause" not in process
            process["pause"] = FIRST_PAUSE_SECONDS if is_first else min(LONGEST_PAUSE_SECONDS, 2 * process["pause"])
            process["due_at"] = now + process["pause"]
            self._say(
                f"{name} {_how_it_ended(process.get('returncode'))}; starting it again in {process['pause']:.0f} s"
            )
        elif now >= process["due_at"]:
            self.start(name)

    def _runs(self, name: str) -> bool:
        return bool(self._processes[name]["process"].is_alive())

    def _end(self, name: str, *, force: bool = False) -> None:
        process = self._processes[name]
        if "pid" not in process or "returncode" in process:
            return
        if force:
            self._procmgr.kill(process["pid"])
        elif not process.get("is_asked"):  # once: a second SIGTERM means "at once" to some
            process["is_asked"] = True
            self._procmgr.terminate(process["pid"])

    def _take_event(self) -> None:
        with suppress(queue.Empty):
            message = self.events.get(timeout=0.05)
            if message.type == "line":
                self._printer.write(message)
            else:
                self._processes[message.name].update(message.data)  # its pid, or its returncode


class _Child(Process):  # type: ignore[misc] # honcho ships no types
    """A command without a shell in between, so that signals reach it, and that never outlives `up`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._child_ctor = _start_command

    @override
    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _die_with_parent()
        super().run(events, ignore_signals)


class _Lines(Printer):  # type: ignore[misc] # honcho ships no types
    """Lines of the processes, empty ones left out; a reader that went away (`up | head`) is no reason to leave models running."""

    @override
    def write(self, message: Message) -> None:
        if message.data.strip():
            with suppress(OSError):
                super().write(message)


def _fork(name: str, target: Callable[..., None], events: Any) -> multiprocessing.Process:
    process = multiprocessing.Process(name=name, target=target, args=(events, True))
    process.start()
    return process


def _start_command(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    child: subprocess.Popen[bytes] = Popen(
        command, shell=False, stdin=subprocess.DEVNULL, preexec_fn=_prepare_command, **options
    )
    return child


def _prepare_command() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # ignored signals would stay ignored across exec
    _die_with_parent()


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends, even by SIGKILL (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _how_it_ended(returncode: int | None) -> str:
    if returncode is None:
        return "ended"
    if returncode < 0:
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"
