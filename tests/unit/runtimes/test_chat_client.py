"""The streaming chat client against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.chat_client import (
    AnotherModelAnswers,
    ChatDelta,
    ChatMessage,
    ChatTarget,
    ContextExceeded,
    stream_chat,
    target_for,
)
from gantry.runtimes.exceptions import RuntimeAway, RuntimeFault, RuntimeRefused
from tests.fakes.openai_server import OpenAIServer, openai_server

QUESTION: list[ChatMessage] = [{"role": "user", "content": "Say hello"}]


async def ask(fake: OpenAIServer, sampling: dict[str, Any] | None = None, **options: Any) -> list[ChatDelta]:
    target = ChatTarget(fake.base_url, "the-key", "m", **{"first_seconds": 5.0, "silence_seconds": 5.0, **options})
    return [delta async for delta in stream_chat(target, QUESTION, sampling)]


async def test_an_answer_comes_in_pieces_and_ends_with_its_figures() -> None:
    async with openai_server() as fake:
        deltas = await ask(fake)
    assert [delta.text for delta in deltas if delta.text] == ["Hel", "lo ", "there"]
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert (deltas[-1].token_count, deltas[-1].tokens_per_second) == (3, 42.0)


async def test_the_key_and_only_the_known_sampling_values_are_sent() -> None:
    async with openai_server() as fake:
        await ask(fake, {"temperature": 0.2, "stop": ["\n"], "logit_bias": {"1": -100}})
    assert fake.keys == ["Bearer the-key"]
    assert fake.requests[0]["temperature"] == 0.2
    assert fake.requests[0]["stop"] == ["\n"]
    assert "logit_bias" not in fake.requests[0]


def test_the_key_is_not_in_the_repr() -> None:
    assert "secret" not in repr(ChatTarget("http://x", "secret"))


async def test_nothing_listens_is_away() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(RuntimeAway, match="could not be reached"):
        await ask(OpenAIServer(base_url=f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"break_after": 1}, "broke off"),
        ({"hang_after": 1}, "went silent"),
        ({"hang_after": 1, "ping_seconds": 0.01}, "went silent: nothing came for"),
    ],
)
async def test_a_stream_that_does_not_end_is_away(settings: dict[str, Any], words: str) -> None:
    async with openai_server(**settings) as fake:
        with pytest.raises(RuntimeAway, match=words):
            await ask(fake, silence_seconds=0.2)


@pytest.mark.parametrize("settings", [{"hang_after": 0, "ping_seconds": 0.01}, {"first_delay_seconds": 60}])
async def test_first_words_that_never_come_are_away(settings: dict[str, Any]) -> None:
    async with openai_server(**settings) as fake:
        with pytest.raises(RuntimeAway, match="went silent"):
            await ask(fake, first_seconds=0.2)


async def test_first_words_may_take_longer_than_those_that_follow() -> None:
    async with openai_server(first_delay_seconds=0.5) as fake:
        deltas = await ask(fake, silence_seconds=0.2)
    assert "".join(delta.text for delta in deltas) == "Hello there"


@pytest.mark.parametrize(("asked", "told"), [("m", "m"), ("family/m", "m"), ("family/m", "family/m"), ("m", "")])
async def test_answer_under_the_models_own_name_is_its_answer(asked: str, told: str) -> None:
    async with openai_server(answers_as=told) as fake:
        target = ChatTarget(fake.base_url, model_id=asked, must_name_model=True)
        texts = [delta.text async for delta in stream_chat(target, QUESTION)]
    assert "".join(texts) == "Hello there"


async def test_answer_of_another_model_is_refused_before_its_first_word() -> None:
    texts: list[str] = []

    async def read(fake: OpenAIServer) -> None:
        async for delta in stream_chat(ChatTarget(fake.base_url, model_id="m", must_name_model=True), QUESTION):
            texts.append(delta.text)

    async with openai_server(answers_as="another") as fake:
        with pytest.raises(AnotherModelAnswers, match="another was loaded in its place and answers now") as caught:
            await read(fake)
    assert texts == []
    assert caught.value.name == "another"


async def test_server_that_chooses_by_name_may_call_the_model_as_it_likes() -> None:
    async with openai_server(answers_as="section-1") as fake:
        assert await ask(fake)


def test_name_is_looked_at_where_the_loaded_model_answers_to_any() -> None:
    kinds = ("llama_server", "llama_router", "tabby", "null")
    looked_at = [kind for kind in kinds if target_for(kind, "http://x", "", "m").must_name_model]
    assert looked_at == ["llama_server", "tabby"]


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": "none"},
        {"choices": [5]},
        {"choices": [{"delta": [], "finish_reason": 3}], "model": {}},
        {"choices": [{"delta": {"content": {"x": 1}}}], "usage": 5, "timings": []},
        {"usage": {"completion_tokens": "many"}, "timings": {"predicted_n": 1e300, "predicted_per_second": True}},
    ],
)
async def test_odd_figures_in_a_chunk_are_passed_over(chunk: dict[str, Any]) -> None:
    async with answering(b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n") as fake:
        assert await ask(fake) == [ChatDelta()]


async def test_an_error_inside_a_stream_is_raised_after_the_pieces() -> None:
    texts: list[str] = []

    async def read(fake: OpenAIServer) -> None:
        async for delta in stream_chat(ChatTarget(fake.base_url), QUESTION):
            texts.append(delta.text)

    async with openai_server(error_after=2) as fake:
        with pytest.raises(RuntimeRefused, match="the slot died"):
            await read(fake)
    assert texts == ["Hel", "lo "]


@pytest.mark.parametrize(
    ("status", "error", "expected", "code"),
    [
        (401, {"message": "Invalid API Key", "code": 401}, RuntimeRefused, ErrorCode.UNAUTHORISED),
        (503, {"message": "Loading model", "code": 503}, RuntimeAway, ErrorCode.RUNTIME_UNREACHABLE),
        (400, {"message": "bad template"}, RuntimeRefused, ErrorCode.BAD_PARAMETER),
        (500, "plain words", RuntimeRefused, ErrorCode.BAD_PARAMETER),
    ],
)
async def test_a_refusal_is_mapped(status: int, error: Any, expected: type[RuntimeFault], code: ErrorCode) -> None:
    async with openai_server(status=status, error_body=json.dumps({"error": error}).encode()) as fake:
        with pytest.raises(expected) as caught:
            await ask(fake)
    assert caught.value.code == code


async def test_a_refusal_without_json_names_the_status() -> None:
    async with openai_server(status=502, error_body=b"<html>") as fake:
        with pytest.raises(RuntimeRefused, match="502"):
            await ask(fake)


@pytest.mark.parametrize("named", [True, False])
async def test_a_conversation_that_is_too_long_says_how_much_fits(named: bool) -> None:
    error: dict[str, Any] = {
        "message": "request (3031 tokens) exceeds the available context size (512 tokens)",
        "n_ctx": 512,
    }
    if named:
        error["type"] = "exceed_context_size_error"
    async with openai_server(status=400, error_body=json.dumps({"error": error}).encode()) as fake:
        with pytest.raises(ContextExceeded) as caught:
            await ask(fake)
    assert caught.value.context_tokens == 512


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"code": []}, "refused without a reason"),
        ({"code": 10**400}, "refused without a reason"),
        ({"code": 500.0}, "refused with status 500"),
        ({"message": ["a"], "code": {}}, "refused without a reason"),
        ({"message": "two\nlines\x00" + "x" * 1000}, "refused: two lines x"),
        (["odd"], "refused without a reason"),
    ],
)
async def test_odd_error_inside_a_stream_is_told_in_plain_words(error: Any, words: str) -> None:
    async with answering(b"data: " + json.dumps({"error": error}).encode() + b"\n\n") as fake:
        with pytest.raises(RuntimeRefused) as caught:
            await ask(fake)
    assert caught.value.detail.startswith(words)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 400


@pytest.mark.parametrize("limit", ["512", None, True, -1, 10**400, []])
async def test_context_of_which_the_size_makes_no_sense_is_exceeded_all_the_same(limit: Any) -> None:
    error = {"type": "exceed_context_size_error", "message": "too long", "n_ctx": limit}
    async with openai_server(status=400, error_body=json.dumps({"error": error}).encode()) as fake:
        with pytest.raises(ContextExceeded) as caught:
            await ask(fake)
    assert caught.value.context_tokens is None


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"error":' * 100_000])
async def test_what_is_nested_without_end_is_no_answer_and_no_reason(deep: bytes) -> None:
    async with answering(b"data: " + deep + b"\n\n") as fake:
        with pytest.raises(RuntimeAway, match="no answer"):
            await ask(fake)
    async with openai_server(status=500, error_body=deep) as fake:
        with pytest.raises(RuntimeRefused, match="refused with status 500"):
            await ask(fake)


async def test_line_without_an_end_is_not_kept() -> None:
    async with answering(b"data: " + b"x" * 2_000_000) as fake:
        with pytest.raises(RuntimeAway, match="no answer"):
            await ask(fake)


async def test_text_comes_without_what_no_database_takes() -> None:
    chunk = json.dumps({"choices": [{"delta": {"content": "a\x00b\ud800c\U0001f600"}}]}).encode()
    async with answering(b"data: " + chunk + b"\n\ndata: [DONE]\n\n") as fake:
        assert [delta.text for delta in await ask(fake)] == ["ab\ufffdc\U0001f600"]


async def test_refusal_that_drips_on_is_not_waited_for_for_ever() -> None:
    async with openai_server(head_status=500, hang_after=0, ping_seconds=0.01) as fake:
        with pytest.raises(RuntimeAway, match="went silent"):
            await ask(fake, first_seconds=0.2)


async def test_a_page_instead_of_a_stream_is_refused() -> None:
    async with openai_server(content_type=b"text/html") as fake:
        with pytest.raises(RuntimeRefused, match="another program"):
            await ask(fake)


async def test_closing_the_generator_hangs_up() -> None:
    async with openai_server(delay_seconds=0.02, pieces=["x"] * 500) as fake:
        stream = stream_chat(ChatTarget(fake.base_url), QUESTION)
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(fake.disconnected.wait(), 2)


@pytest.mark.parametrize("chunk", [b"data: {oops\n\n", b"data: [1]\n\n"])
async def test_a_chunk_that_is_no_json_object_is_away(chunk: bytes) -> None:
    async with answering(chunk) as fake:
        with pytest.raises(RuntimeAway, match="no answer"):
            await ask(fake)


@asynccontextmanager
async def answering(stream: bytes) -> AsyncIterator[OpenAIServer]:
    """A server that answers with these bytes of an event stream."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + stream)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield OpenAIServer(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
