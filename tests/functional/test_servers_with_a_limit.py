"""Servers that hold one model at a time, or a few: what the Models tab offers then, and what a plan unloads."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from gantry import live
from gantry.planning.states import InstanceState, JobKind
from models_admin import overview, plans
from models_admin.effects import DatabaseEffects
from models_admin.models import MemoryPool, ModelDefinition, Runtime
from tests.factories import make_job, make_model
from tests.functional.admin_world import load

ADDRESS = "http://127.0.0.1:1"
GB = 1_000_000_000


@pytest.fixture
def pool(pool: MemoryPool) -> MemoryPool:
    """Memory for everything."""
    pool.total_bytes = pool.free_bytes = 64 * GB
    pool.save()
    return pool


def server(pool: MemoryPool, kind: str, **fields: Any) -> Runtime:
    return Runtime.objects.create(name="server", kind=kind, pool=pool, is_healthy=True, url=ADDRESS, **fields)


def models_on(runtime: Runtime, count: int) -> list[ModelDefinition]:
    return [make_model(runtime, model_id=f"m{n}", name=f"Model {n}") for n in range(count)]


def can_preload() -> set[str]:
    return {row.model.model_id for row in overview.model_rows(None) if row.can_preload}


def goes_for(target: ModelDefinition) -> list[str]:
    """Names of what a switch to it would unload."""
    return [model.name for model in plans.make_plan(plans.Wish(JobKind.SWITCH, target.runtime.pool, target)).evicted]


def test_nothing_is_loaded_beside_the_one_model_of_tabbyapi(pool: MemoryPool) -> None:
    first, _ = models_on(server(pool, "tabby"), 2)
    assert can_preload() == {"m0", "m1"}
    instance = load(first, is_active=True)
    assert can_preload() == set()
    instance.delete()
    assert can_preload() == {"m0", "m1"}


def test_page_offers_to_load_only_where_that_is_possible(
    client: Client, admin_person: User, pool: MemoryPool, null_runtime: Runtime
) -> None:
    first, _ = models_on(server(pool, "tabby"), 2)
    make_model(null_runtime, model_id="elsewhere", name="Elsewhere")
    load(first)
    client.force_login(admin_person)
    page = client.get("/admin/models/").content.decode()
    assert "Load Elsewhere in the background" in page
    assert "Load Model 1 in the background" not in page
    assert "Switch to Model 1" in page


def test_one_that_died_on_the_server_is_in_nobodys_way(pool: MemoryPool) -> None:
    first, _ = models_on(server(pool, "tabby"), 2)
    load(first, state=InstanceState.CRASHED)
    assert can_preload() == {"m1"}


@pytest.mark.parametrize(
    ("most", "there", "unloaded"),
    [(1, 1, ["Model 0"]), (2, 1, []), (2, 2, ["Model 0"]), (4, 3, []), (None, 3, [])],
)
def test_plan_keeps_to_the_limit_that_a_router_tells(
    pool: MemoryPool, most: int | None, there: int, unloaded: list[str]
) -> None:
    *held, target = models_on(server(pool, "llama_router", max_models=most), there + 1)
    for model in held:
        load(model)
    assert goes_for(target) == unloaded
    assert (target.model_id in can_preload()) == (not unloaded)


def test_beyond_a_limit_idle_models_go_before_busy_and_pinned_and_active_ones(pool: MemoryPool) -> None:
    pinned, busy, active, idle, target = models_on(server(pool, "llama_router", max_models=4), 5)
    pinned.is_pinned = True
    pinned.save()
    load(pinned)
    load(busy, busy_count=1)
    load(active, is_active=True)
    load(idle)
    assert goes_for(target) == ["Model 3"]


def test_limit_of_one_server_says_nothing_of_another(pool: MemoryPool, null_runtime: Runtime) -> None:
    *_, target = models_on(server(pool, "llama_router", max_models=1), 1)
    load(make_model(null_runtime, model_id="elsewhere", name="Elsewhere"))
    assert goes_for(target) == []
    assert can_preload() == {target.model_id}


@pytest.mark.parametrize(("kind", "told_of"), [("tabby", []), ("null", ["m0"])])
def test_load_changes_the_rows_of_all_where_its_server_is_full_then(
    pool: MemoryPool, kind: str, told_of: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target, _ = models_on(server(pool, kind), 2)
    told: list[list[str]] = []
    monkeypatch.setattr(live, "publish_models_changed", lambda ids, event_id: told.append(list(ids)))
    effects = DatabaseEffects(make_job(pool, target))
    effects.instance_loading(effects.load_request(target.model_id))
    assert told == [told_of]
