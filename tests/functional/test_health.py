"""`/healthz` and `/readyz`, alone and on a running Gantry."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import httpx
import pytest
from asgiref.sync import SyncToAsync
from django.core.signals import request_finished
from django.db import connection
from django.test import AsyncClient, Client

from gantry.open_database import close_with_requests
from models_admin import worker_signs
from tests.functional.stack import Stack


def test_health_is_answered_under_any_host_name_without_signing_in() -> None:
    response = Client().get("/healthz", headers={"host": "anything.example"})
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.django_db
def test_readiness_without_broker_is_refused_at_once_and_says_why() -> None:
    began = time.monotonic()
    response = Client().get("/readyz")
    assert time.monotonic() - began < 1
    assert response.status_code == 503
    assert response.json()["checks"] == {"database": True, "broker": False, "worker": False}
    assert "The broker does not answer." in response.json()["status"]


@pytest.mark.django_db(transaction=True)
async def test_async_chain_answers_the_same() -> None:
    assert (await AsyncClient().get("/healthz")).status_code == 200
    assert (await AsyncClient().get("/readyz")).status_code == 503


@pytest.mark.django_db
def test_head_is_answered_and_post_is_passed_on() -> None:
    assert Client().head("/healthz").status_code == 200
    assert Client().post("/healthz").status_code == 404


def test_running_gantry_is_ready(stack: Stack) -> None:
    response = httpx.get(f"{stack.url}readyz")
    assert (response.status_code, response.json()) == (
        200,
        {"status": "ready", "checks": {"database": True, "broker": True, "worker": True}},
    )


@pytest.mark.django_db(transaction=True)
async def test_middleware_of_a_page_goes_to_the_thread_of_its_request_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn between the event loop and a thread costs more than most of what they do."""
    turns: list[object] = []
    call = SyncToAsync.__call__

    async def counted(self: SyncToAsync[Any, Any], *args: Any, **kwargs: Any) -> Any:
        turns.append(self.func)
        return await call(self, *args, **kwargs)

    monkeypatch.setattr(SyncToAsync, "__call__", counted)
    assert (await AsyncClient().get("/sign-in/")).status_code == 200
    assert len(turns) <= 6, turns  # what Django itself needs; its middleware would take ten more


@pytest.mark.django_db(transaction=True)
def test_connection_to_the_database_ends_with_its_request_unless_its_thread_stays() -> None:
    close_with_requests()
    left_open = []

    def end_request() -> None:
        connection.ensure_connection()
        request_finished.send(sender=None)
        left_open.append(connection.connection is not None)

    request = threading.Thread(target=end_request)
    request.start()
    request.join()
    end_request()
    assert left_open == [False, True]


@pytest.mark.parametrize("path", ["healthz", "readyz"])
def test_answer_takes_less_than_20_ms(stack: Stack, path: str) -> None:
    with httpx.Client() as client:
        client.get(stack.url + path)
        seconds = [client.get(stack.url + path).elapsed.total_seconds() for _ in range(30)]
    assert statistics.median(seconds) < 0.020


def test_silent_worker_counts_as_dead() -> None:
    """Between two signs there are 2 s; five missed ones are not taken for a pause."""
    assert 2 * 2.0 < worker_signs.SILENT_AFTER_SECONDS <= 20.0
