"""Gantry's own chat client on a real llama-server."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from gantry.runtimes.chat_client import AnotherModelAnswers, ChatDelta, ChatTarget, stream_chat, target_for
from gantry.runtimes.exceptions import RuntimeAway
from gantry.runtimes.llama_server import LlamaServerRuntime
from tests.integration.llama_server.helpers import load, only, request_for

pytestmark = pytest.mark.llama


async def answer_of(target: ChatTarget) -> list[ChatDelta]:
    return [delta async for delta in stream_chat(target, [{"role": "user", "content": "hello"}], {"max_tokens": 5})]


async def test_answer_bears_the_models_id(runtime: LlamaServerRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf", model_id="family/tiny:Q4"))
    instance = only(runtime)
    target = target_for(runtime.kind, instance.base_url, instance.api_key, instance.model_id)
    assert target.must_name_model
    deltas = await answer_of(target)
    assert deltas[-1].token_count
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] in (["length"], ["stop"])


async def test_answer_of_another_model_is_refused(runtime: LlamaServerRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf"))
    instance = only(runtime)
    with pytest.raises(AnotherModelAnswers, match="tiny was loaded in its place"):
        await answer_of(target_for(runtime.kind, instance.base_url, instance.api_key, "gone"))


async def test_server_that_hangs_is_told_to_be_silent(runtime: LlamaServerRuntime, models: Path) -> None:
    load(runtime, request_for(models / "tiny.gguf"))
    instance = only(runtime)
    server = psutil.Process(instance.pid)
    server.suspend()
    try:
        with pytest.raises(RuntimeAway, match="went silent"):
            await answer_of(ChatTarget(instance.base_url, instance.api_key, first_seconds=0.3))
    finally:
        server.resume()
