"""Requests on pages that stay open: those who answer see them come, those who asked see the answer; nobody else is told."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, User

from models_admin import switch_requests
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, Runtime, SwitchJob, SwitchRequest
from models_admin.roles import OPERATOR
from models_admin.snapshots import job_snapshot
from tests.factories import make_job, make_model
from tests.functional import chat_world
from tests.integration import test_models_consumer as models_tab

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def otto(db: None) -> User:
    """An operator."""
    user = User.objects.create_user("otto", password="pass-otto")
    user.groups.add(Group.objects.get(name=OPERATOR))
    return user


@pytest.fixture
def gemma(null_runtime: Runtime) -> ModelDefinition:
    """Not loaded."""
    return make_model(null_runtime, model_id="gemma", name="Gemma 3")


async def chat(user: User) -> tuple[Any, str]:
    """An open chat page, and what it was told first."""
    connection = await sync_to_async(chat_world.socket)(user)
    assert (await connection.connect())[0]
    return connection, await connection.receive_from()


async def tab(user: User) -> tuple[Any, str]:
    """An open Models tab, and what it was told first."""
    connection = await models_tab.opened(user)
    return connection, await connection.receive_from() + await connection.receive_from()


async def ask(user: User, model: ModelDefinition) -> SwitchRequest:
    """Somebody asks."""
    request: SwitchRequest = await sync_to_async(switch_requests.ask)(
        model, actor=Actor(user, "chat"), reason="A report"
    )
    return request


async def test_request_appears_with_those_who_answer_and_the_one_who_asked_and_with_nobody_else(
    outsider: User, otto: User, gemma: ModelDefinition
) -> None:
    stranger = await sync_to_async(User.objects.create_user)("nils")
    (mine, _), (theirs, _), (operator, _), (models, _) = [
        await chat(outsider), await chat(stranger), await chat(otto), await tab(otto)
    ]  # fmt: skip
    await ask(outsider, gemma)
    assert "asked; waiting for an operator" in await mine.receive_from()
    assert "<strong>oda</strong> asks for" in await operator.receive_from()
    part = await models.receive_from()
    assert 'id="requests"' in part
    assert "“A report”" in part
    assert await theirs.receive_nothing(timeout=0.2)
    for connection in (mine, theirs, operator, models):
        await connection.disconnect()


async def test_answer_comes_to_the_one_who_asked_and_the_request_goes_from_the_tab(
    outsider: User, otto: User, gemma: ModelDefinition
) -> None:
    request = await ask(outsider, gemma)
    (mine, first), (models, present) = await chat(outsider), await tab(otto)
    assert "asked; waiting for an operator" in first
    assert "“A report”" in present
    await sync_to_async(switch_requests.decline)(request, actor=Actor(otto, "page"), answer="Tonight.")
    assert "declined by otto: Tonight." in await mine.receive_from()
    assert "A report" not in await models.receive_from()
    for connection in (mine, models):
        await connection.disconnect()


async def test_approval_is_news_until_its_switch_has_ended(outsider: User, gemma: ModelDefinition) -> None:
    def approved() -> SwitchJob:
        job = make_job(gemma.runtime.pool, gemma)
        SwitchRequest.objects.create(
            user=outsider, model=gemma, state="approved", job=job, answered_by_name="otto", answered_at=job.created_at
        )
        return job

    job = await sync_to_async(approved)()
    mine, first = await chat(outsider)
    assert "approved by otto" in first
    job.state, job.finished_at = "succeeded", job.created_at
    await sync_to_async(job.save)()
    snapshot = await sync_to_async(job_snapshot)(job)
    await models_tab.publish({"type": "job_updated", "job": snapshot, "event_id": "end"})
    told = await mine.receive_from()
    assert 'id="requests"' in told
    assert "approved" not in told
    await mine.disconnect()


async def test_who_lost_the_right_to_answer_is_told_nothing_more_when_they_connect(
    outsider: User, otto: User, gemma: ModelDefinition
) -> None:
    await ask(outsider, gemma)
    await sync_to_async(otto.groups.clear)()
    connection = await sync_to_async(models_tab.socket)(otto)
    assert not (await connection.connect())[0]
    page, first = await chat(otto)
    assert "oda" not in first
    await page.disconnect()
