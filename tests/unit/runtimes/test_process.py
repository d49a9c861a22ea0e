"""Processes are proven before they are touched."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gantry.runtimes.llama_shim import read_boot_id, read_start
from gantry.runtimes.process import ProcessMark, group_of, listens_on, mark_from, wait_gone


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 30 & wait"], process_group=0) as process:
        yield process
        for mark in group_of(mark_of(process.pid)):
            mark.send(signal.SIGKILL)


def mark_of(pid: int) -> ProcessMark:
    start = read_start(pid)
    assert start is not None
    return ProcessMark(pid, start)


def test_living_process_is_proven_and_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    mark = mark_of(sleeper.pid)
    assert mark.is_alive
    assert mark.send(signal.SIGKILL)
    assert wait_gone([mark], 2)  # although nobody has collected it yet
    assert not mark.is_alive


def test_same_number_with_another_start_is_a_stranger(sleeper: subprocess.Popen[bytes]) -> None:
    stranger = replace(mark_of(sleeper.pid), start=1)
    assert not stranger.is_alive
    assert not stranger.send(signal.SIGKILL)
    assert sleeper.poll() is None


def test_gone_process_gets_no_signal() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        mark = ProcessMark(process.pid, read_start(process.pid) or 0)
    assert not mark.is_alive
    assert not mark.send(signal.SIGTERM)


def test_group_has_all_that_the_leader_started(sleeper: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if len(group_of(mark_of(sleeper.pid))) == 2:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the child of the shell is not in the group")
    assert group_of(ProcessMark(sleeper.pid, 1)) == []


def test_wait_ends_when_the_time_is_over(sleeper: subprocess.Popen[bytes]) -> None:
    assert not wait_gone([mark_of(sleeper.pid)], 0.05)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"boot_id": "of another boot", "child": {"pid": 1, "start": 1}},
        {"boot_id": read_boot_id(), "child": {"pid": 1, "start": None}},
        {"boot_id": read_boot_id(), "child": None},
    ],
)
def test_record_that_proves_nothing_gives_no_mark(record: dict[str, object]) -> None:
    assert mark_from(record, "child") is None


def test_record_of_this_boot_gives_a_mark() -> None:
    assert mark_from({"boot_id": read_boot_id(), "child": {"pid": 7, "start": 9}}, "child") == ProcessMark(7, 9)


def test_gone_process_listens_on_nothing() -> None:
    assert not listens_on(2**22 + 1, 80)
