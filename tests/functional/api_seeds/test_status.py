"""The documents about the present state, by the rows."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from models_admin import specs
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.functional.admin_world import MB, load
from tests.functional.api_seeds.conftest import Program


def status_of(program: Program, model: ModelDefinition) -> Any:
    """What /v1/models/status says of a model."""
    return program.get("/v1/models/status").json()["models"][model.model_id]


def test_every_model_and_the_memory_are_told(operator: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    need = specs.spec_for(other, "local").need_bytes
    assert operator.get("/v1/models/status").json() == {
        "models": {
            "acme/other": {
                "status": "stopped",
                "size_gb": 0.65,
                "gpu_memory_required_gb": round(need / 1e9, 3),
                "estimated_load_time_seconds": pytest.approx(2, abs=2),
                "name": "Other",
                "active": False,
                "available": True,
            },
            "acme/small": {
                "status": "running",
                "health": "healthy",
                "size_gb": 0.6,
                "gpu_memory_used_gb": 0.6,
                "load_progress": 100,
                "estimated_load_time_seconds": pytest.approx(2, abs=2),
                "name": "Small",
                "active": True,
                "available": True,
            },
        },
        "gpu": {"total_memory_gb": 1.074, "used_memory_gb": 0.6, "available_memory_gb": 0.474},
    }


def test_without_models_and_readings_nothing_is_made_up(operator: Program) -> None:
    unknown = {"total_memory_gb": None, "used_memory_gb": None, "available_memory_gb": None}
    assert operator.get("/v1/models/status").json() == {"models": {}, "gpu": unknown}
    assert operator.get("/api/llm-status").json()["models"] == []
    assert operator.get("/api/model-loading-status").json()["status"] == "error"
    assert operator.get("/api/admin/models").json() == {"models": []}


def test_figures_that_nobody_knows_are_null(operator: Program, null_runtime: Runtime) -> None:
    model = make_model(null_runtime, size_bytes=0)
    told = status_of(operator, model)
    assert (told["size_gb"], told["gpu_memory_required_gb"], told["estimated_load_time_seconds"]) == (None, None, None)
    load(model, held_bytes=0)
    assert status_of(operator, model)["gpu_memory_used_gb"] is None


@pytest.mark.parametrize(
    ("instance", "status", "health"),
    [
        ({"state": "loading"}, "loading", "starting"),
        ({"state": "loaded"}, "running", "healthy"),
        ({"state": "loaded", "is_asleep": True}, "running", "healthy"),
        ({"state": "unloading"}, "unloading", "healthy"),
        ({"state": "crashed", "held_bytes": 0}, "failed", "unhealthy"),
    ],
)
def test_state_of_what_is_held(
    instance: dict[str, Any], status: str, health: str, operator: Program, other: ModelDefinition
) -> None:
    load(other, **instance)
    told = status_of(operator, other)
    assert (told["status"], told["health"]) == (status, health)
    assert ("gpu_memory_required_gb" in told) == (status == "failed")


def test_server_that_does_not_answer_is_unhealthy(operator: Program, small: ModelDefinition) -> None:
    Runtime.objects.update(is_healthy=False)
    assert status_of(operator, small)["health"] == "unhealthy"


@pytest.mark.parametrize(
    ("fields", "status", "has_health", "is_available"),
    [
        ({"is_available": False}, "stopped", False, False),
        ({"last_error_code": "out_of_memory"}, "failed", True, True),
    ],
)
def test_state_of_what_is_not_held(
    fields: dict[str, Any], status: str, has_health: bool, is_available: bool, operator: Program, null_runtime: Runtime
) -> None:
    told = status_of(operator, make_model(null_runtime, **fields))
    assert (told["status"], "health" in told, told["available"]) == (status, has_health, is_available)


def test_model_on_its_way_tells_its_percent(
    operator: Program, pool: MemoryPool, small: ModelDefinition, other: ModelDefinition
) -> None:
    make_job(pool, other, state="loading", percent=42.7, stage_text="Loading Other", eta_seconds=7.5)
    load(other, state="loading", held_bytes=0)
    told = status_of(operator, other)
    assert (told["status"], told["load_progress"], told["gpu_memory_used_gb"]) == ("loading", 42, None)


def test_control_panel_is_told_which_model_answers(
    operator: Program, pool: MemoryPool, small: ModelDefinition, other: ModelDefinition
) -> None:
    told = operator.get("/api/llm-status").json()
    assert [model["id"] for model in told.pop("models")] == ["acme/other", "acme/small"]
    idle = {"switching_to": None, "job_id": None}
    assert told == {"running": True, "current_model": "acme/small", "current_model_name": "Small", **idle}
    job = make_job(pool, other, state="loading")
    told = operator.get("/api/llm-status").json()
    assert (told["switching_to"], told["job_id"]) == ("acme/other", job.pk)


@pytest.mark.parametrize(
    ("state", "status"),
    [("waiting", "starting"), ("planning", "starting"), ("draining", "starting"), ("unloading", "starting"), ("loading", "loading"), ("warming", "loading")],
)  # fmt: skip
def test_loading_status_of_a_switch_under_way(
    state: str, status: str, operator: Program, pool: MemoryPool, small: ModelDefinition, other: ModelDefinition
) -> None:
    make_job(pool, other, state=state, percent=30, eta_seconds=4.0, stage_text="Loading Other")
    assert operator.get("/api/model-loading-status").json() == {
        "status": status,
        "model_loaded": False,
        "current_model": "acme/small",
        "message": "Loading Other",
        "target_model": "acme/other",
        "progress": 30,
        "eta_seconds": 4.0,
    }


def test_loading_status_when_a_model_serves(operator: Program, small: ModelDefinition) -> None:
    told = operator.get("/api/model-loading-status").json()
    assert (told["status"], told["model_loaded"], told["current_model"]) == ("ready", True, "acme/small")
    assert told["message"] == "null is ready."


@pytest.mark.parametrize("kind", ["unload", "preload"])
def test_what_brings_no_model_that_serves_is_no_loading(
    kind: str, operator: Program, pool: MemoryPool, small: ModelDefinition, other: ModelDefinition
) -> None:
    make_job(pool, other, kind=kind, state="loading")
    assert operator.get("/api/model-loading-status").json()["status"] == "ready"


def test_loading_status_after_a_failure_says_why(
    operator: Program, pool: MemoryPool, small: ModelDefinition, other: ModelDefinition
) -> None:
    job = make_job(
        pool, other, state="failed", error_code="load_failed", error_text="It is broken.", finished_at=timezone.now()
    )
    told = operator.get("/api/model-loading-status").json()
    assert (told["status"], told["current_model"]) == ("ready", "acme/small")
    assert told["message"] == "null is ready. Other: It is broken."
    ModelInstance.objects.all().delete()
    told = operator.get("/api/model-loading-status").json()
    assert (told["status"], told["message"]) == ("error", "No model is loaded. Other: It is broken.")
    SwitchJob.objects.filter(pk=job.pk).update(
        state="superseded", error_code="", error_text="", stage_text="Superseded by X"
    )
    assert operator.get("/api/model-loading-status").json()["message"] == "No model is loaded. Other: Superseded by X."


def test_admin_list_names_the_active_one(operator: Program, small: ModelDefinition, other: ModelDefinition) -> None:
    assert operator.get("/api/admin/models").json() == {
        "models": [
            {"id": "acme/other", "name": "Other", "active": False, "state": "idle"},
            {"id": "acme/small", "name": "Small", "active": True, "state": "active"},
        ]
    }


@pytest.mark.parametrize("path", ["/api/llm-status", "/v1/models/status", "/api/model-loading-status"])
def test_whoever_has_it_already_gets_nothing_again(path: str, operator: Program, small: ModelDefinition) -> None:
    first = operator.get(path)
    assert operator.get(path, **{"If-None-Match": first.headers["ETag"]}).status_code == 304
    small.name = "Renamed"
    small.save()
    ModelInstance.objects.update(held_bytes=500 * MB, is_active=False)
    again = operator.get(path, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.headers["ETag"] == first.headers["ETag"]) == (200, False)


def test_rows_are_read_the_same_number_of_times_however_many_models_there_are(
    operator: Program, null_runtime: Runtime, django_assert_max_num_queries: Any
) -> None:
    for _ in range(30):
        make_model(null_runtime)
    with django_assert_max_num_queries(25):
        assert len(operator.get("/v1/models/status").json()["models"]) == 30
