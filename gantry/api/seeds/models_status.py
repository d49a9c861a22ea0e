"""Every model with its state and memory, and the memory as a whole."""

from __future__ import annotations

from typing import Literal

from django.http.response import HttpResponseBase
from ninja import Router
from pydantic import BaseModel, Field

from gantry.api import status_cache
from gantry.api.auth import ApiRequest
from gantry.api.errors import ERRORS
from gantry.planning.states import ModelState
from gantry.planning.types import ModelSpec
from models_admin.models import MemoryPool
from models_admin.overview import ModelRow

router = Router(tags=["Models and switching"])

StateName = Literal["running", "loading", "unloading", "stopped", "failed"]
Health = Literal["healthy", "starting", "unhealthy"]
_STATES: dict[ModelState, StateName] = {
    ModelState.ACTIVE: "running",
    ModelState.LOADED: "running",
    ModelState.LOADING: "loading",
    ModelState.DRAINING: "unloading",
    ModelState.UNLOADING: "unloading",
    ModelState.CRASHED: "failed",
    ModelState.PAUSED: "failed",
    ModelState.FAILED: "failed",
    ModelState.IDLE: "stopped",
    ModelState.NOT_DOWNLOADED: "stopped",
}
_EXAMPLE = {
    "models": {
        "gpt-oss-120b": {
            "status": "running",
            "health": "healthy",
            "size_gb": 183.0,
            "gpu_memory_used_gb": 84.0,
            "load_progress": 100,
            "estimated_load_time_seconds": 61.0,
            "name": "GPT-OSS 120B",
            "active": True,
            "available": True,
        },
        "gpt-oss-20b": {
            "status": "stopped",
            "size_gb": 40.0,
            "gpu_memory_required_gb": 20.0,
            "estimated_load_time_seconds": 15.0,
            "name": "GPT-OSS 20B",
            "active": False,
            "available": True,
        },
    },
    "gpu": {"total_memory_gb": 95.9, "used_memory_gb": 84.2, "available_memory_gb": 11.7},
}


class ModelStatus(BaseModel):
    """A model. GB are 10⁹ bytes. A field that does not go with the state is left out; a figure that nobody knows is null."""

    status: StateName = Field(
        description="`running`: loaded, it can answer. `unloading`: also while it finishes its last answers. `stopped`: not loaded, "
        "and nothing is wrong. `failed`: its last load failed, or its process has died."
    )
    health: Health | None = Field(
        None,
        description="While it is held: `healthy`; `starting` until it can answer; `unhealthy` when its server does not answer. "
        "Of a failed one: `unhealthy`. Left out when it is stopped.",
    )
    size_gb: float | None = Field(description="Of its files; null when nobody knows.")
    gpu_memory_used_gb: float | None = Field(
        None,
        description="While it is held: memory that it takes, of the GPUs, or of the system's RAM where models are held there. "
        "Null while that cannot be measured, as during a load.",
    )
    gpu_memory_required_gb: float | None = Field(
        None, description="When it is not held: memory that it would take, measured on an earlier load or worked out."
    )
    load_progress: int | None = Field(
        None,
        description="While it is held, percent: 100 once it runs; during a switch, of the whole switch, as the pages show it. Null "
        "during an unload, and for a load that somebody else began.",
    )
    estimated_load_time_seconds: float | None = Field(
        description="Of a load: learned from earlier ones, else worked out from the size and this host's rate."
    )
    name: str = Field(description="As people know it.")
    active: bool = Field(description="The one that answers when a request names no model.")
    available: bool = Field(description="Its files are there; false: not downloaded, and a switch to it is refused.")


class GpuMemory(BaseModel):
    """Memory for models, of all hosts together, as last measured: of the GPUs, or of the system where there are none. GB are 10⁹ bytes."""

    total_memory_gb: float | None = Field(description="Null until somebody has looked.")
    used_memory_gb: float | None = Field(description="By models and by other programs.")
    available_memory_gb: float | None


class ModelsStatus(BaseModel):
    """All models by id, and the memory."""

    models: dict[str, ModelStatus]
    gpu: GpuMemory


@router.get(
    "/v1/models/status",
    response={200: ModelsStatus, **ERRORS},
    operation_id="models_status",
    summary="All models with state and memory",
    openapi_extra={"responses": {200: {"content": {"application/json": {"example": _EXAMPLE}}}}},
)
async def models_status(request: ApiRequest) -> HttpResponseBase:
    """Never older than a second during a switch; it lies ready, so it may be asked for as often as you like."""
    return await status_cache.answer(request, request.auth, models_status_of)


def models_status_of(status: status_cache.Status) -> ModelsStatus:
    """The document about a moment."""
    healthy = {runtime.pk: runtime.is_healthy for runtime in status.overview.runtimes}
    return ModelsStatus(
        models={
            row.model.model_id: _model_status(
                row, status.specs.get(row.model.pk), is_healthy=healthy.get(row.model.runtime_id, False)
            )
            for row in status.overview.rows
        },
        gpu=_gpu_memory([item.pool for item in status.overview.pools]),
    )


def gigabytes(size_bytes: float | None) -> float | None:
    """GB with three decimals; null for what nobody knows, which the records hold as 0."""
    return round(size_bytes / 1e9, 3) if size_bytes else None


def _model_status(row: ModelRow, spec: ModelSpec | None, *, is_healthy: bool) -> ModelStatus:
    state = _STATES[row.state]
    fields = {
        "status": state,
        **_fields_of_state(row, state, spec, is_healthy=is_healthy),
        "size_gb": gigabytes(row.model.size_bytes),
        "estimated_load_time_seconds": _load_seconds(spec),
        "name": row.model.name,
        "active": row.state == ModelState.ACTIVE,
        "available": row.model.is_available,
    }
    return ModelStatus(**fields)


def _fields_of_state(row: ModelRow, state: StateName, spec: ModelSpec | None, *, is_healthy: bool) -> dict[str, object]:
    held = {"gpu_memory_used_gb": gigabytes(row.instance.held_bytes if row.instance else 0)}
    match state:
        case "running":
            return {"health": "healthy" if is_healthy else "unhealthy", **held, "load_progress": 100}
        case "loading":
            return {"health": "starting", **held, "load_progress": row.percent}
        case "unloading":
            return {"health": "healthy" if is_healthy else "unhealthy", **held, "load_progress": None}
        case "failed":
            return {"health": "unhealthy", "gpu_memory_required_gb": _need(spec)}
        case _:
            return {"gpu_memory_required_gb": _need(spec)}


def _need(spec: ModelSpec | None) -> float | None:
    return gigabytes(spec.need_bytes) if spec and (spec.is_measured or spec.file_bytes) else None


def _load_seconds(spec: ModelSpec | None) -> float | None:
    is_known = spec is not None and (spec.load_time.samples or spec.file_bytes)
    return round(spec.load_time.usual_seconds, 1) if spec and is_known else None


def _gpu_memory(pools: list[MemoryPool]) -> GpuMemory:
    seen = [pool for pool in pools if pool.total_bytes]
    total, free = sum(pool.total_bytes for pool in seen), sum(pool.free_bytes for pool in seen)
    return GpuMemory(
        total_memory_gb=round(total / 1e9, 3) if seen else None,
        used_memory_gb=round((total - free) / 1e9, 3) if seen else None,
        available_memory_gb=round(free / 1e9, 3) if seen else None,
    )
