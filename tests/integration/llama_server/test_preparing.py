"""A server that waits, with all its flags read, until there is room for its model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from gantry.runtimes import llama_server
from gantry.runtimes.base import LoadStage
from gantry.runtimes.exceptions import LoadFailed
from gantry.runtimes.llama_server import LlamaServerRuntime
from tests.functional.stack import wait_until
from tests.integration.llama_server.helpers import (
    assert_nothing_left,
    load,
    make_runtime,
    only,
    our_processes,
    request_for,
    wrapper,
)

pytestmark = pytest.mark.llama
MIB = 1024**2
WAIT_SECONDS = 10.0
WORKER = """
import sys, time
from pathlib import Path
from tests.integration.llama_server.helpers import make_runtime, request_for
runtime = make_runtime(Path(sys.argv[1]))
runtime.prepare(request_for(Path(sys.argv[2])))
print("prepared", flush=True)
time.sleep(60)
"""


def waiting_server(tmp_path: Path) -> psutil.Process:
    """The one that waits, once it has come as far as it can: it has opened the file that its last flag names."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        processes = [psutil.Process(pid) for pid in our_processes(tmp_path)]
        found[:] = [process for process in processes if "--api-key-file" in process.cmdline()]
        files = [file.readlink() for file in Path(f"/proc/{found[0].pid}/fd").iterdir()] if found else []
        return any(files.count(file) == 2 for file in files if str(file).startswith("pipe:"))

    wait_until(is_there, WAIT_SECONDS)
    return found[0]


def test_it_waits_without_the_model_and_the_load_goes_on_with_it(
    runtime: LlamaServerRuntime, models: Path, tmp_path: Path
) -> None:
    request = request_for(models / "large.gguf", parameters={"ctx_size": 256, "threads": 1, "no_mmap": True})
    runtime.prepare(request)
    server = waiting_server(tmp_path)
    assert runtime.running() == []
    assert server.memory_info().rss < 100 * MIB
    assert load(runtime, request)[-1].stage == LoadStage.READY
    instance = only(runtime)
    assert instance.pid == server.pid
    assert instance.memory_bytes is not None
    assert instance.memory_bytes > 500 * MIB
    assert runtime.verify(request.instance_id).text.strip()
    runtime.drop_prepared()
    assert server.is_running()
    runtime.unload(request.instance_id)
    assert_nothing_left(runtime, tmp_path)


def test_it_asks_for_its_key_like_any_other(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf")
    runtime.prepare(request)
    load(runtime, request)
    instance = only(runtime)
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {instance.api_key}"}, 200)):
        body = {"prompt": "Hello", "max_tokens": 1}
        assert httpx.post(f"{instance.base_url}/v1/completions", json=body, headers=headers).status_code == status


def test_one_that_is_dropped_leaves_nothing(runtime: LlamaServerRuntime, models: Path, tmp_path: Path) -> None:
    runtime.prepare(request_for(models / "tiny.gguf"))
    waiting_server(tmp_path)
    runtime.drop_prepared()
    assert_nothing_left(runtime, tmp_path)
    assert [path for path in (tmp_path / "state").iterdir() if path.name != "logs"] == []


def test_it_ends_with_the_worker_that_is_killed(models: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(models / "tiny.gguf")]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    assert worker.stdout is not None
    with worker.stdout as said:
        said.readline()
        waiting_server(tmp_path)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10)
    wait_until(lambda: our_processes(tmp_path) == [], WAIT_SECONDS)


def test_it_ends_when_its_keeper_is_killed(runtime: LlamaServerRuntime, models: Path, tmp_path: Path) -> None:
    runtime.prepare(request_for(models / "tiny.gguf"))
    server = waiting_server(tmp_path)
    os.kill(server.ppid(), signal.SIGKILL)
    wait_until(lambda: our_processes(tmp_path) == [], WAIT_SECONDS)
    runtime.drop_prepared()


@pytest.mark.parametrize("what", ["killed", "waited too long"])
def test_one_that_is_of_no_use_is_replaced(
    runtime: LlamaServerRuntime, models: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_for(models / "tiny.gguf")
    runtime.prepare(request)
    server = waiting_server(tmp_path)
    if what == "killed":
        server.kill()
        wait_until(lambda: server.pid not in our_processes(tmp_path), WAIT_SECONDS)
    else:
        monkeypatch.setattr(llama_server, "WAITING_SECONDS", 0.0)
    assert load(runtime, request)[-1].stage == LoadStage.READY
    assert only(runtime).pid != server.pid


def test_program_that_cannot_wait_is_started_without(models: Path, tmp_path: Path) -> None:
    """As one that knows no `--api-key-file`, or that does not pass on what it inherits."""
    line = 'for word in "$@"; do [ "$word" = --api-key-file ] && exit 1; done; exec @SERVER@ "$@"'
    runtime = make_runtime(tmp_path, wrapper(tmp_path, line))
    request = request_for(models / "tiny.gguf")
    runtime.prepare(request)
    assert load(runtime, request)[-1].stage == LoadStage.READY
    runtime.unload(request.instance_id)


def test_one_whose_model_is_broken_fails_as_any_other(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "truncated.gguf")
    faults = []
    for is_prepared in (True, False):
        if is_prepared:
            runtime.prepare(request)
        with pytest.raises(LoadFailed) as fault:
            load(runtime, request)
        faults.append((fault.value.code, fault.value.detail))
    assert faults[0] == faults[1]
    assert runtime.running() == []
