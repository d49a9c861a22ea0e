"""Loads that fail or are stopped: the cause is named, and nothing is left."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes import llama_server
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeRefused
from gantry.runtimes.llama_ending import load_failure
from gantry.runtimes.llama_instance import InstanceFolder
from gantry.runtimes.llama_server import LlamaServerRuntime
from gantry.runtimes.process import choose_port
from tests.integration.llama_server.helpers import (
    assert_nothing_left,
    load,
    make_runtime,
    only,
    request_for,
    wrapper,
)

pytestmark = pytest.mark.llama


def test_cancelled_load_leaves_nothing(runtime: LlamaServerRuntime, models: Path, tmp_path: Path) -> None:
    request = request_for(models / "large.gguf", parameters={"no_mmap": True})
    looks = iter([False, False, False])  # then it is cancelled
    started = time.monotonic()
    with pytest.raises(LoadCancelled):
        list(runtime.load(request, lambda: next(looks, True)))
    assert time.monotonic() - started < 3
    assert_nothing_left(runtime, tmp_path)


def test_load_that_nobody_follows_is_ended(runtime: LlamaServerRuntime, models: Path, tmp_path: Path) -> None:
    signs = runtime.load(request_for(models / "large.gguf"), lambda: False)
    next(signs)
    signs.close()  # type: ignore[attr-defined] # it is a generator
    assert_nothing_left(runtime, tmp_path)


def test_second_load_of_an_instance_is_refused(runtime: LlamaServerRuntime, models: Path) -> None:
    request = request_for(models / "tiny.gguf")
    load(runtime, request)
    with pytest.raises(RuntimeRefused):
        load(runtime, request)
    assert only(runtime).is_alive


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("page.gguf", ErrorCode.FILE_DAMAGED),
        ("truncated.gguf", ErrorCode.FILE_DAMAGED),
        ("absent.gguf", ErrorCode.NOT_DOWNLOADED),
    ],
)
def test_broken_file_fails_the_load(
    runtime: LlamaServerRuntime, models: Path, tmp_path: Path, name: str, code: ErrorCode
) -> None:
    request = request_for(models / name)
    with pytest.raises(LoadFailed) as failure:
        load(runtime, request)
    assert failure.value.code == code
    assert failure.value.detail
    if code == ErrorCode.FILE_DAMAGED:
        assert failure.value.exit_text == "exited with 1"
        assert any("failed to load model" in line for line in failure.value.log_tail)
        assert runtime.log_tail(request.instance_id)
    assert_nothing_left(runtime, tmp_path)


def test_unknown_flag_is_refused_before_anything_starts(
    runtime: LlamaServerRuntime, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeRefused, match="--wobble") as failure:
        load(runtime, request_for(models / "tiny.gguf", extra_args=("--wobble", "3")))
    assert failure.value.code == ErrorCode.BAD_PARAMETER
    assert not any((tmp_path / "state").glob("*"))


def test_value_that_the_server_refuses_is_a_bad_parameter(runtime: LlamaServerRuntime, models: Path) -> None:
    with pytest.raises(LoadFailed) as failure:
        load(runtime, request_for(models / "tiny.gguf", parameters={"cache_type_k": "q99"}))
    assert failure.value.code == ErrorCode.BAD_PARAMETER
    assert "--cache-type-k" in failure.value.detail


def test_taken_port_is_tried_elsewhere(
    runtime: LlamaServerRuntime, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = [other.getsockname()[1], choose_port()]
        monkeypatch.setattr(llama_server, "choose_port", lambda: ports.pop(0))
        load(runtime, request_for(models / "tiny.gguf"))
    assert ports == []
    assert only(runtime).is_ready


def test_port_taken_each_time_fails_the_load(
    runtime: LlamaServerRuntime, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(llama_server, "choose_port", lambda: other.getsockname()[1])
        with pytest.raises(LoadFailed) as failure:
            load(runtime, request_for(models / "tiny.gguf"))
    assert failure.value.code == ErrorCode.PORT_TAKEN


def test_too_little_memory_is_told_as_such(models: Path, tmp_path: Path) -> None:
    limited = wrapper(tmp_path, 'case "$1" in --model) ulimit -v 600000;; esac\nexec @SERVER@ "$@"')
    with pytest.raises(LoadFailed) as failure:
        load(make_runtime(tmp_path, limited), request_for(models / "large.gguf"))
    assert failure.value.code == ErrorCode.OUT_OF_MEMORY
    assert failure.value.detail  # which allocation failed first differs from run to run


def test_wrong_processor_is_told_as_such(models: Path, tmp_path: Path) -> None:
    foreign = wrapper(tmp_path, 'case "$1" in --model) kill -ILL $$;; esac\nexec @SERVER@ "$@"')
    with pytest.raises(LoadFailed) as failure:
        load(make_runtime(tmp_path, foreign), request_for(models / "tiny.gguf"))
    assert failure.value.code == ErrorCode.WRONG_CPU


def test_damaged_file_is_named_also_when_the_log_says_nothing(models: Path, tmp_path: Path) -> None:
    folder = InstanceFolder.of(tmp_path, "00000000-0000-0000-0000-000000000001")
    folder.create({"argv": []}, "key")
    folder.write("exit.json", json.dumps({"code": 1, "signal": None, "errno": None}))
    failure = load_failure(InstanceFolder(folder.path), models / "page.gguf")
    assert failure.code == ErrorCode.FILE_DAMAGED
    assert failure.detail.startswith("It ")


def test_what_cannot_work_is_refused_before_anything_is_started(
    runtime: LlamaServerRuntime, models: Path, tmp_path: Path
) -> None:
    runtime.check_load(request_for(models / "tiny.gguf"))
    with pytest.raises(RuntimeRefused, match="--no-such-flag"):
        runtime.check_load(request_for(models / "tiny.gguf", extra_args=["--no-such-flag"]))
    with pytest.raises(LoadFailed) as failure:
        runtime.check_load(request_for(models / "absent.gguf"))
    assert failure.value.code == ErrorCode.NOT_DOWNLOADED
    assert_nothing_left(runtime, tmp_path)
