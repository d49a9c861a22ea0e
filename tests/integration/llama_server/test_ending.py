"""How models end: by unload, by a crash, with or without their worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes import llama_shim
from gantry.runtimes.exceptions import VerifyFailed
from gantry.runtimes.llama_server import LlamaServerRuntime
from tests.integration.llama_server.helpers import (
    assert_nothing_left,
    headers,
    load,
    make_runtime,
    only,
    our_processes,
    request_for,
    wait_until_dead,
    wrapper,
)

pytestmark = pytest.mark.llama
ROOT = Path(__file__).resolve().parents[3]


def test_killed_server_is_told_of_until_forgotten(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf")
    load(runtime, request)
    pid = only(runtime).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    instance = wait_until_dead(runtime)
    assert not instance.is_ready
    assert (instance.exit_text, instance.exit_code) == ("killed by signal 9", ErrorCode.KILLED)
    with pytest.raises(VerifyFailed) as failure:
        runtime.verify(request.instance_id)
    assert failure.value.exit_text == "killed by signal 9"
    assert runtime.busy_count(request.instance_id) == 0
    runtime.forget(request.instance_id)
    assert runtime.running() == []


def test_crash_while_serving_is_not_called_a_failed_load(runtime: LlamaServerRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf"))
    pid = only(runtime).pid
    assert pid is not None
    os.kill(pid, signal.SIGSEGV)
    instance = wait_until_dead(runtime)
    assert (instance.exit_text, instance.exit_code) == ("killed by signal 11", ErrorCode.CRASHED)


def test_server_ends_with_its_keeper(runtime: LlamaServerRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf"))
    pid = only(runtime).pid
    keeper = psutil.Process(pid).parent()
    assert keeper is not None
    keeper.kill()
    instance = wait_until_dead(runtime, is_recorded=False)
    assert instance.exit_code == ErrorCode.KILLED


def test_living_instance_is_not_forgotten(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf")
    load(runtime, request)
    runtime.forget(request.instance_id)
    assert only(runtime).is_alive


def test_server_behind_a_script_is_ended_with_it(models: Path, tmp_path: Path) -> None:
    runtime = make_runtime(tmp_path, wrapper(tmp_path, '@SERVER@ "$@"\nexit $?'))
    request = request_for(models / "tiny.gguf")
    load(runtime, request)
    assert len(our_processes(tmp_path)) == 3  # keeper, script, server
    runtime.unload(request.instance_id)
    assert_nothing_left(runtime, tmp_path)


def test_answer_that_is_being_given_does_not_hold_up_the_end(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "large.gguf")  # its tokens take their time
    load(runtime, request)
    instance = only(runtime)
    body = {"prompt": "Hello", "max_tokens": 100, "stream": True}
    url = f"{instance.base_url}/v1/completions"
    with httpx.stream("POST", url, json=body, headers=headers(instance), trust_env=False) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert runtime.busy_count(request.instance_id) == 1
        started = time.monotonic()
        runtime.unload(request.instance_id)
        assert time.monotonic() - started < 3
    assert runtime.running() == []


def test_server_that_ignores_sigterm_is_killed(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shim = Path(str(llama_shim.__file__)).read_text()
    hasty = tmp_path / "hasty_shim.py"
    hasty.write_text(shim.replace("KILL_SECONDS = 5.0", "KILL_SECONDS = 0.3"))
    monkeypatch.setattr(llama_shim, "__file__", str(hasty))
    stubborn = """case "$1" in --model) trap '' TERM; @SERVER@ "$@"; sleep 30;; *) exec @SERVER@ "$@";; esac"""
    runtime = make_runtime(tmp_path, wrapper(tmp_path, stubborn))
    request = request_for(models / "tiny.gguf")
    load(runtime, request)
    runtime.unload(request.instance_id)
    assert_nothing_left(runtime, tmp_path)


LOAD_AND_WAIT = """
import sys
from pathlib import Path
from tests.integration.llama_server.helpers import load, make_runtime, request_for
load(make_runtime(Path(sys.argv[1])), request_for(Path(sys.argv[2]), instance_id="kept"))
print("loaded", flush=True)
sys.stdin.read()
"""


def test_model_outlives_the_worker_and_is_found_again(
    runtime: LlamaServerRuntime, models: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOAD_AND_WAIT, str(tmp_path), str(models / "tiny.gguf")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"loaded\n"
        worker.kill()
    assert only(runtime).is_ready
    assert runtime.verify("kept").text.strip()
    runtime.unload("kept")
    assert_nothing_left(runtime, tmp_path)


def test_process_that_took_over_the_number_is_left_alone(
    runtime: LlamaServerRuntime, models: Path, tmp_path: Path
) -> None:
    request = request_for(models / "tiny.gguf")
    load(runtime, request)
    server = psutil.Process(only(runtime).pid)
    keeper = server.parent()
    assert keeper is not None
    record = tmp_path / "state" / request.instance_id / "process.json"
    real = record.read_text()
    with subprocess.Popen(["/bin/sleep", "30"]) as stranger:
        forged = real.replace(f'"pid": {server.pid},', f'"pid": {stranger.pid},')
        record.write_text(forged.replace(f'"pid": {keeper.pid},', f'"pid": {stranger.pid},'))
        assert not only(runtime).is_alive
        runtime.unload(request.instance_id)
        assert stranger.poll() is None
        stranger.kill()
    assert server.is_running()
    keeper.terminate()
    psutil.wait_procs([server, keeper], timeout=5)
