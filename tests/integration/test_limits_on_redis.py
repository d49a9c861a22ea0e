"""Limits that several processes share, on a real Redis."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connections
from pytest_django.fixtures import Settings

from gantry.ratelimit.base import Window
from gantry.ratelimit.moving_window import limiter_for
from gantry.runtimes.null import NullWorld
from models_admin import actions
from models_admin.actor import Actor
from models_admin.exceptions import RateLimited
from models_admin.models import ModelDefinition, Runtime, SwitchJob
from tests.factories import make_model
from tests.integration.limits_world import person, policy
from tests.redis_server import RedisServer, start_redis

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Valkey, as `manage.py up` starts one."""
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


def test_window_that_is_full_tells_when_it_has_room_on_a_real_redis(redis: RedisServer) -> None:
    limiter = limiter_for(redis.url)
    window = Window("test-full", 2, seconds=30)
    assert limiter.take([window]) is None
    assert limiter.take([window]) is None
    refusal = limiter.take([window, Window("test-free", 5)])
    assert refusal is not None
    assert refusal.window == window
    assert 25 < refusal.wait_seconds <= 30


_TAKER = """
import sys
from gantry.ratelimit.base import Window
from gantry.ratelimit.moving_window import limiter_for
limiter, window = limiter_for(sys.argv[1]), Window("shared", 20)
print(sum(limiter.take([window]) is None for _ in range(30)))
"""


def test_two_processes_share_a_limit(redis: RedisServer) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", _TAKER, redis.url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert sum(int(process.communicate(timeout=60)[0]) for process in started) == 20


_SWITCHER = """
import json, os, sys
from concurrent.futures import ThreadPoolExecutor
import django
django.setup()
from django.conf import settings
from django.db import connections
settings.DATABASES["default"].update(json.loads(sys.argv[2]))
connections["default"].settings_dict.update(json.loads(sys.argv[2]))
settings.LIMITS_URL = sys.argv[1]
from tests.integration.test_limits_on_redis import ask
with ThreadPoolExecutor(8) as pool:
    print(json.dumps(list(pool.map(lambda pair: ask(*pair), json.loads(sys.argv[3])))))
"""


def ask(user_pk: int, model_pk: int) -> tuple[str, int]:
    """One request by a thread of its own: ("accepted", 0) or ("refused", seconds to wait)."""
    try:
        model = ModelDefinition.objects.with_runtime().get(pk=model_pk)
        status: str = actions.request_switch(model, actor=Actor(User.objects.get(pk=user_pk), "rest")).status
        return status, 0
    except RateLimited as exc:
        return "refused", exc.retry_after
    finally:
        connections.close_all()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("in_all", "allowed"), [(10, 10), (0, 30)])
def test_fifty_requests_at_once_by_ten_people_in_two_processes_make_exactly_the_allowed_jobs(
    redis: RedisServer, settings: Settings, null_runtime: Runtime, world: NullWorld, in_all: int, allowed: int
) -> None:
    policy(switches_in_all=in_all)
    settings.LIMITS_URL = redis.url
    people = [person(f"person-{in_all}-{number}").user.pk for number in range(10)]  # type: ignore[union-attr]
    pairs = [(people[n % 10], make_model(null_runtime, size_bytes=1000).pk) for n in range(50)]
    database = {
        key: value
        for key, value in connections["default"].settings_dict.items()
        if key in {"NAME", "PORT", "HOST", "USER", "PASSWORD"}
    }
    other = subprocess.Popen(
        [sys.executable, "-c", _SWITCHER, redis.url, json.dumps(database, default=str), json.dumps(pairs[25:])],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda pair: ask(*pair), pairs[:25]))
    outcomes += [tuple(outcome) for outcome in json.loads(other.communicate(timeout=90)[0])]
    assert Counter(status for status, _ in outcomes) == {"accepted": allowed, "refused": 50 - allowed}
    assert SwitchJob.objects.count() == allowed
    assert all(30 < wait <= 61 for status, wait in outcomes if status == "refused")
    per_person = Counter(SwitchJob.objects.values_list("requested_by", flat=True))
    assert max(per_person.values()) <= 3
