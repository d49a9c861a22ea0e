"""What chaos has found, each as a test of its own that needs no chaos."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from gantry.engine.runner import Limits, run_plan
from gantry.planning.states import JobKind, JobState
from gantry.runtimes.null import NullWorld
from models_admin import actions, job_moves, memory, plans, running
from models_admin.actor import Actor
from models_admin.effects import DatabaseEffects
from models_admin.models import ModelDefinition, ModelInstance
from models_admin.plans import Wish
from models_admin.runtime_access import runtime_for

pytestmark = pytest.mark.django_db(transaction=True)


def test_cancel_of_a_switch_that_has_nothing_to_do_is_no_fault(
    small: ModelDefinition, world: NullWorld, admin_person: User
) -> None:
    actor = Actor(admin_person, "page")
    loaded = actions.request_switch(small, actor=actor).job
    assert loaded
    running.run_job(loaded.pk)
    ModelInstance.objects.update(is_active=False)  # it is loaded and does not serve: a switch to it has no steps
    asked = actions.request_switch(small, actor=actor).job
    assert asked
    job = job_moves.claim(asked.pk)
    assert job
    actions.cancel_job(job, actor=actor)

    plan = plans.make_plan(Wish(JobKind.SWITCH, job.pool, small), memory.budget_now(job.pool))
    assert plan.steps == ()
    outcome = run_plan(plan, runtime_for(small.runtime), DatabaseEffects(job), Limits())

    assert outcome.state == JobState.CANCELLED
