"""Who may cancel a job: the account that asked for it, whatever it is called now; and nobody by a name alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from models_admin import actions
from models_admin.actor import COMMAND, Actor
from models_admin.models import ModelDefinition, SwitchJob
from models_admin.snapshots import job_snapshot

pytestmark = pytest.mark.django_db

Shape = Callable[[SwitchJob], Any]
# Actions look at the row, pages and sockets at what is told of it.
SHAPES: list[Shape] = [lambda job: job, job_snapshot]


@pytest.fixture(params=SHAPES, ids=["row", "snapshot"])
def shape(request: pytest.FixtureRequest) -> Shape:
    """How the job is looked at."""
    found: Shape = request.param
    return found


@pytest.fixture
def job(small: ModelDefinition, member: User) -> SwitchJob:
    """A switch that `member` has asked for and that nobody works on."""
    asked = actions.request_switch(small, actor=Actor(member, "page")).job
    assert asked is not None
    return asked


def may(shape: Shape, job: SwitchJob, user: User) -> bool:
    """As the rows are now."""
    actor = Actor(User.objects.get(pk=user.pk), "page")
    return actions.may_cancel(shape(SwitchJob.objects.select_related("target").get(pk=job.pk)), actor)


def rename(user: User, name: str) -> None:
    User.objects.filter(pk=user.pk).update(username=name)


def test_whoever_asked_may_cancel_also_under_another_name(shape: Shape, job: SwitchJob, member: User) -> None:
    rename(member, "somebody-new")
    assert may(shape, job, member)


def test_who_takes_over_the_name_of_a_renamed_account_may_not(
    shape: Shape, job: SwitchJob, member: User, outsider: User
) -> None:
    name = member.username
    rename(member, "somebody-new")
    rename(outsider, name)
    assert not may(shape, job, outsider)


def test_account_made_again_after_it_was_deleted_inherits_nothing(shape: Shape, job: SwitchJob, member: User) -> None:
    name = member.username
    member.delete()
    again = User.objects.create_user(name)
    assert not may(shape, job, again)
    with pytest.raises(actions.ActionRefused, match="Only the one who asked"):
        actions.cancel_job(SwitchJob.objects.get(pk=job.pk), actor=Actor(again, "page"))


def test_account_called_system_may_not_cancel_what_nobody_asked_for(
    shape: Shape, small: ModelDefinition, outsider: User
) -> None:
    job = actions.request_switch(small, actor=COMMAND).job
    assert job is not None
    rename(outsider, job.requested_by_name)
    assert not may(shape, job, outsider)
