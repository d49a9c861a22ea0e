"""Models as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Schema
from pydantic import Field

from gantry.api.v1.bodies import Page, Strict
from gantry.planning.states import ModelState
from models_admin.need_view import NeedView, need_view
from models_admin.overview import ModelRow


class ModelQuery(Page):
    """Which models, in which order."""

    state: Literal["", "loaded", "idle", "failed", "not_downloaded"] = Field(
        "",
        description="A group of states: loaded (also loading, unloading), idle, failed (also crashed), not_downloaded.",
    )
    runtime: str = Field("", max_length=100, description="Name of a runtime.")
    tag: str = Field("", max_length=100, description="One of its tags.")
    q: str = Field("", max_length=200, description="Looked for in names, ids, tags and descriptions.")
    sort: str = Field(
        "name",
        pattern=r"^-?(name|state|size|quantization|parameters|context|load|used)$",
        description="What the list is ordered by; “-” in front: the other way round. Those that are equal go by name and id.",
    )


class Failure(Schema):
    """Why a model's last load failed."""

    code: str = Field(description="See `error_code` of a job.")
    text: str
    at: datetime | None


class Model(Schema):
    """A model and its state."""

    model_id: str = Field(description="Its id; may hold slashes.", examples=["Qwen/Qwen2.5-0.5B"])
    name: str
    description: str
    tags: list[str] = Field(description="What it is good for: chat, coding … `embedding` marks one that cannot chat.")
    runtime: str = Field(description="Name of the runtime that loads it.")
    state: ModelState
    state_text: str = Field(description="The state in words; empty for one that is idle.")
    percent: int | None = Field(description="How far its load is, 0 to 99; null when it is not loading.")
    is_active: bool = Field(description="Chat and requests without a model go to it.")
    is_available: bool = Field(description="Its file is there.")
    is_pinned: bool = Field(description="No switch to another model unloads it.")
    size_bytes: int = Field(description="Of all its files.")
    held_bytes: int = Field(description="Memory that it holds now; 0 when it is not loaded.")
    quantization: str
    parameter_label: str = Field(description="As people say it: “20B”.")
    architecture: str
    context_length: int | None = Field(description="Tokens it was trained for; null: not known.")
    usual_load_seconds: float | None = Field(description="How long its last load took; null: there was none.")
    people: int = Field(description="Who got an answer from it in the last five minutes.")
    last_used_at: datetime | None
    last_failure: Failure | None


class Need(Schema):
    """What a load takes: estimated, and measured with the present parameters."""

    estimated_bytes: int
    measured_bytes: int = Field(description="Held after the latest load; 0: none was measured.")
    usual_load_seconds: float
    low_load_seconds: float
    high_load_seconds: float
    load_samples: int = Field(
        description="How many loads stand behind the figures; 0: worked out from the file's size."
    )


class ModelDetail(Model):
    """A model with everything that is known of it."""

    path: str = Field(description="Its file or folder; a relative path starts at GANTRY_MODELS_DIR.")
    parameters: dict[str, Any] = Field(description="How it is loaded: ctx_size, n_gpu_layers …")
    extra_args: list[str] = Field(description="Further arguments for its server.")
    chat_template: str
    sampling: dict[str, Any] = Field(description="Defaults for chat: temperature, stop …")
    idle_minutes: int | None = Field(description="Minutes without use after which it is unloaded; null: never.")
    devices: list[str] = Field(description="Ids of the GPUs it is loaded on; empty: chosen for each load.")
    source: str = Field(description="Where the definition is from: manual, yaml or scan.")
    need: Need
    created_at: datetime
    updated_at: datetime


class ModelList(Schema):
    """A page of models."""

    items: list[Model]
    count: int = Field(description="How many there are in all pages.")


class ModelChange(Strict):
    """What is to be different. What is left out stays as it is."""

    model_id: str | None = Field(None, max_length=200, description="Not while it is loaded or a job is about it.")
    name: str | None = Field(None, max_length=200)
    description: str | None = Field(None, max_length=10_000)
    runtime: str | None = Field(None, max_length=100, description="Name of a runtime. Not while the model is loaded.")
    path: str | None = Field(None, max_length=1000)
    tags: list[str] | None = None
    parameters: dict[str, Any] | None = Field(None, description="All of them: what is not named is gone.")
    extra_args: list[str] | None = None
    chat_template: str | None = Field(None, max_length=200_000)
    sampling: dict[str, Any] | None = None
    size_bytes: int | None = Field(None, ge=0)
    quantization: str | None = Field(None, max_length=50)
    parameter_label: str | None = Field(None, max_length=50)
    architecture: str | None = Field(None, max_length=100)
    context_length: int | None = Field(None, ge=0, description="Tokens it was trained for; null: not known.")
    idle_minutes: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Minutes without use after which it is unloaded; null: never."
    )
    devices: list[str] | None = Field(None, description="Ids of the GPUs it is loaded on; empty: chosen for each load.")


class ModelIn(ModelChange):
    """A new model. Its runtime may be left out where there is only one."""

    model_id: str = Field(min_length=1, max_length=200, description="Letters, digits and . _ : / + - only.")
    name: str = Field(min_length=1, max_length=200)


class Damaged(Schema):
    """A model whose file is there and cannot be used."""

    model_id: str
    why: str


class Problem(Schema):
    """A file that a scan could make nothing of."""

    path: str
    why: str


class ImportAnswer(Schema):
    """What an import or a scan did, as model ids."""

    created: list[str]
    changed: list[str]
    unchanged: list[str]
    damaged: list[Damaged]
    problems: list[Problem] = Field(default_factory=list)


class FolderIn(Strict):
    """A folder on the server."""

    path: str = Field(min_length=1, max_length=1000, examples=["/srv/models"])


def model_body(row: ModelRow) -> dict[str, Any]:
    """Model of a row of the overview."""
    model = row.model
    own = ("model_id", "name", "description", "tags", "is_available", "is_pinned", "size_bytes", "quantization")
    rest = ("parameter_label", "architecture", "context_length", "last_used_at")
    failure = {"code": model.last_error_code, "text": model.last_error_text, "at": model.last_failed_at}
    return {
        **{name: getattr(model, name) for name in (*own, *rest)},
        "runtime": model.runtime.name,
        "state": row.state,
        "state_text": row.words,
        "percent": row.percent,
        "is_active": row.state == ModelState.ACTIVE,
        "held_bytes": row.instance.held_bytes if row.instance else 0,
        "usual_load_seconds": row.usual_load_seconds,
        "people": row.people,
        "last_failure": failure if model.last_error_code else None,
    }


def detail_body(row: ModelRow) -> dict[str, Any]:
    """ModelDetail of a row. Five queries more."""
    names = ("path", "parameters", "extra_args", "chat_template", "sampling", "idle_minutes", "devices", "source")
    own = {name: getattr(row.model, name) for name in (*names, "created_at", "updated_at")}
    return {**model_body(row), **own, "need": _need(need_view(row.model))}


def _need(view: NeedView) -> dict[str, Any]:
    time = view.load_time
    return {
        "estimated_bytes": view.estimated_bytes,
        "measured_bytes": view.measured_bytes,
        "usual_load_seconds": time.usual_seconds,
        "low_load_seconds": time.low_seconds,
        "high_load_seconds": time.high_seconds,
        "load_samples": time.samples,
    }
