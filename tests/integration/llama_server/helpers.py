"""What the tests of the real llama-server share."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import psutil

from gantry.runtimes.base import LoadProgress, LoadRequest, RunningInstance
from gantry.runtimes.llama_binary import ask_build, find_binary
from gantry.runtimes.llama_server import LlamaServerRuntime
from gantry.runtimes.registry import RuntimeConfig


def make_runtime(tmp_path: Path, binary: Path | None = None) -> LlamaServerRuntime:
    return LlamaServerRuntime(RuntimeConfig("local", "llama_server", state_dir=tmp_path / "state", binary=binary))


def request_for(path: Path, **changes: Any) -> LoadRequest:
    values: dict[str, Any] = {
        "instance_id": str(uuid.uuid4()),
        "model_id": path.stem,
        "path": path,
        "file_bytes": path.stat().st_size if path.exists() else 1,
        "parameters": {"ctx_size": 256, "threads": 1, "parallel": 2},
    }
    return LoadRequest(**{**values, **changes})


def load(runtime: LlamaServerRuntime, request: LoadRequest) -> list[LoadProgress]:
    return list(runtime.load(request, lambda: False))


def only(runtime: LlamaServerRuntime) -> RunningInstance:
    (instance,) = runtime.running()
    return instance


def wait_until_dead(runtime: LlamaServerRuntime, *, is_recorded: bool = True) -> RunningInstance:
    """With its end written down, which the keeper does a moment after it came."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        instance = only(runtime)
        if not instance.is_alive and (instance.exit_text != "gone without a trace") == is_recorded:
            return instance
        time.sleep(0.02)
    raise AssertionError(f"still {only(runtime)}")


def headers(instance: RunningInstance) -> dict[str, str]:
    return {"Authorization": f"Bearer {instance.api_key}"}


def assert_nothing_left(runtime: LlamaServerRuntime, tmp_path: Path) -> None:
    assert runtime.running() == []
    assert our_processes(tmp_path) == []


def our_processes(tmp_path: Path) -> list[int]:
    """Keepers and servers whose working folder is one of ours."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(str(tmp_path)):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wrapper(tmp_path: Path, line: str) -> Path:
    """A program in front of the real one, as an operator may set it."""
    build = ask_build(find_binary(None))
    path = tmp_path / "wrapped-llama-server"
    libraries = build.environment().get("LD_LIBRARY_PATH", "")
    path.write_text(f"#!/bin/sh\nexport LD_LIBRARY_PATH='{libraries}'\n{line}\n".replace("@SERVER@", str(build.path)))
    path.chmod(0o755)
    return path
