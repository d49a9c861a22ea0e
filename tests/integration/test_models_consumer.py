"""Live updates of the Models tab, through the whole ASGI application."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

from gantry import live
from gantry.asgi import application
from gantry.live import JobSnapshot
from models_admin import consumers, rendering
from models_admin.audience import Audience
from models_admin.models import ModelDefinition, Runtime, SwitchJob
from models_admin.snapshots import job_snapshot
from tests.factories import make_model
from tests.functional.admin_world import ended_job, load, loading_job, staff

pytestmark = pytest.mark.django_db(transaction=True)


def socket(user: User | None, query: str = "", *, origin: str = "http://localhost") -> Any:
    """A browser's socket, signed in by its session's cookie."""
    client = Client()
    if user is not None:
        client.force_login(user)
    cookie = client.cookies.get(settings.SESSION_COOKIE_NAME)
    headers = [(b"origin", origin.encode()), (b"host", b"localhost")]
    if cookie is not None:
        headers.append((b"cookie", f"{settings.SESSION_COOKIE_NAME}={cookie.value}".encode()))
    return WebsocketCommunicator(application, f"/ws/models/{query}", headers=headers)


async def opened(user: User, query: str = "") -> Any:
    connection = await sync_to_async(socket)(user, query)
    connected, _ = await connection.connect(timeout=5)
    assert connected
    return connection


async def publish(message: dict[str, Any]) -> None:
    await get_channel_layer().group_send(live.STATUS_GROUP, message)


async def publish_job(job: SwitchJob, event: str) -> None:
    snapshot = await sync_to_async(job_snapshot)(job)
    await publish({"type": "job_updated", "job": snapshot, "event_id": event})


@pytest.fixture
def small(null_runtime: Runtime) -> ModelDefinition:
    model = make_model(null_runtime, model_id="small", name="Small")
    load(model, is_active=True)
    return model


@pytest.fixture
def other(null_runtime: Runtime) -> ModelDefinition:
    return make_model(null_runtime, model_id="other", name="Other")


@pytest.mark.parametrize("who", ["nobody", "outsider", "member", "staff without the right", "staff who left"])
async def test_who_may_not_see_models_is_refused(who: str, outsider: User, member: User) -> None:
    def person() -> User | None:
        if who == "staff without the right":
            return staff("eve")
        if who == "staff who left":
            user = staff("eve", "view_modeldefinition")
            user.is_active = False
            user.save()
            return user
        return {"outsider": outsider, "member": member}.get(who)

    connection = await sync_to_async(lambda: socket(person()))()

    assert await connection.connect(timeout=5) == (False, consumers.REFUSED)


async def test_page_of_another_site_is_refused(admin_person: User) -> None:
    connection = await sync_to_async(socket)(admin_person, origin="http://evil.example")

    connected, _ = await connection.connect(timeout=5)

    assert not connected


async def test_everything_is_sent_on_connect(
    admin_person: User, small: ModelDefinition, other: ModelDefinition
) -> None:
    await sync_to_async(loading_job)(other, admin_person)

    connection = await opened(admin_person)
    parts, rows = await connection.receive_from(), await connection.receive_from()

    assert 'id="switch-panel"' in parts
    assert 'id="memory"' in parts
    assert "Switching from Small to Other" in parts
    assert f'id="model-row-{small.pk}"' in rows
    assert rows.lstrip().startswith("<tbody")
    await connection.disconnect()


async def test_progress_redraws_the_panel_and_the_sign_only(admin_person: User, other: ModelDefinition) -> None:
    job = await sync_to_async(loading_job)(other, admin_person)
    connection = await opened(admin_person)
    await connection.receive_from()
    await connection.receive_from()

    job.percent = 77
    await publish_job(job, "e-1")
    html = await connection.receive_from()

    assert "77 %" in html
    assert f'id="model-state-{other.pk}"' in html
    assert "<tr" not in html
    assert await connection.receive_nothing()
    await connection.disconnect()


async def test_changed_models_bring_their_rows_and_the_memory(
    admin_person: User, small: ModelDefinition, other: ModelDefinition
) -> None:
    connection = await opened(admin_person)
    await connection.receive_from()
    await connection.receive_from()

    await publish({"type": "models_changed", "model_ids": ["other"], "event_id": "e-2"})
    rows, memory = await connection.receive_from(), await connection.receive_from()

    assert f'id="model-row-{other.pk}"' in rows
    assert f'id="model-row-{small.pk}"' not in rows
    assert 'id="memory"' in memory
    await connection.disconnect()


async def test_a_deleted_model_brings_the_whole_list(admin_person: User, small: ModelDefinition) -> None:
    connection = await opened(admin_person)
    await connection.receive_from()
    await connection.receive_from()

    await publish({"type": "models_changed", "model_ids": ["small", "gone"], "event_id": "e-3"})

    assert (await connection.receive_from()).lstrip().startswith("<tbody")
    await connection.disconnect()


async def test_a_waiting_job_does_not_take_the_panel_from_the_one_at_work(
    admin_person: User, small: ModelDefinition, other: ModelDefinition
) -> None:
    await sync_to_async(loading_job)(other, admin_person)
    waiting = await sync_to_async(loading_job)(small, admin_person, state="waiting")
    connection = await opened(admin_person)
    await connection.receive_from()
    await connection.receive_from()

    await publish_job(waiting, "e-4")

    assert "Switching from Small to Other" in await connection.receive_from()
    await connection.disconnect()


async def test_one_rendering_serves_all_of_the_same_rights(
    admin_person: User, other: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Audience] = []
    render = rendering.render_job_update

    def counted(job: JobSnapshot, audience: Audience) -> str:
        made.append(audience)
        return render(job, audience)

    monkeypatch.setattr(rendering, "render_job_update", counted)
    job = await sync_to_async(loading_job)(other, admin_person)
    watcher = await sync_to_async(staff)("eve", "view_modeldefinition")
    connections = [await opened(admin_person), await opened(admin_person), await opened(watcher)]
    for connection in connections:
        await connection.receive_from()
        await connection.receive_from()

    await publish_job(job, "e-5")
    panels = [await connection.receive_from() for connection in connections]

    assert len(made) == 2, "once for those who may cancel, once for the others"
    assert panels[0] == panels[1]
    assert "cancel-job" in panels[0]
    assert "cancel-job" not in panels[2]
    await asyncio.gather(*(connection.disconnect() for connection in connections))


async def test_job_page_gets_its_own_job_only(
    admin_person: User, small: ModelDefinition, other: ModelDefinition
) -> None:
    job = await sync_to_async(ended_job)(other, admin_person, "succeeded")
    another = await sync_to_async(loading_job)(small, admin_person)
    connection = await opened(admin_person, f"?job={job.pk}")
    assert 'id="job-story"' in await connection.receive_from()

    await publish_job(another, "e-6")
    await publish({"type": "memory_changed", "event_id": "e-7"})
    assert await connection.receive_nothing()

    await publish_job(job, "e-8")
    assert "Other is active." in await connection.receive_from()
    await connection.disconnect()


@pytest.mark.parametrize("query", ["?job=", "?job=x", "?job=999999", "?job=99999999999999999999999"])
async def test_odd_job_numbers_do_no_harm(admin_person: User, query: str) -> None:
    connection = await opened(admin_person, query)

    await connection.disconnect()


async def test_who_signs_out_gets_no_more(admin_person: User, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await opened(admin_person)
    await connection.receive_from()
    await connection.receive_from()
    monkeypatch.setattr(consumers, "_RIGHTS_SECONDS", 0.0)
    await Session.objects.all().adelete()

    await publish({"type": "memory_changed", "event_id": "e-9"})

    assert await connection.receive_output() == {"type": "websocket.close", "code": consumers.REFUSED}


async def test_page_that_falls_behind_is_told_the_end_and_not_all_that_came_before(
    admin_person: User, other: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await sync_to_async(loading_job)(other, admin_person)
    present = await sync_to_async(job_snapshot)(job)
    connection = await opened(admin_person)
    for _ in range(2):
        await connection.receive_from()
    is_rendering, go_on = threading.Event(), threading.Event()
    render = rendering.render_job_update

    def slowly(snapshot: JobSnapshot, audience: Audience) -> str:
        is_rendering.set()
        assert go_on.wait(10)
        return render(snapshot, audience)

    monkeypatch.setattr(rendering, "render_job_update", slowly)
    for percent in range(10, 60):
        snapshot = {**present, "percent": percent}
        await publish({"type": "job_updated", "job": snapshot, "event_id": f"behind-{percent}"})
        assert await asyncio.to_thread(is_rendering.wait, 10)
    go_on.set()

    panels = [await connection.receive_from()]
    while "59 %" not in panels[-1]:
        panels.append(await connection.receive_from())
    assert "10 %" in panels[0]
    assert len(panels) <= 3
    await connection.disconnect()


async def test_page_is_told_ten_times_a_second_at_most_but_of_an_end_at_once(
    admin_person: User, other: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "PAUSE_SECONDS", 30.0)
    job = await sync_to_async(loading_job)(other, admin_person)
    connection = await opened(admin_person)
    for _ in range(2):
        await connection.receive_from(timeout=5)
    job.percent = 77
    await publish_job(job, "first")
    assert "77 %" in await connection.receive_from(timeout=5)
    await publish_job(job, "second")
    assert await connection.receive_nothing(timeout=0.3)
    await sync_to_async(SwitchJob.objects.filter(pk=job.pk).update)(state="succeeded")
    await sync_to_async(job.refresh_from_db)()
    await publish_job(job, "end")
    assert "g-panel--green" in await connection.receive_from(timeout=5)
    await connection.disconnect()


async def test_job_that_moves_overtakes_what_still_waits(
    admin_person: User, other: ModelDefinition, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await sync_to_async(job_snapshot)(await sync_to_async(loading_job)(other, admin_person))
    connection = await opened(admin_person)
    for _ in range(2):
        await connection.receive_from()
    is_rendering, go_on = threading.Event(), threading.Event()
    render = rendering.render_rows

    def slowly(*args: Any) -> str:
        is_rendering.set()
        assert go_on.wait(10)
        return render(*args)

    monkeypatch.setattr(rendering, "render_rows", slowly)
    await publish({"type": "models_changed", "model_ids": ["other"], "event_id": "overtaken"})
    assert await asyncio.to_thread(is_rendering.wait, 10)
    await publish({"type": "memory_changed", "event_id": "overtaken"})
    await publish({"type": "job_updated", "job": job, "event_id": "overtakes"})
    go_on.set()

    parts = [await connection.receive_from() for _ in range(3)]
    assert [part.split('id="', 1)[1].split('"')[0] for part in parts] == [
        f"model-row-{other.pk}",
        "switch-panel",
        "memory",
    ]
    await connection.disconnect()
