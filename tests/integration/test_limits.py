"""How often models may be switched, and how soon after a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from gantry.planning.states import JobState
from gantry.ratelimit.moving_window import limiter_for
from gantry.runtimes.null import NullWorld
from models_admin import actions
from models_admin.actor import COMMAND, SYSTEM, Actor
from models_admin.exceptions import RateLimited, Unavailable
from models_admin.keys import create_key
from models_admin.models import AuditEntry, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.integration.limits_world import fail, person, policy, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def limits_on(settings: Settings) -> Iterator[None]:
    """Switches are counted, in the memory of this process."""
    settings.LIMITS_URL = "memory://"
    limiter_for.cache_clear()
    yield
    limiter_for.cache_clear()


@pytest.fixture
def models(null_runtime: Runtime, world: NullWorld) -> list[ModelDefinition]:
    """More small models than anybody may switch to in a minute."""
    return [make_model(null_runtime, size_bytes=1000) for _ in range(12)]


@pytest.mark.usefixtures("limits_on")
def test_fourth_switch_of_a_person_within_a_minute_is_refused_with_the_seconds_to_wait(
    models: list[ModelDefinition],
) -> None:
    ben = person("ben")
    for model in models[:3]:
        assert actions.request_switch(model, actor=ben).status == "accepted"
    with pytest.raises(RateLimited) as caught:
        actions.request_switch(models[3], actor=ben)
    assert caught.value.status == 429
    assert 55 <= caught.value.retry_after <= 61
    assert caught.value.headers == {"Retry-After": str(caught.value.retry_after)}
    assert "You have switched models 3 times within a minute" in str(caught.value)
    assert SwitchJob.objects.count() == 3


@pytest.mark.usefixtures("limits_on")
def test_refused_switch_leaves_no_job_and_no_audit_entry_and_the_running_one_alone(
    models: list[ModelDefinition],
) -> None:
    ben = person("ben")
    policy(switches_per_user=1)
    actions.request_switch(models[0], actor=ben)
    entries = AuditEntry.objects.count()
    with pytest.raises(RateLimited):
        actions.request_switch(models[1], actor=ben)
    assert AuditEntry.objects.count() == entries
    assert SwitchJob.objects.get().cancel_requested_at is None


@pytest.mark.usefixtures("limits_on")
def test_joining_a_job_or_finding_the_model_active_costs_nothing(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=1)
    ben = person("ben")
    serve(models[0])
    for _ in range(5):
        assert actions.request_switch(models[0], actor=ben).status == "already_loaded"
    assert actions.request_switch(models[1], actor=ben).status == "accepted"
    for _ in range(5):
        assert actions.request_switch(models[1], actor=ben).status == "joined"


@pytest.mark.usefixtures("limits_on")
def test_asking_for_confirmation_costs_nothing(small: ModelDefinition, other: ModelDefinition) -> None:
    policy(switches_per_user=1, confirm_before_unload=True)
    ben = person("ben")
    serve(small)
    ModelInstance.objects.update(held_bytes=600_000_000)
    small.runtime.pool.free_bytes = 400_000_000
    small.runtime.pool.save()
    for _ in range(3):
        assert actions.request_switch(other, actor=ben).status == "needs_confirmation"
    assert actions.request_switch(other, actor=ben, confirm=True).status == "accepted"


@pytest.mark.usefixtures("limits_on")
def test_three_people_who_click_fast_are_each_held_to_their_own_limit(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=2)
    people = [person(name) for name in ("ann", "ben", "cid")]
    outcomes: Counter[str] = Counter()
    for model in models[:9]:
        actor = people[models.index(model) % 3]
        try:
            outcomes[f"{actor.name} {actions.request_switch(model, actor=actor).status}"] += 1
        except RateLimited:
            outcomes[f"{actor.name} refused"] += 1
    assert outcomes == {
        f"{name} {what}": n for name in ("ann", "ben", "cid") for what, n in (("accepted", 2), ("refused", 1))
    }


@pytest.mark.usefixtures("limits_on")
def test_limit_for_all_holds_people_who_have_not_used_theirs(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=3, switches_in_all=4)
    ann, ben = person("ann"), person("ben")
    for model in models[:3]:
        actions.request_switch(model, actor=ann)
    actions.request_switch(models[3], actor=ben)
    with pytest.raises(RateLimited, match="4 times within a minute by everybody together"):
        actions.request_switch(models[4], actor=ben)


@pytest.mark.usefixtures("limits_on")
def test_what_the_common_limit_refuses_is_not_taken_from_the_persons_own(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=1, switches_in_all=1)
    ann, ben = person("ann"), person("ben")
    actions.request_switch(models[0], actor=ann)
    with pytest.raises(RateLimited, match="everybody together"):
        actions.request_switch(models[1], actor=ben)
    policy(switches_per_user=1, switches_in_all=2)
    assert actions.request_switch(models[1], actor=ben).status == "accepted"


@pytest.mark.usefixtures("limits_on")
def test_zero_lifts_a_limit(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=0, switches_in_all=0)
    ben = person("ben")
    assert {actions.request_switch(model, actor=ben).status for model in models} == {"accepted"}


@pytest.mark.usefixtures("limits_on")
def test_gantry_itself_and_the_command_line_are_not_held(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=1, switches_in_all=1)
    for model, actor in zip(models, (SYSTEM, COMMAND) * 3, strict=False):
        assert actions.request_switch(model, actor=actor).status == "accepted"


@pytest.mark.usefixtures("limits_on")
def test_key_without_a_limit_of_its_own_shares_that_of_its_user(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=1)
    ben = person("ben")
    key, _ = create_key(ben.user, actor=ben, name="script", scopes=["switch"])  # type: ignore[arg-type]
    actions.request_switch(models[0], actor=ben)
    with pytest.raises(RateLimited):
        actions.request_switch(models[1], actor=Actor(ben.user, "rest", key=key))


@pytest.mark.usefixtures("limits_on")
def test_key_with_a_limit_of_its_own_is_held_to_that(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=1)
    ben, ann = person("ben"), person("ann", "change_switchpolicy", "add_apikey")
    key, _ = create_key(ben.user, actor=ann, name="script", scopes=["switch"], switches_per_minute=2)  # type: ignore[arg-type]
    program = Actor(ben.user, "rest", key=key)
    actions.request_switch(models[0], actor=ben)
    actions.request_switch(models[1], actor=program)
    actions.request_switch(models[2], actor=program)
    with pytest.raises(RateLimited, match="This key has switched models 2 times"):
        actions.request_switch(models[3], actor=program)


@pytest.mark.usefixtures("limits_on")
def test_restarts_background_loads_and_calls_count_and_unloads_do_not(models: list[ModelDefinition]) -> None:
    policy(switches_per_user=3)
    ben = person("ben")
    serve(models[0])
    for ask_for in (actions.request_preload, actions.request_restart, actions.request_switch):
        target = models[0] if ask_for is actions.request_restart else models[1]
        assert ask_for(target, actor=ben).status == "accepted"
        SwitchJob.objects.update(state=JobState.CANCELLED)
    with pytest.raises(RateLimited):
        actions.request_call(models[3], [{"role": "user", "content": "Hi"}], actor=ben)
    assert actions.request_unload(models[0], actor=ben).status == "accepted"


@pytest.mark.usefixtures("limits_on")
def test_model_stays_for_as_long_as_policy_says(models: list[ModelDefinition]) -> None:
    policy(stay_seconds=300)
    serve(models[0])
    with pytest.raises(RateLimited, match="each model stays for at least 5 min") as caught:
        actions.request_switch(models[1], actor=person("ben"))
    assert 295 <= caught.value.retry_after <= 301
    assert actions.request_switch(models[1], actor=person("ann", "cancel_any_job")).status == "accepted"


@pytest.mark.usefixtures("limits_on")
def test_stay_begins_with_the_switch_to_a_model_that_was_loaded_before(models: list[ModelDefinition]) -> None:
    policy(stay_seconds=60)
    serve(models[0])
    ModelInstance.objects.update(loaded_at=timezone.now() - timedelta(hours=1))
    make_job(models[0].runtime.pool, models[0], state=JobState.SUCCEEDED, finished_at=timezone.now())
    with pytest.raises(RateLimited):
        actions.request_switch(models[1], actor=person("ben"))


@pytest.mark.usefixtures("limits_on")
def test_model_may_be_left_once_it_has_stayed(models: list[ModelDefinition]) -> None:
    policy(stay_seconds=60)
    serve(models[0])
    ModelInstance.objects.update(loaded_at=timezone.now() - timedelta(seconds=61))
    assert actions.request_switch(models[1], actor=person("ben")).status == "accepted"


@pytest.mark.usefixtures("limits_on")
@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 40), (8, 600), (12, 600)])
def test_pause_doubles_with_each_failed_load_up_to_ten_minutes(
    models: list[ModelDefinition], failures: int, seconds: int
) -> None:
    for _ in range(failures):
        fail(models[0])
    with pytest.raises(RateLimited, match="left alone for a while") as caught:
        actions.request_switch(models[0], actor=person("ben"))
    assert seconds - 3 <= caught.value.retry_after <= seconds + 1


@pytest.mark.usefixtures("limits_on")
def test_pause_holds_that_model_only_and_ends_by_itself(models: list[ModelDefinition]) -> None:
    fail(models[0])
    assert actions.request_switch(models[1], actor=person("ann")).status == "accepted"
    SwitchJob.objects.filter(error_code="load_failed").update(finished_at=timezone.now() - timedelta(seconds=6))
    assert actions.request_switch(models[0], actor=person("ben")).status == "accepted"


@pytest.mark.usefixtures("limits_on")
def test_success_ends_the_count_of_failures(models: list[ModelDefinition]) -> None:
    for _ in range(5):
        fail(models[0])
    make_job(models[0].runtime.pool, models[0], state=JobState.SUCCEEDED, finished_at=timezone.now())
    assert actions.request_switch(models[0], actor=person("ben")).status == "accepted"


@pytest.mark.usefixtures("limits_on")
def test_what_was_no_failed_load_makes_no_pause(models: list[ModelDefinition]) -> None:
    fail(models[0], "insufficient_memory")
    fail(models[0], "still_answering")
    assert actions.request_switch(models[0], actor=person("ben")).status == "accepted"


@pytest.mark.usefixtures("limits_on")
def test_who_may_cancel_every_job_tries_at_once_and_the_count_begins_anew(models: list[ModelDefinition]) -> None:
    for _ in range(6):
        fail(models[0])
    decision = actions.request_switch(models[0], actor=person("ann", "cancel_any_job"))
    assert decision.status == "accepted"
    SwitchJob.objects.filter(pk=decision.job.pk).update(  # type: ignore[union-attr]
        state=JobState.FAILED, error_code="load_failed", finished_at=timezone.now()
    )
    with pytest.raises(RateLimited, match="failed to load, so") as caught:
        actions.request_switch(models[0], actor=person("ben"))
    assert caught.value.retry_after <= 6


def test_switch_is_refused_and_reading_goes_on_while_redis_is_away(
    models: list[ModelDefinition], settings: Settings, tmp_path: Path, client: Any
) -> None:
    settings.LIMITS_URL = f"unix://{tmp_path}/nobody.sock"
    ben = person("ben", "view_modeldefinition")
    with pytest.raises(Unavailable, match="broker does not answer") as caught:
        actions.request_switch(models[0], actor=ben)
    assert caught.value.status == 503
    assert not SwitchJob.objects.exists()
    assert actions.preview(models[0], actor=ben).steps
    client.force_login(ben.user)
    assert client.get("/").status_code == 200
