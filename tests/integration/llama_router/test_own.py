"""A router of Gantry's own: started by its first load, found again by any worker, ended with its last model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes import llama_router_client
from gantry.runtimes.base import LoadStage
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeAway, RuntimeRefused, VerifyFailed
from gantry.runtimes.llama_router import LlamaRouterRuntime
from tests.functional.stack import wait_until
from tests.integration.llama_router.conftest import GEMMA, SMOLLM2
from tests.integration.llama_router.helpers import load, only, own, request_for, wait_for
from tests.integration.llama_server.helpers import our_processes

pytestmark = pytest.mark.llama
ROOT = Path(__file__).resolve().parents[3]


def router_of(runtime: LlamaRouterRuntime) -> psutil.Process:
    """The router's process."""
    parent = psutil.Process(only(runtime).pid).parent()
    assert parent is not None
    return parent


def test_router_is_started_with_a_preset_and_ended_with_its_last_model(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path
) -> None:
    assert runtime.check().is_ok
    assert our_processes(tmp_path) == []  # nothing is started to be looked at
    wanted = request_for(models / "tiny.gguf", model_id="org/tiny:Q4_1")
    assert load(runtime, wanted)[-1].stage == LoadStage.READY
    preset = (tmp_path / "own" / "router" / "models.ini").read_text()
    assert "alias = org/tiny:Q4_1\n" in preset
    assert f"model = {models / 'tiny.gguf'}\n" in preset
    assert "ctx-size = 256\n" in preset
    assert only(runtime).model_id == "org/tiny:Q4_1"
    assert runtime.verify(wanted.instance_id).text.strip()
    assert len(our_processes(tmp_path)) == 3  # keeper, router, model
    runtime.unload(wanted.instance_id)
    assert our_processes(tmp_path) == []
    assert runtime.running() == []
    assert list((tmp_path / "own" / "loads").iterdir()) == []


@pytest.mark.real_models
def test_two_real_models_at_once_each_with_its_parameters(runtime: LlamaRouterRuntime, models: Path) -> None:
    first = request_for(models / f"{SMOLLM2}.gguf", parameters={"ctx_size": 512, "threads": 1})
    second = request_for(models / f"{GEMMA}.gguf", parameters={"ctx_size": 256, "threads": 1, "no_mmap": True})
    for wanted in (first, second):
        signs = load(runtime, wanted)
        fractions = [sign.fraction or 0.0 for sign in signs]
        assert fractions == sorted(fractions)
        assert signs[-1].bytes_done == wanted.file_bytes
    held = {instance.model_id: instance.memory_bytes or 0 for instance in runtime.running()}
    assert held[GEMMA] > 250_000_000
    for instance in runtime.running():
        answer = httpx.post(
            f"{instance.base_url}/v1/chat/completions",
            json={"model": instance.model_id, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2},
            headers={"Authorization": f"Bearer {instance.api_key}"},
            trust_env=False,
            timeout=30,
        )
        assert answer.json()["usage"]["completion_tokens"] == 2
    slots = {model: slots_of(runtime, model)[0]["n_ctx"] for model in held}
    assert slots == {SMOLLM2: 512, GEMMA: 256}
    runtime.unload(first.instance_id)
    assert only(runtime).instance_id == second.instance_id


def slots_of(runtime: LlamaRouterRuntime, model_id: str) -> list[dict[str, int]]:
    instance = next(each for each in runtime.running() if each.model_id == model_id)
    headers = {"Authorization": f"Bearer {instance.api_key}"}
    answer = httpx.get(f"{instance.base_url}/slots?model={model_id}", headers=headers, trust_env=False, timeout=10)
    return list(answer.json())


def test_every_way_to_say_a_parameter_reaches_the_model(runtime: LlamaRouterRuntime, models: Path) -> None:
    parameters = {
        "ctx_size": 256,
        "flash_attn": True,
        "cont_batching": False,
        "mlock": False,
        "parallel": 2,
        "threads": 1,
    }
    wanted = request_for(
        models / "tiny.gguf",
        parameters={**parameters, "no_mmap": True, "n_gpu_layers": -1, "cache_type_k": "f16"},
        extra_args=("--no-warmup", "--top-k", "4"),
        chat_template="Q: {{ messages[0].content }} A:",
    )
    load(runtime, wanted)
    line = psutil.Process(only(runtime).pid).cmdline()
    for flag, value in (("--flash-attn", "on"), ("--parallel", "2"), ("--top-k", "4"), ("--cache-type-k", "f16")):
        assert line[line.index(flag) + 1] == value
    assert {"--no-cont-batching", "--no-mmap", "--no-warmup", "--n-gpu-layers"} <= set(line)
    instance = only(runtime)
    headers = {"Authorization": f"Bearer {instance.api_key}"}
    props = httpx.get(f"{instance.base_url}/props?model=tiny", headers=headers, trust_env=False, timeout=10).json()
    assert props["chat_template"] == wanted.chat_template


def test_key_is_seen_in_no_argument_and_no_log(runtime: LlamaRouterRuntime, models: Path, tmp_path: Path) -> None:
    wanted = request_for(models / "tiny.gguf")
    load(runtime, wanted)
    key = only(runtime).api_key
    for process in (router_of(runtime), psutil.Process(only(runtime).pid)):
        assert key not in " ".join(process.cmdline())
        sockets = process.net_connections(kind="inet")
        assert {entry.laddr.ip for entry in sockets if entry.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    log = (tmp_path / "own" / "router" / "server.log").read_text()
    assert key[-4:] not in log
    assert key not in (tmp_path / "own" / "router" / "instance.json").read_text()
    assert (tmp_path / "own" / "router").stat().st_mode & 0o077 == 0


def test_router_sees_no_secret_and_no_models_of_others(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "very-secret")
    monkeypatch.setenv("LLAMA_ARG_MODELS_DIR", str(models))
    load(runtime, request_for(models / "tiny.gguf"))
    assert not {"SECRET_KEY", "LLAMA_ARG_MODELS_DIR"} & router_of(runtime).environ().keys()
    offered = httpx.get(f"{only(runtime).base_url}/models", trust_env=False, timeout=10).json()["data"]
    assert [row["aliases"] for row in offered] == [["tiny"]]


def test_log_of_a_model_is_its_own(runtime: LlamaRouterRuntime, models: Path) -> None:
    first, second = request_for(models / "tiny.gguf"), request_for(models / "tiny.gguf", model_id="other")
    load(runtime, first)
    load(runtime, second)
    log = runtime.log_tail(first.instance_id, 1000)
    assert any("model loaded" in line for line in log)
    assert not any("name=other" in line or "cmd_child_to_router" in line for line in log)


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        ("page", {}, ErrorCode.FILE_DAMAGED),
        ("truncated", {}, ErrorCode.FILE_DAMAGED),
        ("absent", {}, ErrorCode.NOT_DOWNLOADED),
        ("tiny", {"parameters": {"cache_type_k": "q99"}}, ErrorCode.BAD_PARAMETER),
    ],
)
def test_failed_load_names_its_cause_and_leaves_no_router(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path, name: str, changes: dict[str, object], code: ErrorCode
) -> None:
    with pytest.raises(LoadFailed) as failure:
        load(runtime, request_for(models / f"{name}.gguf", **changes))
    assert failure.value.code == code
    assert failure.value.detail
    if name != "absent":
        assert failure.value.exit_text == "exited with 1"
        assert failure.value.log_tail
    assert runtime.running() == []
    assert our_processes(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extra_args": ("--wobble", "3")}, "--wobble"),
        ({"extra_args": ("--lora", "a.gguf", "--lora", "b.gguf")}, "takes --lora once"),
        ({"model_id": "two words"}, "cannot name a model"),
        ({"parameters": {"ctx_size": 256}, "chat_template": "x", "instance_id": "not/an/id"}, "no instance id"),
    ],
)
def test_what_no_preset_can_say_is_refused_before_anything_starts(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises((RuntimeRefused, LoadFailed), match=words):
        runtime.check_load(request_for(models / "tiny.gguf", **changes))
    with pytest.raises((RuntimeRefused, LoadFailed), match=words):
        load(runtime, request_for(models / "tiny.gguf", **changes))
    assert our_processes(tmp_path) == []


def test_file_whose_name_no_preset_can_hold_is_refused(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "sharp#1.gguf"
    odd.symlink_to(models / "tiny.gguf")
    with pytest.raises(RuntimeRefused, match="Use none of # and ;"):
        runtime.check_load(request_for(odd, model_id="tiny"))


def test_failed_load_leaves_the_others_alone(runtime: LlamaRouterRuntime, models: Path) -> None:
    kept = request_for(models / "tiny.gguf")
    load(runtime, kept)
    pid = only(runtime).pid
    with pytest.raises(LoadFailed):
        load(runtime, request_for(models / "page.gguf"))
    assert only(runtime).pid == pid
    assert runtime.verify(kept.instance_id).seconds >= 0


def test_called_off_load_leaves_the_others_alone(runtime: LlamaRouterRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf"))
    pid = only(runtime).pid
    looks = iter([False, False])
    with pytest.raises(LoadCancelled):
        list(runtime.load(request_for(models / "slow.gguf", parameters={"no_mmap": True}), lambda: next(looks, True)))
    assert only(runtime).pid == pid


def test_load_that_nobody_follows_is_ended(runtime: LlamaRouterRuntime, models: Path, tmp_path: Path) -> None:
    signs = runtime.load(request_for(models / "slow.gguf", parameters={"no_mmap": True}), lambda: False)
    next(signs)
    signs.close()  # type: ignore[attr-defined] # it is a generator
    assert runtime.running() == []
    assert our_processes(tmp_path) == []


def test_same_model_twice_is_refused(runtime: LlamaRouterRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf"))
    with pytest.raises(RuntimeRefused, match="holds each model once"):
        load(runtime, request_for(models / "tiny.gguf"))
    assert only(runtime).is_ready


def test_router_that_is_killed_takes_its_models_and_is_told_of(runtime: LlamaRouterRuntime, models: Path) -> None:
    wanted = request_for(models / "tiny.gguf")
    load(runtime, wanted)
    router_of(runtime).kill()
    wait_for(lambda: only(runtime).exit_text == "killed by signal 9")  # the keeper writes it down a moment later
    dead = only(runtime)
    assert (dead.is_alive, dead.exit_code) == (False, ErrorCode.KILLED)
    with pytest.raises(VerifyFailed):
        runtime.verify(wanted.instance_id)
    again = request_for(models / "tiny.gguf", model_id="other")
    load(runtime, again)  # a new router
    assert runtime.verify(again.instance_id).seconds >= 0
    runtime.forget(wanted.instance_id)
    assert only(runtime).instance_id == again.instance_id


def test_model_of_a_router_that_hangs_can_be_unloaded(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = request_for(models / "tiny.gguf"), request_for(models / "tiny.gguf", model_id="other")
    load(runtime, first)
    load(runtime, second)
    pids = [instance.pid or 0 for instance in runtime.running()]
    router = psutil.Process(pids[0]).parent()
    assert router is not None
    router.suspend()
    wait_until(lambda: router.status() == psutil.STATUS_STOPPED, 10)
    monkeypatch.setattr(llama_router_client, "QUICK_SECONDS", 0.3)
    with pytest.raises(RuntimeAway):
        runtime.running()
    runtime.unload(first.instance_id)
    assert not psutil.pid_exists(pids[0]) or psutil.Process(pids[0]).status() == psutil.STATUS_ZOMBIE
    assert psutil.Process(pids[1]).is_running()
    router.resume()
    monkeypatch.undo()
    wait_until(lambda: len(runtime.running()) == 1, 10)  # the router notices by itself that its child is gone
    assert only(runtime).instance_id == second.instance_id
    assert runtime.verify(second.instance_id).seconds >= 0


LOAD_AND_WAIT = """
import sys
from pathlib import Path
from tests.integration.llama_router.helpers import load, own, request_for
load(own(Path(sys.argv[1])), request_for(Path(sys.argv[2]), instance_id="kept"))
print("loaded", flush=True)
sys.stdin.read()
"""


def test_router_outlives_the_worker_and_is_found_again(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path
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
    second = request_for(models / "tiny.gguf", model_id="other")
    load(runtime, second)  # by the same router
    assert psutil.Process(runtime.running()[0].pid).ppid() == psutil.Process(runtime.running()[1].pid).ppid()
    runtime.unload("kept")
    runtime.unload(second.instance_id)
    assert our_processes(tmp_path) == []


def test_load_whose_worker_died_is_found_under_its_own_name(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOAD_AND_WAIT, str(tmp_path), str(models / "slow.gguf")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as worker:
        wait_for(lambda: bool(runtime.running()))
        worker.kill()
    assert only(runtime).instance_id == "kept"
    runtime.unload("kept")
    assert runtime.running() == []
    wait_for(lambda: our_processes(tmp_path) == [])


def test_process_that_took_over_the_number_is_left_alone(
    runtime: LlamaRouterRuntime, models: Path, tmp_path: Path
) -> None:
    wanted = request_for(models / "tiny.gguf")
    load(runtime, wanted)
    router = router_of(runtime)
    keeper = router.parent()
    assert keeper is not None
    record = tmp_path / "own" / "router" / "process.json"
    real = record.read_text()
    with subprocess.Popen(["/bin/sleep", "30"]) as stranger:
        forged = real.replace(f'"pid": {router.pid},', f'"pid": {stranger.pid},')
        record.write_text(forged.replace(f'"pid": {keeper.pid},', f'"pid": {stranger.pid},'))
        assert not only(runtime).is_alive
        runtime.unload(wanted.instance_id)
        assert stranger.poll() is None
        stranger.kill()
    assert router.is_running()
    os.kill(keeper.pid, signal.SIGTERM)
    psutil.wait_procs([router, keeper], timeout=10)


def test_file_is_read_ahead_and_nothing_is_started(runtime: LlamaRouterRuntime, models: Path, tmp_path: Path) -> None:
    wanted = request_for(models / "tiny.gguf")
    assert runtime.prefetch(wanted, lambda: False) == wanted.file_bytes
    assert (runtime.running(), runtime.models(), our_processes(tmp_path)) == ([], (), [])


def test_build_without_router_mode_is_told_as_such(tmp_path: Path) -> None:
    old = tmp_path / "llama-server"
    old.write_text("#!/bin/sh\necho 'version: 1 (old)'\necho '--model FNAME    model path'\n")
    old.chmod(0o755)
    health = own(tmp_path, binary=old).check()
    assert (health.is_ok, health.code) == (False, ErrorCode.RUNTIME_MISSING)
    assert "no router mode" in health.detail
