"""Odd answers of a server, each mapped to what Gantry says of it."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.exceptions import RuntimeAway, RuntimeRefused, VerifyFailed
from gantry.runtimes.llama_client import Health, LlamaClient

URL = "http://127.0.0.1:1"
Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler) -> LlamaClient:
    return LlamaClient(httpx.MockTransport(handler))


def answering(status: int, json: object = None, text: str = "") -> LlamaClient:
    body = {"json": json} if json is not None else {"text": text}
    return client(lambda _: httpx.Response(status, **body))


def failing(error: type[httpx.TransportError]) -> LlamaClient:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("no", request=request)

    return client(fail)


@pytest.mark.parametrize(("status", "health"), [(200, Health.READY), (503, Health.LOADING), (404, Health.AWAY)])
def test_health(status: int, health: Health) -> None:
    assert answering(status).health(URL) == health


def test_health_of_nobody_is_away() -> None:
    assert failing(httpx.ConnectError).health(URL) == Health.AWAY


def test_busy_slots_are_counted() -> None:
    assert answering(200, [{"is_processing": True}, {"is_processing": False}, {}]).busy_count(URL, "k") == 1


def test_slots_that_answer_too_late_mean_work() -> None:
    assert failing(httpx.ReadTimeout).busy_count(URL, "k") == 1


@pytest.mark.parametrize(
    "error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.RemoteProtocolError]
)
def test_broken_connection_is_away(error: type[httpx.TransportError]) -> None:
    with pytest.raises(RuntimeAway) as fault:
        failing(error).busy_count(URL, "k")
    assert fault.value.code == ErrorCode.RUNTIME_UNREACHABLE


def test_answer_that_is_no_list_is_refused() -> None:
    with pytest.raises(RuntimeRefused):
        answering(200, {"slots": 1}).busy_count(URL, "k")


def test_answer_that_is_no_json_is_refused() -> None:
    with pytest.raises(RuntimeRefused, match="not JSON"):
        answering(200, text="<html>").busy_count(URL, "k")


def test_key_is_sent_and_its_refusal_told() -> None:
    seen = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(401, json={"error": {"message": "Invalid API Key"}})

    with pytest.raises(RuntimeRefused) as refusal:
        client(refuse).busy_count(URL, "k")
    assert refusal.value.code == ErrorCode.UNAUTHORISED
    assert seen == ["Bearer k"]


def test_token_proves_a_model_even_when_it_is_not_shown() -> None:
    answer = {"choices": [{"text": ""}], "usage": {"completion_tokens": 1}}
    assert answering(200, answer).verify(URL, "k", "m", is_embedding=False).text == ""


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, {"choices": [], "usage": {"completion_tokens": 0}}),
        (200, {}),
        (200, []),
        (500, {"error": {"message": "boom"}}),
        (503, {"error": {"message": "Loading model"}}),
    ],
)
def test_answer_without_a_token_fails_verification(status: int, answer: object) -> None:
    with pytest.raises(VerifyFailed) as failure:
        answering(status, answer).verify(URL, "k", "m", is_embedding=False)
    assert failure.value.code == ErrorCode.VERIFY_FAILED
    assert failure.value.detail


@pytest.mark.parametrize("answer", [{"data": []}, {"data": [{"embedding": []}]}, {}])
def test_answer_without_a_vector_fails_verification(answer: object) -> None:
    with pytest.raises(VerifyFailed, match="embedding"):
        answering(200, answer).verify(URL, "k", "m", is_embedding=True)


def test_silence_fails_verification() -> None:
    with pytest.raises(VerifyFailed, match="no answer in time"):
        failing(httpx.ReadTimeout).verify(URL, "k", "m", is_embedding=False)


def test_refused_key_fails_verification_by_its_own_name() -> None:
    with pytest.raises(VerifyFailed) as failure:
        answering(401).verify(URL, "k", "m", is_embedding=False)
    assert failure.value.code == ErrorCode.UNAUTHORISED
