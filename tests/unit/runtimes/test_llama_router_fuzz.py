"""Answers of a real router, mutated in many ways: the adapter ends, with its own errors or none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes import llama_router_events, llama_router_load
from gantry.runtimes.base import AvailableModel, LoadRequest, RunningInstance
from gantry.runtimes.exceptions import RuntimeFault
from gantry.runtimes.llama_router import LlamaRouterRuntime
from gantry.runtimes.registry import RuntimeConfig
from tests.unit.runtimes import router_answers as answers

SEEDS = range(1000)
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    10**400,
    -(2**63),
    0.1,
    1e308,
    "",
    "loaded",
    "loading",
    "unloaded",
    "sleeping",
    "\x00\ud800",
    "ß" * 600,
    [],
    [[]],
    {},
    {"": None},
    [{"id": "large"}],
]


def mutate(rng: random.Random, data: Any) -> Any:
    """The same with one thing in it wrong: a value, a key, an order, a repetition."""
    if isinstance(data, dict) and data and rng.random() < 0.85:
        key = rng.choice(list(data))
        changed = dict(data)
        if rng.random() < 0.15:
            del changed[key]
        else:
            changed[key] = mutate(rng, data[key])
        return changed
    if isinstance(data, list) and data and rng.random() < 0.85:
        changed_list = list(data)
        index = rng.randrange(len(data))
        change = rng.random()
        if change < 0.15:
            rng.shuffle(changed_list)
        elif change < 0.3:
            changed_list += changed_list
        else:
            changed_list[index] = mutate(rng, data[index])
        return changed_list
    return rng.choice(ODD)


def spoil(rng: random.Random, body: bytes) -> bytes:
    """The bytes with one thing wrong: cut, turned, doubled, not UTF-8."""
    change = rng.random()
    place = rng.randrange(len(body) + 1)
    if change < 0.25:
        return body[:place]
    if change < 0.5:
        return body[:place] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 8))) + body[place:]
    if change < 0.7:
        return body[:place] + body[place + 1 :]
    if change < 0.8:
        return b"[" * 20_000 + body
    return body[place:] + body[:place]


def wrong(rng: random.Random, data: Any) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        data = mutate(rng, data)
    body = json.dumps(data).encode("utf-8", "surrogatepass")
    return spoil(rng, body) if rng.random() < 0.4 else body


def wrong_stream(rng: random.Random) -> bytes:
    events = list(answers.EVENTS)
    if rng.random() < 0.3:
        rng.shuffle(events)
    lines = [wrong(rng, json.loads(event)) if rng.random() < 0.6 else event.encode() for event in events]
    body = b"".join(b"data: " + line + b"\n\n" for line in lines)
    return spoil(rng, body) if rng.random() < 0.4 else body


def server(rng: random.Random) -> httpx.MockTransport:
    """Answers each question with a mutation of what a real router says."""
    whole: dict[str, Any] = {
        "/props": json.loads(answers.PROPS),
        "/models/load": json.loads(rng.choice([answers.LOADED, answers.RUNNING_ALREADY, answers.NOT_FOUND])),
        "/models/unload": json.loads(rng.choice([answers.LOADED, answers.NOT_RUNNING])),
        "/slots": json.loads(answers.SLOTS),
        "/v1/completions": json.loads(answers.TOKEN),
    }
    harm = rng.random() ** 2  # many worlds are nearly sound, so that a load comes far
    coming = iter(["loading"] * 2)  # the states of one model once it is asked for; then it is loaded
    asked: list[str] = []

    def models() -> Any:
        large = answers.MODELS["data"][3]
        now = {**large, "status": {**large["status"], "value": next(coming, "loaded") if asked else "unloaded"}}
        return {**answers.MODELS, "data": [*answers.MODELS["data"][:3], now, *answers.MODELS["data"][4:]]}

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/models/load":
            asked.append(path)
        if path == "/models/sse":
            return answers.reply(200, wrong_stream(rng))
        is_sound = rng.random() > harm
        status = 200 if is_sound or rng.random() < 0.8 else rng.choice([201, 302, 400, 401, 404, 500, 503])
        data = models() if path == "/models" else whole.get(path, {})
        body = json.dumps(data).encode() if is_sound else wrong(rng, data)
        return answers.reply(status, body)

    return httpx.MockTransport(answer)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TICK_SECONDS", "LIST_SECONDS", "STREAM_SECONDS", "AWAY_SECONDS", "GONE_SECONDS"):
        monkeypatch.setattr(llama_router_load, name, 0.001)
    monkeypatch.setattr(llama_router_events, "PAUSES", (0.001,))


def call(function: Callable[[], Any]) -> Any:
    """What it gives; None where it fails with an error of the adapter's own."""
    fault: RuntimeFault
    try:
        return function()
    except RuntimeFault as exc:
        fault = exc
    assert isinstance(fault.detail, str)
    assert len(fault.detail) < 1500
    assert fault.code != ErrorCode.INTERNAL
    return None


@pytest.mark.parametrize("chunk", [SEEDS[start : start + 100] for start in SEEDS[::100]], ids=str)
def test_mutated_answers_end_in_errors_of_the_adapter_only(chunk: range, tmp_path: Path) -> None:
    for seed in chunk:
        rng = random.Random(seed)
        config = RuntimeConfig(
            "r", "llama_router", {"stall_seconds": 0.01}, tmp_path / str(seed), url="http://127.0.0.1:1"
        )
        runtime = LlamaRouterRuntime(config, server(rng))
        check_one(runtime, LoadRequest(f"load-{seed}", rng.choice(["large", "t1", "page", "gone"]), Path(), 0))


def check_one(runtime: LlamaRouterRuntime, request: LoadRequest) -> None:
    assert isinstance(runtime.check().is_ok, bool)
    for instance in call(runtime.running) or ():
        assert isinstance(instance, RunningInstance)
        assert instance.model_id
        call(lambda: runtime.busy_count(instance.instance_id))  # noqa: B023 # called at once
    for model in call(runtime.models) or ():
        assert isinstance(model, AvailableModel)
        json.dumps(model.facts)
    signs = call(lambda: list(runtime.load(request, lambda: False))) or []
    fractions = [sign.fraction or 0.0 for sign in signs]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= 1 for fraction in fractions)
    call(lambda: runtime.verify(request.instance_id))
    call(lambda: runtime.unload(request.instance_id))
    call(lambda: runtime.forget(request.instance_id))
