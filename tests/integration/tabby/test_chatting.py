"""Gantry's own chat client on a TabbyAPI, with what the adapter tells of an instance; and the double as a program."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from gantry.runtimes.chat_client import (
    AnotherModelAnswers,
    ChatDelta,
    ChatTarget,
    ContextExceeded,
    stream_chat,
    target_for,
)
from gantry.runtimes.exceptions import RuntimeAway, RuntimeFault
from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby import TabbyDouble
from tests.integration.tabby.helpers import ALPHA, BETA, load


def target_of(runtime: TabbyRuntime) -> ChatTarget:
    (instance,) = runtime.running()
    return target_for(runtime.kind, instance.base_url, instance.api_key, instance.model_id)


async def answer_of(runtime: TabbyRuntime, text: str = "hello") -> list[ChatDelta]:
    return [delta async for delta in stream_chat(target_of(runtime), [{"role": "user", "content": text}])]


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


async def test_an_answer_after_an_unload_in_its_middle_is_not_waited_for_for_ever(
    runtime: TabbyRuntime, double: TabbyDouble
) -> None:
    double.api.ping_seconds = 0.02
    load(runtime, ALPHA)
    target = replace(target_of(runtime), silence_seconds=0.3)
    texts: list[str] = []

    async def read() -> None:
        async for delta in stream_chat(target, [{"role": "user", "content": "[[stub tokens=1000 delay=0.01]]"}]):
            texts.append(delta.text)
            if len(texts) == 3:
                await asyncio.to_thread(unload_behind, double)

    with pytest.raises(RuntimeAway, match="went silent: nothing came for"):
        await read()
    assert len(texts) >= 3


async def test_an_answer_of_the_model_that_somebody_loaded_instead_is_refused(
    runtime: TabbyRuntime, double: TabbyDouble
) -> None:
    load(runtime, ALPHA)
    target = target_of(runtime)
    double.put(BETA)
    with pytest.raises(AnotherModelAnswers, match=f"{BETA} was loaded in its place") as caught:
        [delta async for delta in stream_chat(target, [{"role": "user", "content": "hello"}])]
    assert caught.value.name == BETA


async def test_a_model_in_a_nested_directory_answers_under_its_last_name(
    runtime: TabbyRuntime, double: TabbyDouble
) -> None:
    double.models[f"family/{ALPHA}"] = double.models[ALPHA]
    load(runtime, f"family/{ALPHA}")
    assert target_of(runtime).model_id == f"family/{ALPHA}"
    assert (await answer_of(runtime))[-1].finish_reason == "stop"


def unload_behind(double: TabbyDouble) -> None:
    """As another client would."""
    headers = {"x-admin-key": double.admin_key}
    assert httpx.post(f"{double.url}/v1/model/unload", headers=headers, timeout=5).status_code == 200


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
