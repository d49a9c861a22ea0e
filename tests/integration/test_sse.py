"""A job's events for programs: from the rows, in order, each once, while the job goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from pytest_django.fixtures import Settings

from gantry import live
from gantry.api import job_hints, sse
from gantry.api.v1.bodies_jobs import Job
from gantry.planning.states import JobState
from models_admin import job_moves
from models_admin.models import ModelDefinition, Runtime, SwitchJob
from models_admin.snapshots import job_snapshot
from tests.factories import make_job, make_model

pytestmark = pytest.mark.django_db(transaction=True)

WAIT = 20.0  # longer than any of these tests takes: the stream says nothing by itself


@pytest.fixture(autouse=True)
async def _empty_layer() -> None:
    """Whoever listened in another test does not count."""
    await get_channel_layer().flush()


@pytest.fixture
def model(null_runtime: Runtime) -> ModelDefinition:
    return make_model(null_runtime, model_id="small", name="Small")


@pytest.fixture
def job(model: ModelDefinition) -> SwitchJob:
    """At work, with three events."""
    job = make_job(model.runtime.pool, model, state=JobState.LOADING)
    for number in range(3):
        job_moves.record_event(job, text=f"Event {number + 1}", percent=10.0 * number)
    return job


async def move(job: SwitchJob, text: str) -> None:
    await sync_to_async(job_moves.record_event)(job, text=text)


async def end(job: SwitchJob) -> None:
    await sync_to_async(job_moves.finish)(job, JobState.SUCCEEDED, text="Done")


async def numbers(job: SwitchJob, after: int = 0, keep_alive: float = WAIT) -> list[int]:
    async with aclosing(sse.follow_job(job.pk, after=after, keep_alive_seconds=keep_alive)) as updates:
        return [update.event["seq"] async for update in updates if update]


async def test_job_that_has_ended_is_told_from_its_rows(job: SwitchJob) -> None:
    await end(job)
    assert await numbers(job) == [1, 2, 3, 4]
    assert await numbers(job, after=2) == [3, 4]
    assert await numbers(job, after=4) == []
    assert await numbers(job, after=400) == []


async def test_each_event_comes_once_and_in_order_while_the_job_goes_on(job: SwitchJob) -> None:
    seen: list[int] = []
    async with aclosing(sse.follow_job(job.pk, after=1, keep_alive_seconds=WAIT)) as updates:
        async for update in updates:
            assert update is not None
            seen.append(update.event["seq"])
            if seen[-1] == 3:
                # Two at once, a hint that is told twice, and one of another job.
                await move(job, "Event 4")
                await move(job, "Event 5")
                hint = {"type": "job_updated", "job": await sync_to_async(job_snapshot)(job), "event_id": "again"}
                await get_channel_layer().group_send(live.STATUS_GROUP, hint)
                other = {**hint, "job": {**hint["job"], "id": job.pk + 1, "seq": 99}}  # type: ignore[dict-item]
                await get_channel_layer().group_send(live.STATUS_GROUP, other)
            if seen[-1] == 5:
                assert not update.is_last
                await end(job)
    assert seen == [2, 3, 4, 5, 6]
    assert update
    assert update.is_last


async def test_hint_that_was_lost_costs_no_event(job: SwitchJob) -> None:
    async with aclosing(sse.follow_job(job.pk, after=3, keep_alive_seconds=0.05)) as updates:
        assert await anext(updates) is None
        # As the worker would, but nobody is told.
        await SwitchJob.objects.filter(pk=job.pk).aupdate(state=JobState.FAILED, seq=4)
        await job.events.acreate(seq=4, state="failed", percent=20)
        seen = [update.event["seq"] async for update in updates if update]
    assert seen == [4]


async def test_two_who_listen_hear_the_same(job: SwitchJob) -> None:
    first, second = asyncio.ensure_future(numbers(job)), asyncio.ensure_future(numbers(job, after=3))
    await move(job, "Event 4")
    await end(job)
    assert (await first, await second) == ([1, 2, 3, 4, 5], [4, 5])


async def test_whoever_leaves_is_out_of_the_group(job: SwitchJob) -> None:
    async with aclosing(sse.follow_job(job.pk, keep_alive_seconds=0.01)) as updates:
        while await anext(updates) is not None:
            pass
        assert get_channel_layer().groups[live.STATUS_GROUP]
    assert not get_channel_layer().groups.get(live.STATUS_GROUP)


async def test_broker_that_is_away_leaves_the_rows(
    job: SwitchJob, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": ["redis://127.0.0.1:1"]},
        }
    }
    monkeypatch.setattr(job_hints, "LOOK_SECONDS", 0.01)
    async with aclosing(sse.follow_job(job.pk, after=2)) as updates:
        first = await anext(updates)
        assert first is not None
        assert first.event["text"] == "Event 3"
        assert await anext(updates) is None
        await end(job)
        assert [update.event["seq"] async for update in updates if update] == [4]


async def test_job_whose_row_is_gone_ends_the_stream(job: SwitchJob) -> None:
    async with aclosing(sse.follow_job(job.pk, after=3, keep_alive_seconds=0.01)) as updates:
        assert await anext(updates) is None
        await SwitchJob.objects.filter(pk=job.pk).adelete()
        assert [update async for update in updates if update] == []


async def test_text_is_written_as_the_standard_says(job: SwitchJob) -> None:
    await end(job)
    pieces = [piece async for piece in sse.follow_as_text(sse.follow_job(job.pk, after=2))]
    assert len(pieces) == 1  # read together, sent together
    text = [f"{event}\n\n" for event in pieces[0].split("\n\n")[:-1]]
    assert text[0].startswith('id: 3\nevent: progress\ndata: {"seq": 3, ')
    assert text[1].startswith('id: 4\nevent: end\ndata: {"seq": 4, ')
    assert all(piece.endswith("}\n\n") and piece.count("\n") == 4 for piece in text)


async def test_last_event_tells_what_the_document_says_of_a_job(job: SwitchJob) -> None:
    await end(job)
    [piece] = [piece async for piece in sse.follow_as_text(sse.follow_job(job.pk, after=3))]
    told = json.loads(piece.partition("data: ")[2])["job"]
    assert told.keys() - {"url"} == Job.model_fields.keys()


@pytest.mark.parametrize(
    ("header", "number"), [("", 0), ("17", 17), (" 17 ", 17), ("x", 0), ("-1", 0), ("9" * 30, 0), ("٣", 0)]
)
def test_number_that_is_none_of_ours_begins_anew(header: str, number: int) -> None:
    assert sse.last_event_id({"Last-Event-ID": header}) == number


async def test_all_who_follow_share_one_place_in_the_layer(job: SwitchJob) -> None:
    async with aclosing(sse.follow_job(job.pk, after=3)) as one, aclosing(sse.follow_job(job.pk, after=2)) as other:
        waiting = asyncio.ensure_future(anext(one))
        assert await anext(other) is not None
        await until(lambda: bool(get_channel_layer().groups.get(live.STATUS_GROUP)))
        assert len(get_channel_layer().groups[live.STATUS_GROUP]) == 1
        await move(job, "Event 4")
        for update in (await waiting, await anext(other)):
            assert update is not None
            assert update.event["seq"] == 4


async def test_those_who_have_seen_less_share_the_reading_too(job: SwitchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = sse._read

    def note(job_id: int, after: int) -> object:
        reads.append(after)
        return read(job_id, after)

    monkeypatch.setattr(sse, "_read", note)
    looks = await asyncio.gather(*(sse._look(job.pk, seen, 3) for seen in (0, 1, 2, 2)))
    assert [[update.event["seq"] for update in updates] for updates, _ in looks] == [[1, 2, 3], [2, 3], [3], [3]]
    assert len(reads) == 1
    monkeypatch.setattr(sse, "SHARED_EVENTS", 1)
    await sse._look(job.pk, 0, 3)  # is further behind
    assert reads[1:] == [0]


async def test_hints_are_heard_again_after_the_layer_has_failed(
    job: SwitchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_hints, "LOOK_SECONDS", 0.01)
    layer = get_channel_layer()
    receive = layer.receive

    async def fail(channel: str) -> None:
        monkeypatch.setattr(layer, "receive", receive)
        raise ConnectionError("gone")

    monkeypatch.setattr(layer, "receive", fail)
    async with aclosing(sse.follow_job(job.pk, after=3, keep_alive_seconds=WAIT)) as updates:
        assert await anext(updates) is None  # nobody tells: it has looked by itself
        following = asyncio.ensure_future(_next_event(updates))
        await until(lambda: bool(layer.groups.get(live.STATUS_GROUP)))
        await move(job, "Event 4")
        assert await following == 4


async def _next_event(updates: AsyncGenerator[sse.JobUpdate | None]) -> int:
    async for update in updates:
        if update is not None:
            return update.event["seq"]
    raise AssertionError("the stream has ended")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():  # noqa: ASYNC110 - nobody sets an event for a test
            await asyncio.sleep(0.01)
