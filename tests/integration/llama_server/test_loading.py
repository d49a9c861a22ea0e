"""Loading, serving and answering, with tiny models."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gantry.runtimes.base import LoadProgress, LoadStage
from gantry.runtimes.llama_server import LlamaServerRuntime
from tests.integration.llama_server.helpers import (
    assert_nothing_left,
    headers,
    load,
    make_runtime,
    only,
    request_for,
    wrapper,
)
from tests.tiny_gguf import write_tiny_model

pytestmark = pytest.mark.llama
MIB = 1024**2


def test_check_tells_the_build(runtime: LlamaServerRuntime) -> None:
    health = runtime.check()
    assert health.is_ok
    assert health.version.startswith("llama-server ")


def test_load_then_verify_then_unload(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf")
    assert load(runtime, request)[-1].stage == LoadStage.READY

    instance = only(runtime)
    assert (instance.instance_id, instance.model_id) == (request.instance_id, "tiny")
    assert instance.is_alive
    assert instance.is_ready
    assert instance.memory_bytes is not None
    assert instance.memory_bytes > MIB
    assert instance.started_at == pytest.approx(time.time(), abs=10)
    assert instance.api_key not in repr(instance)
    assert runtime.verify(request.instance_id).text.strip()
    assert runtime.busy_count(request.instance_id) == 0
    assert any("model loaded" in line for line in runtime.log_tail(request.instance_id, 500))

    assert instance.pid is not None
    started = time.monotonic()
    runtime.unload(request.instance_id)
    assert time.monotonic() - started < 2
    assert not psutil.pid_exists(instance.pid)
    assert runtime.running() == []
    assert any("model loaded" in line for line in runtime.log_tail(request.instance_id, 500))
    runtime.unload(request.instance_id)  # of what is not there: no error


@pytest.mark.parametrize("parameters", [{"ctx_size": 256}, {"ctx_size": 256, "no_mmap": True}], ids=["mapped", "read"])
def test_progress_is_real_and_never_falls(
    runtime: LlamaServerRuntime, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    # Of its own, since a file that was read before comes too fast to be watched.
    path = write_tiny_model(tmp_path / "cold.gguf", padding_bytes=900 * MIB)
    signs = load(runtime, request_for(path, parameters=parameters))
    path.unlink()  # with the memory that its contents take
    assert_real_progress(signs)


def assert_real_progress(signs: list[LoadProgress]) -> None:
    fractions = [sign.fraction for sign in signs if sign.fraction is not None]
    assert fractions == sorted(fractions)
    assert fractions[0] < 0.5
    assert fractions[-1] == 1.0
    assert all(fraction <= 0.9 for fraction in fractions[:-1])
    between = {fraction for fraction in fractions if 0 < fraction < 0.9}
    assert between, fractions  # not only begin and end
    stages = [sign.stage for sign in signs]
    assert stages == sorted(stages, key=list(LoadStage).index)


def test_no_answer_without_the_key(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf")
    load(runtime, request)
    instance = only(runtime)
    url = f"{instance.base_url}/v1/models"
    assert httpx.get(url, trust_env=False).status_code == 200  # says only what it is
    for url in (f"{instance.base_url}/v1/completions", f"{instance.base_url}/v1/chat/completions"):
        body = {"prompt": "Hello", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        assert httpx.post(url, json=body, trust_env=False).status_code == 401
        assert httpx.post(url, json=body, headers=headers(instance), trust_env=False).status_code == 200


def test_key_is_seen_in_no_argument_and_no_log(runtime: LlamaServerRuntime, models: Path, tmp_path: Path) -> None:
    request = request_for(models / "tiny.gguf")
    load(runtime, request)
    instance = only(runtime)
    assert instance.api_key not in " ".join(psutil.Process(instance.pid).cmdline())
    assert not any(instance.api_key[-4:] in line for line in runtime.log_tail(request.instance_id, 500))
    folder = tmp_path / "state" / request.instance_id
    assert instance.api_key not in (folder / "instance.json").read_text()
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "api_key").stat().st_mode & 0o077 == 0


def test_listens_on_loopback_only(runtime: LlamaServerRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf"))
    sockets = psutil.Process(only(runtime).pid).net_connections(kind="inet")
    assert {entry.laddr.ip for entry in sockets if entry.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_server_sees_no_secret_of_the_worker(
    runtime: LlamaServerRuntime, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY", "very-secret")
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "1024")
    load(runtime, request_for(models / "tiny.gguf"))
    environment = psutil.Process(only(runtime).pid).environ()
    assert not {"SECRET_KEY", "LLAMA_ARG_CTX_SIZE"} & environment.keys()


def test_server_sees_the_devices_it_was_given_and_no_other(runtime: LlamaServerRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf", devices=("GPU-1b2c", "GPU-3d4e")))
    environment = psutil.Process(only(runtime).pid).environ()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["CUDA_DEVICE_ORDER"]) == (
        "GPU-1b2c,GPU-3d4e",
        "PCI_BUS_ID",
    )


def test_file_is_read_ahead_and_nothing_is_started(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf", extra_args=("--mmproj", str(models / "page.gguf")))
    both = (models / "tiny.gguf").stat().st_size + (models / "page.gguf").stat().st_size
    assert runtime.prefetch(request, lambda: False) == both
    assert runtime.prefetch(request, lambda: True) == 0
    assert runtime.prefetch(request_for(models / "absent.gguf"), lambda: False) == 0
    assert (runtime.running(), runtime.models()) == ([], ())


def test_two_models_at_once(runtime: LlamaServerRuntime, models: Path) -> None:
    first, second = request_for(models / "tiny.gguf"), request_for(models / "tiny.gguf", model_id="other")
    load(runtime, first)
    load(runtime, second)
    assert [instance.model_id for instance in runtime.running()] == ["tiny", "other"]
    assert len({instance.base_url for instance in runtime.running()}) == 2
    runtime.unload(first.instance_id)
    assert only(runtime).model_id == "other"
    assert runtime.verify(second.instance_id).text.strip()


def test_embedding_model_gives_vectors(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf", is_embedding=True, extra_args=("--pooling", "mean"))
    load(runtime, request)
    assert runtime.verify(request.instance_id).text == "64 numbers"


def test_chat_template_is_used(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf", chat_template="Q: {{ messages[0].content }} A:")
    load(runtime, request)
    instance = only(runtime)
    props = httpx.get(f"{instance.base_url}/props", headers=headers(instance), trust_env=False).json()
    assert props["chat_template"] == request.chat_template


def test_build_without_the_child_protocol_loads_too(models: Path, tmp_path: Path) -> None:
    plain = wrapper(tmp_path, 'unset LLAMA_SERVER_ROUTER_PORT\nexec @SERVER@ "$@"')
    runtime = make_runtime(tmp_path, plain)
    request = request_for(models / "large.gguf", parameters={"ctx_size": 256, "no_mmap": True})
    signs = load(runtime, request)
    assert {LoadStage.READING, LoadStage.READY} <= {sign.stage for sign in signs}
    assert only(runtime).is_ready
    started = time.monotonic()
    runtime.unload(request.instance_id)
    assert time.monotonic() - started < 3
    assert_nothing_left(runtime, tmp_path)
