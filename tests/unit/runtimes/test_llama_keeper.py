"""Keepers that are at hand before anything is to be kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gantry.runtimes import llama_keeper
from gantry.runtimes.llama_instance import InstanceFolder
from gantry.runtimes.llama_shim import read_start
from tests.functional.stack import wait_until

WAIT_SECONDS = 10.0
SCRIPT = """
import time
from gantry.runtimes import llama_keeper
llama_keeper.ready_keeper()
while llama_keeper._spares._waiting is None:
    time.sleep(0.01)
print(llama_keeper._spares._waiting.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def spare(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A keeper that waits."""
    spares = llama_keeper._Spares()
    monkeypatch.setattr(llama_keeper, "_spares", spares)
    spares.fill()
    keeper = spares._waiting
    assert keeper is not None
    yield keeper
    keeper.kill()
    keeper.wait(10)
    if keeper.stdin is not None:
        keeper.stdin.close()


@pytest.fixture
def folder(tmp_path: Path) -> InstanceFolder:
    """An instance whose server says hello and goes."""
    folder = InstanceFolder.of(tmp_path, "one")
    folder.create({"argv": ["/bin/sh", "-c", "echo hello $NAME from $PWD"], "port": 1}, "key")
    return InstanceFolder(folder.path)


def test_the_one_that_waits_is_taken(spare: subprocess.Popen[bytes], folder: InstanceFolder) -> None:
    keeper = llama_keeper.start_keeper(folder, {"NAME": "Ann", "PATH": "/bin:/usr/bin"})
    assert keeper.pid == spare.pid
    wait_until(lambda: folder.has_ended, WAIT_SECONDS)
    assert folder.log_tail(1) == (f"hello Ann from {folder.path}",)
    assert folder.keeper is not None
    assert folder.keeper.pid == spare.pid


def test_each_is_taken_once(spare: subprocess.Popen[bytes], folder: InstanceFolder, tmp_path: Path) -> None:
    other = InstanceFolder.of(tmp_path, "two")
    other.create(folder.spec, "key")
    first = llama_keeper.start_keeper(folder, {})
    second = llama_keeper.start_keeper(InstanceFolder(other.path), {})
    assert first.pid == spare.pid != second.pid
    wait_until(lambda: folder.has_ended and other.has_ended, WAIT_SECONDS)


def test_one_that_was_ended_while_it_waited_is_replaced(spare: subprocess.Popen[bytes], folder: InstanceFolder) -> None:
    spare.kill()
    spare.wait(10)
    keeper = llama_keeper.start_keeper(folder, {})
    assert keeper.pid != spare.pid
    wait_until(lambda: folder.has_ended, WAIT_SECONDS)


def test_one_waits_at_most_and_a_dead_one_counts_for_none(spare: subprocess.Popen[bytes]) -> None:
    llama_keeper._spares.fill()
    assert llama_keeper._spares._waiting is spare
    spare.kill()
    spare.wait(10)
    llama_keeper._spares.fill()
    other = llama_keeper._spares.take()
    assert other is not None
    assert other is not spare
    llama_keeper._give(other, b"")
    assert other.wait(10) == 0


def test_it_ends_with_the_worker_also_when_that_is_killed() -> None:
    worker = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert worker.stdout is not None
    with worker.stdout as said:
        pid = int(said.readline())
        started = read_start(pid)
        assert started is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
    wait_until(lambda: read_start(pid) != started or _is_zombie(pid), WAIT_SECONDS)


def _is_zombie(pid: int) -> bool:
    """Whether it has ended and nobody has collected it yet: its parent is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True
