"""Loads that stand still where a test wants them to, as with a disk that has stopped answering."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gantry.runtimes.llama_instance import InstanceFolder
from gantry.runtimes.llama_progress import sample_memory
from gantry.runtimes.process import ProcessMark
from tests.functional.stack import wait_until

SLICE_SECONDS = 0.002  # in which it reads a few megabytes
LOOK_SECONDS = 0.01
WAIT_SECONDS = 30.0


class HeldLoad:
    """The load of a model whose server stops itself before its first step. Goes on only as far as it is let."""

    def __init__(self, state_dir: Path, path: Path) -> None:
        """Wait until the server of this model file has been started and stands still."""
        self._size = path.stat().st_size
        found: list[ProcessMark] = []

        def has_come() -> bool:
            found[:] = [mark for mark in _servers(state_dir, path) if _is_stopped(mark)]
            return bool(found)

        wait_until(has_come, WAIT_SECONDS, lambda: f"no server of {path.name} stands still")
        [self.mark] = found

    def read_until(self, share: float) -> None:
        """Let it read about so much of the file (0 to 1), which it must not map; then it stands still again."""
        while sample_memory(self.mark.pid).read < share * self._size:
            assert self.mark.send(signal.SIGCONT), "it has ended"
            time.sleep(SLICE_SECONDS)
            self.stop()

    def stop(self) -> None:
        """It stands still."""
        assert self.mark.send(signal.SIGSTOP), "it has ended"

    def go_on(self) -> None:
        """It runs on freely."""
        assert self.mark.send(signal.SIGCONT), "it has ended"

    def kill(self) -> None:
        """Ends it as the kernel does when memory runs out."""
        assert self.mark.send(signal.SIGKILL), "it has ended"


@contextmanager
def ending_when_asked(state_dir: Path) -> Iterator[None]:
    """Meanwhile a server that stands still goes on once it has been told to end, and so ends at once."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(LOOK_SECONDS):
            for mark in _servers(state_dir):
                if _is_told_to_end(mark):
                    mark.send(signal.SIGCONT)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def release_all(state_dir: Path) -> None:
    """Whatever stands still goes on."""
    for mark in _servers(state_dir):
        mark.send(signal.SIGCONT)


def _servers(state_dir: Path, path: Path | None = None) -> list[ProcessMark]:
    folders = [folder for folder in InstanceFolder.all_in(state_dir) if folder.spec]
    if path is not None:
        folders = [folder for folder in folders if str(path) in folder.spec["argv"]]
    return [mark for folder in folders if (mark := folder.child) is not None]


def _is_stopped(mark: ProcessMark) -> bool:
    return _status(mark.pid, "State:").startswith("T")


def _is_told_to_end(mark: ProcessMark) -> bool:
    pending = _status(mark.pid, "ShdPnd:")
    return _is_stopped(mark) and bool(int(pending or "0", 16) & 1 << (signal.SIGTERM - 1))


def _status(pid: int, name: str) -> str:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix(name).strip() for line in lines if line.startswith(name)), "")
