"""The worker tells pages of a switch without standing still for the broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from channels.layers import channel_layers, get_channel_layer
from structlog.testing import capture_logs

from gantry import live
from tests.redis_server import RedisServer, start_redis

GROUP = "a-group"


@pytest.fixture
def valkey(tmp_path: Path, settings: Any) -> Iterator[RedisServer]:
    server = start_redis(tmp_path)
    backend = "channels_redis.pubsub.RedisPubSubChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"hosts": [server.url]}}}
    channel_layers.backends.clear()
    yield server
    channel_layers.backends.clear()
    server.stop()


def job(pk: int, *, percent: int = 0, is_finished: bool = False) -> dict[str, Any]:
    return {"type": "job_updated", "job": {"id": pk, "percent": percent, "is_finished": is_finished}}


class Listener:
    """Somebody who looks at the pages: hears `count` messages in an event loop of its own."""

    def __init__(self, count: int) -> None:
        self.heard: list[dict[str, Any]] = []
        self._is_there = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen(count)))
        self._thread.start()
        assert self._is_there.wait(10)

    async def _listen(self, count: int) -> None:
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add(GROUP, channel)
        self._is_there.set()
        for _ in range(count):
            self.heard.append(await asyncio.wait_for(layer.receive(channel), 10))

    def wait(self) -> list[dict[str, Any]]:
        self._thread.join(15)
        return self.heard


def test_hints_arrive_in_the_order_in_which_they_were_put(valkey: RedisServer) -> None:
    listener = Listener(50)
    background = live.Background()
    for number in range(50):
        background.put(GROUP, {"type": "message_updated", "number": number})
    assert [message["number"] for message in listener.wait()] == list(range(50))


def test_of_hints_that_come_together_the_latest_of_a_job_is_sent_and_its_end_at_once(valkey: RedisServer) -> None:
    listener = Listener(2)
    background = live.Background()
    for percent in range(20):
        background.put(GROUP, job(7, percent=percent))
    background.put(GROUP, job(7, percent=100, is_finished=True))
    background.put(GROUP, {"type": "memory_changed", "event_id": "m"})
    assert [message["type"] for message in listener.wait()] == ["job_updated", "memory_changed"]
    assert listener.heard[0]["job"]["percent"] == 100


def test_flush_waits_until_all_was_sent(valkey: RedisServer) -> None:
    listener = Listener(20)
    background = live.Background()
    for number in range(20):
        background.put(GROUP, {"type": "message_updated", "number": number})
    assert background.flush(10)
    assert len(listener.wait()) == 20


def test_without_a_broker_hints_are_lost_with_a_line_each_and_later_ones_arrive(
    valkey: RedisServer, tmp_path: Path, settings: Any
) -> None:
    valkey.stop()
    background = live.Background()
    with capture_logs() as logs:
        background.put(GROUP, {"type": "message_updated"})
        assert background.flush(30)
    assert [line["event"] for line in logs] == ["live_hint_lost"]


def test_what_does_not_fit_into_the_queue_is_lost_and_nobody_waits(valkey: RedisServer) -> None:
    background = live.Background(most_waiting=2)
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:  # the thread that sends stands still, as with a broker that hangs
        holding.set()
        release.wait(10)

    background._loop.call_soon_threadsafe(hold)
    assert holding.wait(10)
    with capture_logs() as logs:
        for number in range(5):
            background.put(GROUP, {"type": "message_updated", "number": number})
        release.set()
        assert background.flush(10)
    assert [line["reason"] for line in logs] == ["too many are waiting for the broker"] * 3
