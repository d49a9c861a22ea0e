"""The keeper, with shell scripts in the place of llama-server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gantry.runtimes import llama_shim
from gantry.runtimes.llama_shim import Order

READY = """echo 'cmd_child_to_router:state:{"state":"ready"}'"""
KEY = "the-secret-key-1234"


def wait_for_order(shim: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-E", "-s", str(shim)], stdin=subprocess.PIPE, cwd="/")


def tell(keeper: subprocess.Popen[bytes], order: bytes) -> None:
    assert keeper.stdin is not None
    with keeper.stdin as pipe:
        pipe.write(order)


class Kept:
    """A script under a keeper."""

    def __init__(self, folder: Path, argv: list[str], shim: Path, *, waits: bool = False) -> None:
        self.folder = folder
        (folder / "api_key").write_text(KEY)
        env = {"PATH": "/usr/bin:/bin", "LLAMA_SERVER_ROUTER_PORT": "1"}
        self.process = wait_for_order(shim)
        order = Order(str(folder), argv, env, waits=waits).encode()
        if waits:
            self.say(order)
        else:
            tell(self.process, order)

    def say(self, words: bytes) -> None:
        """More may follow."""
        assert self.process.stdin is not None
        self.process.stdin.write(words)
        self.process.stdin.flush()

    def text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def wait_for(self, name: str, part: str = "") -> str:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if (self.folder / name).exists() and part in self.text(name):
                return self.text(name)
            time.sleep(0.01)
        raise AssertionError(f"{name} has {self.text(name)!r}")

    def exit(self) -> dict[str, Any]:
        self.process.wait(10)
        record: dict[str, Any] = json.loads(self.text("exit.json"))
        return record


Start = Callable[..., Kept]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a script under a keeper whose times are a tenth."""
    source = Path(str(llama_shim.__file__)).read_text()
    shim = tmp_path / "shim.py"
    shim.write_text(
        source.replace("POLITE_SECONDS = 1.0", "POLITE_SECONDS = 0.1").replace(
            "KILL_SECONDS = 5.0", "KILL_SECONDS = 0.5"
        )
    )
    folder = tmp_path / "instance"
    folder.mkdir()
    started: list[Kept] = []

    def start(script: str, *, log_bytes: int = 5_000_000, argv: list[str] | None = None, waits: bool = False) -> Kept:
        shim.write_text(shim.read_text().replace("LOG_BYTES = 5_000_000", f"LOG_BYTES = {log_bytes}"))
        started.append(Kept(folder, argv or ["/bin/sh", "-c", script, "server"], shim, waits=waits))
        return started[-1]

    yield start
    for kept in started:
        kept.process.terminate()
        kept.process.wait(10)
        if kept.process.stdin is not None:
            kept.process.stdin.close()


def test_states_go_to_events_and_the_rest_to_the_log(start: Start) -> None:
    kept = start(f"{READY}; echo spoken; echo complained >&2; printf unfinished")
    assert kept.exit()["code"] == 0
    assert kept.text("events.jsonl") == '{"state":"ready"}\n'
    assert set(kept.text("server.log").splitlines()) == {"spoken", "complained", "unfinished"}


def test_end_is_written_down(start: Start) -> None:
    assert start("exit 3").exit() | {"ended_at": 0} == {"code": 3, "signal": None, "errno": None, "ended_at": 0}


def test_signal_is_written_down(start: Start) -> None:
    assert start("kill -9 $$").exit()["signal"] == 9


def test_program_that_cannot_be_started_is_written_down(start: Start) -> None:
    kept = start("", argv=["/no/such/program"])
    assert kept.exit()["errno"] == 2
    assert "cannot start /no/such/program: No such file" in kept.text("server.log")


def test_key_comes_by_environment_and_never_into_the_log(start: Start) -> None:
    kept = start('echo "got $LLAMA_API_KEY router $LLAMA_SERVER_ROUTER_PORT"; echo "api_keys: ****1234"; echo end')
    kept.exit()
    assert kept.text("server.log") == "got **** router 1\nend\n"


def test_ready_server_is_asked_politely(start: Start) -> None:
    kept = start(f'{READY}; read line; echo "heard $line"; exit 0')
    kept.wait_for("events.jsonl", "ready")
    kept.process.terminate()
    assert kept.exit()["code"] == 0
    assert "heard cmd_router_to_child:exit" in kept.text("server.log")


def test_server_that_still_loads_gets_sigterm_at_once(start: Start) -> None:
    kept = start("trap 'echo termed; exit 5' TERM; echo up; while :; do sleep 0.02; done")
    kept.wait_for("server.log", "up")
    started = time.monotonic()
    kept.process.terminate()
    assert kept.exit()["code"] == 5
    assert time.monotonic() - started < 0.4


def test_stubborn_server_is_killed_with_all_it_started(start: Start) -> None:
    kept = start("trap '' TERM; sleep 30 & echo $! >&2; echo up; while :; do sleep 0.05; done")
    kept.wait_for("server.log", "up")
    kept.process.terminate()
    assert kept.exit()["signal"] == 9
    pid = int(next(line for line in kept.text("server.log").splitlines() if line.isdigit()))
    assert llama_shim.read_start(pid) is None or b"Z" in Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]


def test_server_sees_the_end_of_its_stdin_when_the_keeper_is_killed(start: Start) -> None:
    kept = start("echo up >&2; cat; echo gone > after")
    kept.wait_for("server.log", "up")
    kept.process.kill()
    kept.wait_for("after", "gone")


def test_who_runs_is_written_at_once(start: Start) -> None:
    kept = start("echo $$; sleep 5")
    record = json.loads(kept.wait_for("process.json"))
    assert record["keeper"]["pid"] == kept.process.pid
    assert record["boot_id"] == llama_shim.read_boot_id()
    assert kept.wait_for("server.log", "\n").split()[0] == str(record["child"]["pid"])
    assert llama_shim.read_start(record["child"]["pid"]) == record["child"]["start"]


def test_log_is_kept_small(start: Start) -> None:
    kept = start("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done", log_bytes=1000)
    kept.exit()
    assert len(kept.text("server.log")) <= 1000
    assert 900 < len(kept.text("server.log.1")) <= 1000
    assert kept.text("server.log").splitlines()[-1] == "line 299"


@pytest.mark.parametrize("said", [b"", b"0", b"00000004/\x00", Order("/", ["/bin/true"], {"A": "b"}).encode()[:-1]])
def test_keeper_whose_order_never_comes_whole_ends_and_starts_nothing(said: bytes) -> None:
    keeper = wait_for_order(Path(str(llama_shim.__file__)))
    tell(keeper, said)
    assert keeper.wait(10) == 0


def test_keeper_lives_in_the_folder_and_tells_its_own_faults_in_the_log(tmp_path: Path) -> None:
    keeper = wait_for_order(Path(str(llama_shim.__file__)))
    # No api_key lies there: whoever wanted it has begun to take the folder away.
    tell(keeper, Order(str(tmp_path), ["/bin/true"], {}).encode())
    assert keeper.wait(10) == 1
    assert "api_key" in (tmp_path / "server.log").read_text()


def sent(data: bytes) -> Order | None:
    """What comes out of a pipe."""
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    order = Order.read(reader)
    os.close(reader)
    return order


def test_order_arrives_as_it_was_sent() -> None:
    order = Order("/tmp/größe", ["/bin/sh", "-c", "", "line\nline"], {"A": "1=2", "EMPTY": ""})
    told = sent(order.encode() + b"more")
    assert told is not None
    assert (told.folder, told.argv, told.env, told.waits) == (order.folder, order.argv, order.env, False)
    waiting = sent(Order("/", [], {}, waits=True).encode())
    assert waiting is not None
    assert waiting.waits


# One that waits

WAITING = """echo $$ > pid; while read -r key; do echo "key $key"; done < "$2"; echo "let go with $1" """


def test_server_that_waits_goes_on_when_it_is_let_go_and_only_then_is_written_down(start: Start) -> None:
    kept = start(WAITING, waits=True)
    kept.wait_for("pid", "\n")
    time.sleep(0.2)
    assert (kept.text("server.log"), kept.text("process.json")) == ("", "")
    kept.say(b"g")
    record = json.loads(kept.wait_for("process.json"))
    assert record["child"]["pid"] == int(kept.text("pid"))
    assert kept.exit()["code"] == 0
    assert kept.text("server.log") == "let go with --api-key-file\n"


def test_server_that_waits_and_its_keeper_end_when_nobody_can_let_it_go_any_more(start: Start) -> None:
    kept = start(f"trap '' TERM; {WAITING}", waits=True)
    pid = int(kept.wait_for("pid", "\n"))
    tell(kept.process, b"")
    assert kept.process.wait(10) == 0
    assert llama_shim.read_start(pid) is None
    assert not (kept.folder / "process.json").exists()
    assert not (kept.folder / "exit.json").exists()


@pytest.mark.parametrize("argv", [["/bin/sh", "-c", "exit 1"], ["/no/such/program"]])
def test_keeper_of_a_server_that_does_not_wait_ends_and_writes_nothing(start: Start, argv: list[str]) -> None:
    kept = start("", argv=argv, waits=True)
    assert kept.process.wait(10) == 0
    assert not (kept.folder / "process.json").exists()
    assert not (kept.folder / "exit.json").exists()
