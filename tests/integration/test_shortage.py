"""A model for which the memory is short only once its job begins: the figures are told as if it had been refused at once."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import AsyncClient, Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from gantry.api.ws_messages import job_event
from gantry.planning.exceptions import DoesNotFit
from gantry.planning.states import ErrorCode, JobKind
from models_admin import actions, memory, plans
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, SwitchJob
from models_admin.plans import Wish
from models_admin.snapshots import job_snapshot
from tests.integration.program_sockets import run

pytestmark = pytest.mark.django_db(transaction=True)

GROWN_BYTES = 5_000_000_000


async def grow_and_run(model: ModelDefinition) -> None:
    """Its file is another by the time that its job begins."""
    await ModelDefinition.objects.filter(pk=model.pk).aupdate(size_bytes=GROWN_BYTES)
    job = await SwitchJob.objects.alatest("id")
    await run(job.pk)


def shortage(model: ModelDefinition) -> DoesNotFit:
    """What the planner says of it now."""
    model.refresh_from_db()
    with pytest.raises(DoesNotFit) as refused:
        plans.make_plan(Wish(JobKind.SWITCH, model.runtime.pool, model), memory.budget_now(model.runtime.pool))
    return refused.value


@pytest.fixture
def person(admin_person: User) -> User:
    """Who asks."""
    return admin_person


async def test_stream_of_a_switch_ends_with_the_figures(small: ModelDefinition, person: User) -> None:
    client = AsyncClient()
    await client.aforce_login(person)
    response: Any = await client.post(
        "/v1/models/switch", {"target_model": small.model_id}, content_type="application/json"
    )
    assert response.status_code == 200
    await grow_and_run(small)
    name, data = [event async for event in _events(response)][-1]
    short = await sync_to_async(shortage)(small)

    assert (name, data["error"]) == ("error", "insufficient_memory")
    assert sorted(data) == ["available_gb", "can_free_gb", "error", "hint", "message", "required_gb"]
    assert (data["required_gb"], data["available_gb"], data["can_free_gb"]) == tuple(
        round(size / 1e9, 3) for size in (short.required_bytes, short.available_bytes, short.freeable_bytes)
    )
    assert data["required_gb"] > data["available_gb"] > 0


async def _events(response: Any) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async for piece in response.streaming_content:
        lines = dict(line.split(": ", 1) for line in piece.decode().splitlines() if ": " in line)
        if "event" in lines:
            yield lines["event"], json.loads(lines["data"])


async def test_job_keeps_them_and_its_plan(small: ModelDefinition, person: User, client: Client) -> None:
    await sync_to_async(actions.request_switch)(small, actor=Actor(person, "page"))
    await grow_and_run(small)
    job = await SwitchJob.objects.alatest("id")
    short = await sync_to_async(shortage)(small)
    await client.aforce_login(person)
    told = (await sync_to_async(client.get)(f"/api/v1/jobs/{job.pk}")).json()

    assert told["error_code"] == "insufficient_memory"
    assert told["error_data"] == {
        "required_bytes": short.required_bytes,
        "available_bytes": short.available_bytes,
        "freeable_bytes": short.freeable_bytes,
    }
    snapshot = await sync_to_async(job_snapshot)(job)
    error = job_event(snapshot, timezone.now()).error  # what /ws/events sends
    assert error is not None
    assert error.data == told["error_data"]
    assert told["plan"]["target_id"] == "small"
    page = await sync_to_async(client.get)(f"/admin/switches/{job.pk}/")
    assert page.status_code == 200


def test_other_failures_and_lists_without_plans_have_none(
    small: ModelDefinition, person: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    actions.request_switch(small, actor=Actor(person, "page"))
    SwitchJob.objects.update(error_code=ErrorCode.OUT_OF_MEMORY, state="failed")
    assert job_snapshot(SwitchJob.objects.select_related("target").get())["error_data"] == {}

    SwitchJob.objects.update(error_code=ErrorCode.INSUFFICIENT_MEMORY)
    job = SwitchJob.objects.select_related("target").defer("plan").get()
    with django_assert_num_queries(0):
        assert job_snapshot(job)["error_data"] == {}
