"""`make demo-tabby`: one command starts the double of TabbyAPI and Gantry beside it, and Ctrl-C ends both."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.functional.stack import READY_SECONDS, ROOT, Stack, environment_for, is_alive, wait_until

pytestmark = pytest.mark.llama  # `up` starts no Gantry without a llama-server


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Stack]:
    """The demo with the memory that it sets itself; ready."""
    environment = environment_for(tmp_path)
    del environment["GANTRY_MEMORY"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.tabby.demo"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    stack = Stack(f"http://127.0.0.1:{environment['GANTRY_PORT']}/", tmp_path, process, environment)
    try:
        wait_until(lambda: stack.has_said("Ready: open"), READY_SECONDS, lambda: "\n".join(stack.lines))
        yield stack
    finally:
        stack.stop()


def double_of(stack: Stack) -> str:
    """Where the double listens, as the demo says."""
    found = re.search(r"stand-in for TabbyAPI at (\S+)", "\n".join(stack.lines))
    assert found, stack.lines
    return found[1]


def test_its_models_are_listed_and_ctrl_c_ends_everything(demo: Stack) -> None:
    double = double_of(demo)
    assert httpx.get(f"{double}/health").json()["status"] == "healthy"
    assert demo.has_said("Under Models, click Switch beside a model")
    wait_until(lambda: "Qwen3-8B-exl3-4.0bpw" in demo.manage("models", "list").stdout, READY_SECONDS)
    assert "25.8 GB" in demo.manage("status").stdout  # 24 GiB
    started = demo.children()
    assert len(started) > 3

    assert demo.stop(signal.SIGINT) == 0

    assert not [process for process in started if is_alive(process)]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{double}/health")
