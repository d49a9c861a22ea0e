"""Programs and the command line on a whole running Gantry with the real llama-server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.functional.program_socket import BINARY, TEXT, ProgramSocket
from tests.functional.stack import ADMIN_NAME, ROOT, Stack, start_stack, wait_until
from tests.integration.llama_server.helpers import wrapper
from tests.tiny_gguf import write_tiny_model

pytestmark = pytest.mark.llama

# The one model that never comes up: its server stands still until it is ended.
SURROUNDINGS = 'case "$*" in */held.gguf*) kill -STOP $$ ;; esac\nexec @SERVER@ "$@"\n'
LET_GO = "from models_admin.models import SwitchPolicy; SwitchPolicy(keep_former=False).save()"
# More progress than the kernel, both ends and the server keep for somebody who does not read.
STORM_EVENTS = 2000
LAST = "the last of it"
STORM = f"""
from gantry import live
from models_admin.models import MemoryPool, SwitchJob
from models_admin.snapshots import job_snapshot
job = SwitchJob(pk=10**9, kind="switch", pool=MemoryPool.objects.get(), target_name="storm", state="loading")
job.created_at = job.heartbeat_at = __import__("django.utils.timezone").utils.timezone.now()
for seq in range(1, {STORM_EVENTS} + 1):
    job.seq, job.percent = seq, 99 * seq / {STORM_EVENTS}
    job.stage_text = "x" * 16000 if seq < {STORM_EVENTS} else {LAST!r}
    live.send(live.STATUS_GROUP, {{"type": "job_updated", "job": job_snapshot(job), "event_id": f"storm-{{seq}}"}})
"""
SECONDS = 60.0


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Gantry with three small models."""
    folder = tmp_path_factory.mktemp("tower")
    models = folder / "models"
    models.mkdir()
    for seed, name in enumerate(("one", "two", "held")):
        write_tiny_model(models / f"{name}.gguf", seed=seed, name=name)
    (folder / "server").mkdir()
    server = wrapper(folder / "server", SURROUNDINGS)
    running = start_stack(folder, {"GANTRY_LLAMA_SERVER": str(server)})
    try:
        assert running.manage("models", "scan", str(models)).returncode == 0
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def key(tower: Stack) -> str:
    """A key of the administrator that may switch."""
    done = tower.manage("create_api_key", ADMIN_NAME, "--name", "panel", "--scope", "switch", "--expires", "1d")
    assert done.returncode == 0, done.stderr
    assert "It is shown only now" in done.stderr
    return done.stdout.strip()


@pytest.fixture
def panel(tower: Stack, key: str) -> Iterator[ProgramSocket]:
    """A program at /ws/llm."""
    with ProgramSocket(tower.url, "ws/llm", Authorization=f"Bearer {key}") as socket:
        assert socket.status == 101
        yield socket


def active(tower: Stack) -> str | None:
    """Id of the model that serves, as `status --json` says."""
    done = tower.manage("status", "--json")
    assert done.returncode == 0, done.stderr
    found: str | None = json.loads(done.stdout)["active"]
    return found


def test_switch_by_websocket_is_told_to_everybody_who_is_connected(
    tower: Stack, key: str, panel: ProgramSocket
) -> None:
    with ProgramSocket(tower.url, "ws/events", authorization=f"Bearer {key}") as program:
        assert (program.next() or {})["type"] == "snapshot"
        panel.send(type="switch_llm_model", model_id="one")
        told = panel.until("llm_status", running=True, current_model="one", switching_to=None)
        events = program.until("job", state="succeeded")

    kinds = [message["type"] for message in told]
    assert kinds.index("llm_switching") < kinds.index("llm_progress") < kinds.index("llm_model_switched")
    assert next(message for message in told if message["type"] == "llm_model_switched")["success"]
    assert events[-1]["via"] == "websocket"
    assert active(tower) == "one"


def test_what_was_missed_comes_on_reconnect(tower: Stack, key: str) -> None:
    with ProgramSocket(tower.url, "ws/events?since=0-0", authorization=f"Bearer {key}") as program:
        *missed, snapshot = program.until("snapshot")

    assert missed[0]["seq"] == 1
    assert snapshot["active"] == active(tower)


def test_stranger_is_closed_with_a_code_of_its_own(tower: Stack) -> None:
    with ProgramSocket(tower.url, "ws/llm") as stranger:
        assert (stranger.next() or {})["code"] == "key_refused"
        assert stranger.next() is None
        assert stranger.close_code == 4401


def test_page_of_another_site_is_refused_before_it_is_open(tower: Stack) -> None:
    with ProgramSocket(tower.url, "ws/llm", Origin="http://evil.example", Cookie="sessionid=x") as page:
        assert page.status == 403


def test_bad_messages_are_answered_on_the_wire(panel: ProgramSocket) -> None:
    panel.next()
    panel.send_frame(BINARY, b"\x00")
    assert (panel.next() or {})["code"] == "binary"
    panel.send_frame(TEXT, b'"' + b"x" * 65536 + b'"')
    assert (panel.next() or {})["code"] == "message_too_large"
    panel.send(type="get_llm_status")
    assert (panel.next() or {})["type"] == "llm_status"


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 2 * 1024 * 1024, 16 * 1024 * 1024])
def test_message_that_the_server_does_not_even_read_closes_the_connection_alone_and_says_why(
    size: int, tower: Stack, key: str, panel: ProgramSocket
) -> None:
    panel.next()
    panel.send_frame(TEXT, b"x" * size)  # Daphne's own limit is 1 MiB
    assert panel.next() is None
    assert panel.close_code == 1009
    with ProgramSocket(tower.url, "ws/llm", authorization=f"Bearer {key}") as another:
        assert (another.next() or {})["type"] == "llm_status"


def test_program_whose_key_is_revoked_is_told_and_closed(tower: Stack) -> None:
    token = tower.manage("create_api_key", ADMIN_NAME, "--name", "old", "--scope", "status").stdout.strip()
    with ProgramSocket(tower.url, "ws/llm", authorization=f"Bearer {token}") as program:
        program.next()
        done = tower.manage("api_keys", "revoke", token[:12])
        assert "is refused from now on" in done.stdout
        program.send(type="get_llm_status")
        assert "was revoked" in program.until("error")[-1]["message"]
        assert program.next() is None
        assert program.close_code == 4401
    assert re.search(rf"{token[:12]} .* revoked", tower.manage("api_keys", "list").stdout)


def test_commands_switch_restart_and_unload(tower: Stack) -> None:
    switched = tower.manage("switch", "two", "--wait")
    assert (switched.returncode, switched.stderr) == (0, "")
    assert "two is active. Took" in switched.stdout.splitlines()[-1]
    assert all(" %  " in line for line in switched.stdout.splitlines()[:-1])
    assert tower.manage("switch", "two").stdout.strip() == "two serves already."

    restarted = tower.manage("restart", "two", "--wait")
    assert (restarted.returncode, restarted.stderr) == (0, "")
    assert "two was restarted." in restarted.stdout

    unloaded = tower.manage("unload", "--all", "--wait")
    assert (unloaded.returncode, unloaded.stderr) == (0, "")
    assert active(tower) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["switch", "nothing"], "There is no model “nothing”. See `manage.py models list`."),
        (["unload"], "one of the arguments model --all is required"),
    ],
)
def test_bad_usage_is_told_in_words_with_its_exit_code(tower: Stack, arguments: list[str], words: str) -> None:
    done = tower.manage(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


class Terminal:
    """A command in front of which somebody sits."""

    def __init__(self, tower: Stack, *arguments: str) -> None:
        self._master, end = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**tower.environment, "TERM": "xterm", "COLUMNS": "120"},
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
        )
        os.close(end)
        os.set_blocking(self._master, False)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self._read(), SECONDS, lambda: f"{text!r} is not in {self.shown!r}")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        wait_until(lambda: self._read() and self.process.poll() is not None, SECONDS, lambda: self.shown)
        self._read()
        os.close(self._master)
        return self.process.wait()

    def _read(self) -> str:
        try:
            while piece := os.read(self._master, 65536):
                self.shown += piece.decode(errors="replace")
        except OSError:  # nothing there now, or the other end is closed
            pass
        return self.shown


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [("c", 1, "The switch to held was cancelled after"), ("l", 0, "goes on. `manage.py status` shows how far it is.")],
)
def test_ctrl_c_asks_whether_to_cancel_or_to_leave_the_switch(tower: Stack, answer: str, code: int, told: str) -> None:
    terminal = Terminal(tower, "switch", "held", "--wait", "--yes")
    terminal.wait_for("Loading held")
    terminal.process.send_signal(signal.SIGINT)
    terminal.wait_for("Cancel it, leave it running, or watch on?")
    terminal.type(f"{answer}\n")
    assert terminal.end() == code
    assert told in terminal.shown
    if answer == "l":
        assert "Switching to held" in tower.manage("status").stdout
        terminal = Terminal(tower, "switch", "held", "--wait", "--yes")  # joins it
        terminal.wait_for("under way already")
        terminal.wait_for("Loading held")
        terminal.process.send_signal(signal.SIGINT)
        terminal.wait_for("watch on?")
        terminal.type("c\n")
        assert terminal.end() == 1


def test_unloading_is_asked_about_at_a_terminal(tower: Stack) -> None:
    assert tower.manage("switch", "one", "--wait").returncode == 0
    assert tower.manage("shell", "-v", "0", "-c", LET_GO).returncode == 0

    terminal = Terminal(tower, "switch", "two", "--wait")
    terminal.wait_for("Unload one and load two: about")
    terminal.wait_for("Go on? [y/N]")
    terminal.type("n\n")
    assert terminal.end() == 1
    assert "Nothing was done." in terminal.shown
    assert active(tower) == "one"


def test_who_does_not_read_gets_the_latest_and_not_everything_that_came_before(tower: Stack, key: str) -> None:
    with (
        ProgramSocket(tower.url, "ws/llm", authorization=f"Bearer {key}") as sleeper,
        ProgramSocket(tower.url, "ws/llm", authorization=f"Bearer {key}") as reader,
    ):
        reader.next()
        done = tower.manage("shell", "-v", "0", "-c", STORM)
        assert done.returncode == 0, done.stderr
        reader.until("llm_progress", message=LAST)  # all of it has gone out to whoever reads
        told = sleeper.until("llm_progress", message=LAST)

    assert len(told) < STORM_EVENTS / 2
    assert [message["percent"] for message in told if message["type"] == "llm_progress"][-1] == 99
