"""The status that lies ready: read once for many, anew when something changes, and never too old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer

from gantry import live
from gantry.api import status_cache
from gantry.api.status_cache import OLDEST_SECONDS, Status, StatusCache, cached_status
from models_admin.models import MemoryPool, ModelDefinition
from tests.factories import make_job

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def cache(small: ModelDefinition) -> AsyncIterator[StatusCache]:
    """In use, and told of changes."""
    cache = StatusCache()
    status_cache._caches[asyncio.get_running_loop()] = cache
    await cached_status()
    await until(lambda: cache._is_told and not cache._changed.is_set() and _is_at_rest(cache))
    yield cache
    assert cache._keeper
    cache._keeper.cancel()
    await asyncio.wait({cache._keeper})
    await until(lambda: not cache._is_told)


def _is_at_rest(cache: StatusCache) -> bool:
    """Nothing is being read: what would be seen next was not read before the test changed it."""
    return cache._reading is None or cache._reading.done()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go on until a condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody sets an event for a test
            await asyncio.sleep(0.01)


def name_of(status: Status) -> str:
    return status.overview.rows[0].model.name


def aged(status: Status, seconds: float) -> Status:
    return replace(status, read_at=status.read_at - seconds)


async def test_many_requests_read_once(cache: StatusCache) -> None:
    first = await cached_status()
    assert {id(status) for status in await asyncio.gather(*(cached_status() for _ in range(20)))} == {id(first)}


async def test_those_who_come_while_it_is_read_share_it(cache: StatusCache) -> None:
    cache.forget()
    assert len({id(status) for status in await asyncio.gather(*(cached_status() for _ in range(20)))}) == 1


async def test_event_makes_it_read_again(cache: StatusCache) -> None:
    await ModelDefinition.objects.aupdate(name="Renamed")
    before = await cached_status()
    event = {"type": "models_changed", "model_ids": [], "event_id": "1"}
    await get_channel_layer().group_send(live.STATUS_GROUP, event)
    await until(lambda: cache._status is not before)
    assert name_of(await cached_status()) == "Renamed"


async def test_what_this_process_changed_is_seen_at_once(cache: StatusCache) -> None:
    await ModelDefinition.objects.aupdate(name="Renamed")
    status_cache.forget()
    assert name_of(await cached_status()) == "Renamed"


async def test_reading_that_was_begun_before_a_change_does_not_stay(cache: StatusCache) -> None:
    cache.forget()
    early = asyncio.ensure_future(cached_status())
    await asyncio.sleep(0)
    cache.forget()
    late = await cached_status()
    await early
    assert await cached_status() is late


async def test_old_status_is_read_again_during_a_job_only(
    cache: StatusCache, pool: MemoryPool, small: ModelDefinition
) -> None:
    old = cache._status = aged(await cached_status(), 2 * OLDEST_SECONDS)
    assert await cached_status() is old  # nothing changes without an event

    await sync_to_async(make_job)(pool, small, state="loading")
    cache.forget()
    old = cache._status = aged(await cached_status(), 2 * OLDEST_SECONDS)
    assert await cached_status() is not old


async def test_without_events_it_is_never_older_than_a_second(cache: StatusCache) -> None:
    cache._is_told = False
    old = cache._status = aged(await cached_status(), 2 * OLDEST_SECONDS)
    assert await cached_status() is not old


async def test_what_nobody_asks_for_is_not_kept(cache: StatusCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_cache, "UNASKED_SECONDS", 0.0)
    cache._changed.set()
    assert cache._keeper
    await asyncio.wait({cache._keeper}, timeout=20)
    assert cache._keeper.done()
    await until(lambda: not get_channel_layer().groups.get(live.STATUS_GROUP))
    monkeypatch.undo()
    assert name_of(await cached_status()) == "Small"  # begins anew


async def test_document_is_made_once(cache: StatusCache) -> None:
    from gantry.api.seeds.models_status import models_status_of

    status = await cached_status()
    assert status.body(models_status_of) is status.body(models_status_of)
