"""Gantry's own chat client on a TabbyAPI, with what the adapter tells of an instance; and the double as a program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from gantry.runtimes.chat_client import ChatDelta, ChatTarget, ContextExceeded, stream_chat
from gantry.runtimes.exceptions import RuntimeFault
from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby import TabbyDouble
from tests.integration.tabby.helpers import ALPHA, load


async def answer_of(runtime: TabbyRuntime, text: str = "hello") -> list[ChatDelta]:
    (instance,) = runtime.running()
    target = ChatTarget(instance.base_url, instance.api_key, instance.model_id)
    return [delta async for delta in stream_chat(target, [{"role": "user", "content": text}])]


async def test_a_chat_is_streamed_with_the_api_key(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    load(runtime, ALPHA)
    deltas = await answer_of(runtime)
    assert "".join(delta.text for delta in deltas).startswith(f"This is {ALPHA}.")
    assert deltas[-1].finish_reason == "stop"
    assert deltas[-1].token_count == len(deltas) - 1
    (request,) = [request for request in double.requests if request.path == "/v1/chat/completions"]
    assert request.headers["authorization"] == f"Bearer {double.api_key}"


async def test_a_chat_longer_than_the_context_is_told_as_such(runtime: TabbyRuntime) -> None:
    load(runtime, ALPHA, max_seq_len=2304)
    with pytest.raises(ContextExceeded):
        await answer_of(runtime, "word " * 2400)


async def test_an_engine_error_in_mid_answer_ends_the_chat(runtime: TabbyRuntime) -> None:
    load(runtime, ALPHA)
    with pytest.raises(RuntimeFault, match="Chat completion aborted"):
        await answer_of(runtime, "[[stub crash=3]]")


def test_the_double_runs_by_itself_and_prints_its_address() -> None:
    with _program("--port", "0", "--module-seconds", "0.001", "--admin-key", "demo") as url:
        headers = {"x-admin-key": "demo"}
        body = {"model_name": "Llama-3.2-1B-exl3-8.0bpw"}
        answer = httpx.post(f"{url}/v1/model/load", json=body, headers=headers, timeout=20)
        assert '"module": 19, "modules": 19, "status": "finished"' in answer.text


@contextmanager
def _program(*arguments: str) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.fakes.tabby", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            process.wait(20)
    assert process.returncode == 0
