"""The API of a running Gantry: a program describes a model, switches to it, and follows the switch as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from tests.functional.stack import Stack
from tests.tiny_gguf import write_tiny_model

MAKE_KEY = """
from django.contrib.auth.models import User
from models_admin.actor import COMMAND
from models_admin.keys import create_key
print(create_key(User.objects.get(username="ann"), actor=COMMAND, name="test", scopes=["admin"])[1])
"""


@pytest.fixture
def program(stack: Stack) -> Iterator[httpx.Client]:
    """With an administrator's key."""
    made = stack.manage("shell", "-v", "0", "-c", MAKE_KEY)
    assert made.returncode == 0, made.stderr
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    with httpx.Client(base_url=f"{stack.url}api/v1/", headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def model_id(stack: Stack, program: httpx.Client) -> Iterator[str]:
    """A tiny model for the real llama-server."""
    folder = stack.data_dir / "models" / "acme"
    folder.mkdir(parents=True)
    write_tiny_model(folder / "api.gguf")
    [model_id] = checked(program.post("catalog/scan", json={"path": str(folder)}))["created"]
    yield model_id
    ended(program, checked(program.post("jobs", json={"kind": "unload_all"}))["job"]["id"])
    assert program.delete(f"models/{model_id}").status_code == 204


def checked(response: httpx.Response) -> Any:
    assert response.is_success, response.text
    return response.json()


def followed(program: httpx.Client, job: int, seen: str = "") -> Iterator[ServerSentEvent]:
    headers = {"Last-Event-ID": seen} if seen else {}
    with connect_sse(program, "GET", f"jobs/{job}/events", headers=headers) as source:
        assert source.response.headers["cache-control"] == "no-store"
        yield from source.iter_sse()


def ended(program: httpx.Client, job: int) -> Any:
    """The job as its last event tells it."""
    return json.loads(list(followed(program, job))[-1].data)["job"]


@pytest.mark.llama
def test_switch_is_asked_for_and_followed_to_its_end(program: httpx.Client, model_id: str) -> None:
    job = checked(program.post("jobs", json={"model_id": model_id}, headers={"Idempotency-Key": "api"}))["job"]["id"]
    again = program.post("jobs", json={"model_id": model_id}, headers={"Idempotency-Key": "api"})
    assert again.json()["job"]["id"] == job

    events = list(followed(program, job))
    assert [int(event.id) for event in events] == list(range(1, len(events) + 1))
    assert {event.event for event in events[:-1]} == {"progress"}
    last = json.loads(events[-1].data)
    assert (events[-1].event, last["state"], last["job"]["percent"]) == ("end", "succeeded", 100)
    assert {"loading", "warming"} <= {json.loads(event.data)["state"] for event in events}

    rest = list(followed(program, job, seen=events[1].id))
    assert [event.id for event in rest] == [event.id for event in events[2:]]
    status = program.get("status")
    assert status.json()["active"] == model_id
    lines = program.get("audit/export", params={"format": "jsonl", "what": "job:end"}).text.splitlines()
    assert json.loads(lines[-1])["job_id"] == job


def test_refusals_have_one_shape_on_the_real_server_too(program: httpx.Client) -> None:
    answers = [
        program.get("nowhere"),
        program.get("models/none"),
        program.put("jobs"),
        program.post("jobs", content=b"{"),
        program.post("jobs", content=b"x" * 70_000),
        program.post("jobs", content=(part for part in (b"{", b"}"))),
        httpx.get(f"{program.base_url}models"),
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 405, 400, 413, 411, 401]
    assert all(sorted(answer.json()) == ["code", "data", "detail", "hint"] for answer in answers)
