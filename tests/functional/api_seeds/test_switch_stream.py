"""The stream of a switch, with real loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import aclosing
from inspect import signature
from itertools import pairwise
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient
from httpx_sse import ServerSentEvent

from gantry.api import sse
from gantry.api.seeds import switch_stream
from models_admin.actor import COMMAND
from models_admin.keys import create_key
from models_admin.models import ApiKey, MemoryPool, ModelDefinition, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.functional.api_seeds.world import DAMAGED, GPT, HELD, LARGE, QWEN, Event, World, events_of
from tests.functional.stack import wait_until
from tests.integration.real_switches.held import ending_when_asked

CHECKING = ("stage", {"stage": "checking_memory", "progress": 0})


def without_figures(events: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    """The events without those that only differ from the one before in figures that depend on time."""
    bare = [
        (name, {key: value for key, value in data.items() if key not in {"progress", "eta", "total_time_seconds"}})
        for name, data in events
    ]
    return [bare[0], *(event for before, event in pairwise(bare) if event != before)]


def until_loading(source: Iterator[ServerSentEvent]) -> list[Event]:
    """The events until the load has begun."""
    seen: list[Event] = []
    for event in source:
        seen.append((event.event, json.loads(event.data)))
        if seen[-1][1]["stage"] == "loading":
            return seen
    raise AssertionError(seen)


@pytest.mark.llama
def test_events_of_a_switch_come_in_order(gantry: World) -> None:
    with gantry.stream(QWEN) as source:
        events = events_of(source)
    assert events[0] == CHECKING
    assert without_figures(events) == [
        ("stage", {"stage": "checking_memory"}),
        ("stage", {"stage": "unloading_models", "unloading": [GPT]}),
        ("progress", {"stage": "unloading", "model": GPT}),
        ("stage", {"stage": "loading_target", "model": QWEN}),
        ("progress", {"stage": "loading", "model": QWEN}),
        ("progress", {"stage": "initializing", "model": QWEN}),
        ("complete", {"status": "success", "model": QWEN}),
    ]
    told = [data["progress"] for name, data in events[:-1]]
    assert told == sorted(told)
    assert all(isinstance(percent, int) and 0 <= percent <= 99 for percent in told)
    assert all(data["eta"] is None or data["eta"] >= 0 for name, data in events if name == "progress")
    assert events[-1][1]["total_time_seconds"] > 0
    assert gantry.get("/api/llm-status").json()["current_model"] == QWEN


@pytest.mark.llama
def test_model_that_serves_already_is_complete_at_once(gantry: World) -> None:
    with gantry.stream(GPT) as source:
        complete = {"status": "already_loaded", "model": GPT, "total_time_seconds": 0}
        assert events_of(source) == [CHECKING, ("complete", complete)]


@pytest.mark.llama
def test_what_does_not_fit_is_an_error_with_its_figures(gantry: World) -> None:
    with gantry.stream(LARGE) as source:
        first, (name, data) = events_of(source)
    assert (first, name, data["error"]) == (CHECKING, "error", "insufficient_memory")
    assert data["required_gb"] > data["available_gb"] + data["can_free_gb"]
    assert sorted(data) == ["available_gb", "can_free_gb", "error", "hint", "message", "required_gb"]
    assert f"{LARGE} needs 1." in data["message"]


@pytest.mark.llama
def test_headers_let_every_proxy_pass_it_on(gantry: World) -> None:
    body = {"target_model": GPT}
    with gantry.client.stream("POST", "/v1/models/switch", json=body, headers=gantry.headers()) as response:
        assert response.headers["Content-Type"].partition(";")[0] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Accel-Buffering"] == "no"
        response.read()


@pytest.mark.llama
def test_same_request_follows_the_switch_under_way_from_its_beginning(gantry: World) -> None:
    with gantry.stream(HELD) as first, gantry.stream(HELD) as second:
        begun = until_loading(first)
        assert until_loading(second) == begun
        gantry.held().go_on()
        rest = events_of(first)
        assert events_of(second) == rest
    assert rest[-1][1]["status"] == "success"
    assert len(gantry.ask("SwitchJob", f"filter(target__model_id={HELD!r}).values('id').order_by('-id')[:1]")) == 1


@pytest.mark.llama
@pytest.mark.parametrize("params", [{}, {"cancel_on_disconnect": "false"}])
def test_client_that_leaves_does_not_cancel(params: dict[str, str], gantry: World) -> None:
    with gantry.stream(HELD, **params) as source:
        until_loading(source)
    gantry.held().go_on()
    gantry.wait_for_end()
    assert gantry.get("/api/llm-status").json()["current_model"] == HELD


@pytest.mark.llama
@pytest.mark.parametrize("way", ["query", "header"])
def test_client_that_leaves_cancels_when_it_said_so(way: str, gantry: World) -> None:
    headers = gantry.headers() | ({"X-Cancel-On-Disconnect": "true"} if way == "header" else {})
    params = {"cancel_on_disconnect": "true"} if way == "query" else {}
    body = {"target_model": HELD}
    [state_dir] = (gantry.stack.data_dir / "runtime").glob("llama_server-*")
    with ending_when_asked(state_dir):
        with gantry.client.stream("POST", "/v1/models/switch", json=body, headers=headers, params=params) as response:
            lines = response.iter_lines()
            while '"stage": "loading"' not in next(lines):
                pass
            gantry.held()
        gantry.wait_for_end()
    [job] = gantry.ask("SwitchJob", "order_by('-id').values('state', 'cancelled_by_name', 'aftermath')[:1]")
    assert job == {"state": "cancelled", "cancelled_by_name": "ann", "aftermath": f"{GPT} was put back."}
    assert gantry.get("/api/llm-status").json()["current_model"] == GPT


@pytest.mark.llama
def test_cancel_by_somebody_is_told_with_what_was_put_back(gantry: World) -> None:
    [state_dir] = (gantry.stack.data_dir / "runtime").glob("llama_server-*")
    with ending_when_asked(state_dir), gantry.stream(HELD) as source:
        until_loading(source)
        gantry.held()
        job = gantry.get("/api/llm-status").json()["job_id"]
        assert gantry.post(f"/api/v1/jobs/{job}/cancel").status_code < 300
        events = without_figures(events_of(source))
    assert ("stage", {"stage": "restoring", "model": GPT}) in events
    name, data = events[-1]
    assert (name, data["error"]) == ("error", "cancelled")
    assert f"{GPT} was put back." in data["message"]


@pytest.mark.llama
def test_other_switch_ends_the_stream_of_the_one_it_takes_over_from(gantry: World) -> None:
    [state_dir] = (gantry.stack.data_dir / "runtime").glob("llama_server-*")
    with ending_when_asked(state_dir), gantry.stream(HELD) as source:
        until_loading(source)
        gantry.held()
        assert gantry.post("/api/switch-model", model_id=QWEN, confirm=True).status_code == 200
        name, data = events_of(source)[-1]
    assert (name, data["error"]) == ("error", "superseded")
    gantry.wait_for_end()
    assert gantry.get("/api/llm-status").json()["current_model"] == QWEN


@pytest.mark.llama
def test_file_that_is_damaged_is_refused_before_anything_streams(gantry: World) -> None:
    response = gantry.post("/v1/models/switch", {"target_model": DAMAGED})
    assert (response.status_code, response.json()["code"]) == (409, "file_damaged")


@pytest.mark.django_db(transaction=True)
async def test_comment_keeps_a_quiet_stream_open(
    pool: MemoryPool, null_runtime: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await _waiting_job(pool)
    monkeypatch.setattr(sse.follow_job, "__kwdefaults__", {"after": 0, "keep_alive_seconds": 0.01})
    async with aclosing(switch_stream._follow(job)) as pieces:
        assert (await anext(pieces)).startswith("event: stage\n")
        assert await anext(pieces) == ": keep-alive\n\n"


def test_comments_come_every_ten_seconds() -> None:
    assert signature(sse.follow_job).parameters["keep_alive_seconds"].default == 10.0


@pytest.mark.django_db(transaction=True)
async def test_stream_ends_with_the_key_and_the_switch_goes_on(
    null_runtime: Runtime, admin_person: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "RIGHTS_SECONDS", 0.0)
    monkeypatch.setattr(sse.follow_job, "__kwdefaults__", {"after": 0, "keep_alive_seconds": 0.01})
    await sync_to_async(make_model)(null_runtime, model_id="m")
    _, token = await sync_to_async(create_key)(admin_person, actor=COMMAND, name="test", scopes=["switch"])
    response = await AsyncClient().post(
        "/v1/models/switch?cancel_on_disconnect=true",
        {"target_model": "m"},
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )
    async with aclosing(aiter(response.streaming_content)) as pieces:  # type: ignore[attr-defined]
        assert (await anext(pieces)).startswith(b"event: stage\n")
        await ApiKey.objects.all().adelete()
        last = b"".join([piece async for piece in pieces]).removeprefix(b": keep-alive\n\n")
    assert last.startswith(b'event: error\ndata: {"error": "key_refused"')
    assert last.count(b"event:") == 1
    assert (await SwitchJob.objects.aget()).cancel_requested_at is None


async def _waiting_job(pool: MemoryPool) -> int:
    runtime = await pool.runtimes.aget()
    model = await ModelDefinition.objects.acreate(model_id="m", name="M", path="m.gguf", runtime=runtime)
    return (await sync_to_async(make_job)(pool, model)).pk


@pytest.mark.llama
def test_get_is_not_answered(gantry: World) -> None:
    response = httpx.get(f"{gantry.url}v1/models/switch?model={GPT}", headers=gantry.headers(), trust_env=False)
    assert response.status_code == 405


@pytest.mark.llama
def test_status_is_fresh_during_a_switch(gantry: World) -> None:
    with gantry.stream(HELD) as source:
        until_loading(source)

        def is_loading() -> bool:
            return bool(gantry.get("/v1/models/status").json()["models"][HELD]["status"] == "loading")

        wait_until(is_loading, 1.0)
        gantry.held().go_on()
        assert events_of(source)[-1][0] == "complete"
    wait_until(lambda: gantry.get("/v1/models/status").json()["models"][HELD]["active"], 1.0)
