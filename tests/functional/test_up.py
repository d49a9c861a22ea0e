"""`manage.py up` on the real thing: starting, being refused, losing a process, ending."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.functional.stack import (
    ADMIN_NAME,
    Stack,
    environment_for,
    is_alive,
    launch,
    run_manage,
    start_stack,
    wait_until,
)
from tests.tiny_gguf import write_tiny_model

SWITCH = """
from models_admin import actions, actor, catalog
from models_admin.models import ModelDefinition
from django.conf import settings
catalog.import_folder(settings.MODELS_DIR, actor=actor.COMMAND)
actions.request_switch(ModelDefinition.objects.with_runtime().get(), actor=actor.COMMAND)
"""
PID = "from models_admin.models import ModelInstance as M; print('pid', *M.objects.filter(state='loaded').values_list('pid', flat=True))"


def model_process(stack: Stack) -> psutil.Process | None:
    """The process of the one model that is loaded."""
    found = re.search(r"^pid (\d+)$", stack.manage("shell", "-v", "0", "-c", PID).stdout, re.MULTILINE)
    return psutil.Process(int(found[1])) if found else None


def load_a_model(stack: Stack) -> psutil.Process:
    """Import a tiny model and switch to it."""
    write_tiny_model(stack.data_dir / "models" / "tiny.gguf")
    done = stack.manage("shell", "-v", "0", "-c", SWITCH)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: model_process(stack), 30, lambda: "\n".join(stack.lines))
    process = model_process(stack)
    assert process
    return process


def assert_refused(data_dir: Path, env: dict[str, str], *words: str) -> None:
    """`up` ends at once with one line that holds these words, and leaves nothing running."""
    done = run_manage(["up"], environment_for(data_dir, env))
    assert done.returncode != 0
    [line] = done.stderr.strip().splitlines()
    for word in words:
        assert word in line


def test_start_says_what_it_does_and_where_to_go(stack: Stack) -> None:
    wait_until(lambda: stack.has_said("Ctrl-C ends everything"), 10)
    for text in (
        "Starting the embedded Valkey",
        "Bringing the database up to date",
        f"Created the administrator {ADMIN_NAME}",
        "Starting web, worker and scheduler",
        f"Ready: open {stack.url}admin/ and sign in as {ADMIN_NAME}",
    ):
        assert stack.has_said(text), text


def test_second_up_on_the_same_folder_is_refused(stack: Stack) -> None:
    assert_refused(stack.data_dir, {}, "already runs", f"process {stack.pid}", "GANTRY_DATA_DIR")


def test_port_in_use_is_refused(stack: Stack, tmp_path: Path) -> None:
    port = stack.environment["GANTRY_PORT"]
    assert_refused(tmp_path, {"GANTRY_PORT": port}, f"Port {port} is in use", "set GANTRY_PORT")


def test_missing_llama_server_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, {"GANTRY_LLAMA_SERVER": "/nowhere/llama-server"}, "llama-server", "GANTRY_LLAMA_SERVER")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"GANTRY_MODELS_DIR": "/nowhere/models"}, ("GANTRY_MODELS_DIR", "create it")),
        ({"GANTRY_PORT": "99999"}, ("GANTRY_PORT", "65535")),
        ({"GANTRY_BIND": "192.0.2.1", "GANTRY_ALLOWED_HOSTS": "x"}, ("GANTRY_BIND", "not an address of this machine")),
        ({"DATABASE_URL": "mystery://secret@host/db"}, ("DATABASE_URL", "use an address")),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, ("No broker answers", "REDIS_URL")),
    ],
)
def test_setting_that_cannot_work_is_refused(tmp_path: Path, env: dict[str, str], words: tuple[str, ...]) -> None:
    assert_refused(tmp_path, env, *words)


def test_killed_worker_comes_back(stack: Stack) -> None:
    first = stack.child("celery", "worker")
    first.kill()
    wait_until(lambda: stack.has_said("worker was ended by SIGKILL; starting it again in 1 s"), 10)
    wait_until(lambda: _worker_pid(stack) not in {None, first.pid}, 20)
    wait_until(lambda: httpx.get(f"{stack.url}readyz").status_code == 200, 20)


def _worker_pid(stack: Stack) -> int | None:
    try:
        return stack.child("celery", "worker").pid
    except ValueError:
        return None


@pytest.fixture
def started() -> Iterator[list[Stack]]:
    """What a test appends here is ended with it, whatever happens."""
    stacks: list[Stack] = []
    yield stacks
    for stack in stacks:
        stack.stop()


@pytest.mark.llama
def test_models_outlive_a_killed_up_and_end_with_one_that_is_asked(tmp_path: Path, started: list[Stack]) -> None:
    started.append(start_stack(tmp_path))
    model = load_a_model(started[0])
    serving = {model, model.parent(), *model.children()}
    ours = [child for child in started[0].children() if child not in serving]

    # Killed outright: its processes go, the model serves on.
    started[0].kill()
    wait_until(lambda: not any(is_alive(child) for child in ours), 10, lambda: str(ours))
    assert is_alive(model)

    # The next one starts without a word about leftovers and takes the model over.
    started.append(start_stack(tmp_path))
    assert model_process(started[1]) == model
    children = started[1].children()

    # Asked to end: nothing is left, and that is no failure.
    assert started[1].stop(signal.SIGINT) == 0
    assert not any(is_alive(process) for process in [*children, model])
    assert started[1].has_said("Ended Tiny random model")


def test_end_in_the_middle_of_the_preparations_is_no_failure(tmp_path: Path, started: list[Stack]) -> None:
    stack = launch(tmp_path)
    started.append(stack)
    wait_until(lambda: stack.has_said("Starting the embedded Valkey"), 20)
    children = stack.children()
    assert stack.stop() == 0
    wait_until(lambda: not any(is_alive(child) for child in children), 5)
