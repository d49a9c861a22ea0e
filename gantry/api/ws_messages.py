"""Every message of the sockets for programs, in both directions: what it means, and the units of its figures.

Sizes are bytes, times are seconds, moments are ISO 8601 with their zone, `percent` is 0 to 100. Fields are only ever added.
The field `type` says which message it is. What somebody sends may hold further fields, which are ignored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from gantry.live import JobSnapshot

# What `valid_model_id` of a definition allows, and a little more: an id that nobody has is answered as unknown.
ModelId = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]+$")]


class Request(BaseModel):
    """Something that a program sends. Values are taken as they are: "1" is no number, 1 no text."""

    model_config = ConfigDict(strict=True, frozen=True)


class GetLlmStatus(Request):
    """/ws/llm: answered by `llm_status`."""

    type: Literal["get_llm_status"]


class SwitchLlmModel(Request):
    """/ws/llm: make a model the one that serves. Answered by `llm_switching` and, at the end, `llm_model_switched`."""

    type: Literal["switch_llm_model"]
    model_id: ModelId
    confirm: bool = Field(
        default=False,
        description="Take over from a switch that is half done, and unload what the plan says where policy asks first.",
    )


class RestartLlmServer(Request):
    """/ws/llm: end the model that serves and load it again. Answered, at the end, by `llm_server_restarted`."""

    type: Literal["restart_llm_server"]


class Ping(Request):
    """/ws/events: answered by `pong`, to see that the connection lives."""

    type: Literal["ping"]


class GetSnapshot(Request):
    """/ws/events: answered by a `snapshot`, as on connect."""

    type: Literal["get_snapshot"]


LlmRequest = Annotated[GetLlmStatus | SwitchLlmModel | RestartLlmServer, Field(discriminator="type")]
EventsRequest = Annotated[Ping | GetSnapshot, Field(discriminator="type")]
LLM_REQUESTS: TypeAdapter[Any] = TypeAdapter(cast("Any", LlmRequest))
EVENTS_REQUESTS: TypeAdapter[Any] = TypeAdapter(cast("Any", EventsRequest))


class Message(BaseModel):
    """Something that Gantry sends."""

    model_config = ConfigDict(frozen=True)


class ErrorMessage(Message):
    """Both: something that was sent could not be used; or, before the connection is closed, why it is."""

    type: Literal["error"] = "error"
    code: str = Field(
        description="For programs: not_json, no_type, unknown_type, missing_field, invalid_field, binary, message_too_large, "
        "too_many_messages, invalid_since; or the code of a refusal, such as key_refused or forbidden."
    )
    message: str = Field(description="For people: what is wrong.")
    hint: str = Field(default="", description="What to do about it.")
    retry_after: int | None = Field(default=None, description="Seconds after which it is tried again with success.")


class ModelInfo(Message):
    """A model as it is now."""

    id: str
    name: str
    state: str = Field(
        description="active, loaded, loading, draining, unloading, crashed, paused, failed, idle, not_downloaded"
    )
    is_active: bool = Field(description="It is the one that answers.")
    is_available: bool = Field(description="Its file is there, so it can be chosen.")
    is_pinned: bool = Field(description="No switch to another model unloads it.")
    size_bytes: int = Field(description="Of its files.")
    held_bytes: int = Field(description="Memory that it holds; 0 when it is not loaded.")
    quantization: str
    parameters: str = Field(description='As people say it: "20B".')
    context_length: int | None = Field(description="Tokens it was trained for.")
    description: str
    tags: list[str]
    error_code: str = Field(description="Why it failed to load last; empty once it has loaded again.")


class PoolInfo(Message):
    """Memory for models on one host. total = held + others + free."""

    host: str
    name: str
    kind: str = Field(description="nvml, ram or fixed; empty as long as nobody has looked.")
    total_bytes: int
    free_bytes: int
    held_bytes: int = Field(description="By models of Gantry.")
    others_bytes: int = Field(description="By other programs.")


class JobError(Message):
    """Why a job did not do what was asked."""

    code: str = Field(description="One of gantry.planning.states.ErrorCode.")
    message: str
    hint: str = Field(description="What to do.")
    data: dict[str, int] = Field(
        description="With insufficient_memory: `required_bytes`, `available_bytes`, `freeable_bytes`, as the worker found them."
    )


class LlmStatus(Message):
    """/ws/llm: on connect, when asked for, and to everybody whenever something of it changes."""

    type: Literal["llm_status"] = "llm_status"
    running: bool = Field(description="A model answers.")
    current_model: str | None = Field(description="Its id; null when none answers.")
    current_model_name: str | None
    switching_to: str | None = Field(description="Id of the model that a switch or restart under way is for.")
    job_id: int | None = Field(description="Of the job under way.")
    models: list[ModelInfo] = Field(description="All there are, by name.")


class LlmSwitching(Message):
    """/ws/llm: a switch was asked for, by whomever; to everybody. Also to whoever comes, or asks, while it is under way."""

    type: Literal["llm_switching"] = "llm_switching"
    message: str
    model_id: str
    model_name: str
    job_id: int


class LlmProgress(Message):
    """/ws/llm: how far the job under way is; to everybody."""

    type: Literal["llm_progress"] = "llm_progress"
    percent: int = Field(description="Of the whole job; 100 only once it has succeeded.")
    stage: str = Field(description="waiting, planning, draining, unloading, loading or warming.")
    eta_seconds: float | None = Field(description="How long it will still take; null while nobody knows.")
    message: str = Field(description="The stage in words.")
    kind: str = Field(description="switch, restart, unload, unload_all, preload or call.")
    job_id: int
    model_id: str
    model_name: str
    elapsed_seconds: float
    bytes_done: int | None = Field(description="Of the step at work, where it can be measured.")
    bytes_total: int | None
    is_cancelling: bool


class LlmDone(Message):
    """How something that was asked for ended. To everybody; a refusal, which has no job, only to the one who asked."""

    success: bool
    message: str
    model_id: str
    job_id: int | None
    code: str = Field(
        description="Empty on success; else why: the code of an error, of a refusal, or cancelled, superseded."
    )
    hint: str = Field(description="What to do about it; may be empty.")
    retry_after: int | None = Field(default=None, description="Seconds to wait, when it was too soon.")


class LlmModelSwitched(LlmDone):
    """/ws/llm: a switch has ended, or was refused."""

    type: Literal["llm_model_switched"] = "llm_model_switched"


class LlmServerRestarted(LlmDone):
    """/ws/llm: a restart has ended, or was refused."""

    type: Literal["llm_server_restarted"] = "llm_server_restarted"


class JobEvent(Message):
    """/ws/events: something happened in a job. The figures are those of that moment, whole: one that is missed costs nothing."""

    type: Literal["job"] = "job"
    id: str = Field(description="Job and seq, such as 17-42: what `since` takes on reconnect.")
    job_id: int
    seq: int = Field(description="1, 2, 3 … within the job. For a slow reader the latest replaces those in between.")
    at: datetime = Field(description="When it happened, or was made known.")
    is_replay: bool = Field(description="It happened before the connection, which asked for it by `since`.")
    kind: str = Field(description="switch, restart, unload, unload_all, preload or call.")
    state: str = Field(description="One of gantry.planning.states.JobState, such as loading or succeeded.")
    is_finished: bool
    target_id: str = Field(description="Id of the model it is about; empty for unload_all.")
    target_name: str
    from_name: str = Field(description="The model that was active before; may be empty.")
    requested_by: str
    via: str = Field(description="page, chat, rest, websocket, gateway, command or system.")
    percent: int = Field(description="Of the whole job; 100 only once it has succeeded.")
    text: str = Field(description="What it does, in words.")
    bytes_done: int | None = Field(description="Of the step at work, where it can be measured.")
    bytes_total: int | None
    eta_seconds: float | None = Field(description="How long it will still take; null while nobody knows.")
    elapsed_seconds: float
    is_cancelling: bool
    error: JobError | None = Field(description="With the last event of a job that failed.")
    aftermath: str = Field(description="What was done about it, such as: SmolLM2 was put back.")
    url: str = Field(description="Its page, as a path.")


class Snapshot(Message):
    """/ws/events: how everything is. The first message after those that `since` asked for; apply what follows to it."""

    type: Literal["snapshot"] = "snapshot"
    at: datetime
    active: str | None = Field(description="Id of the model that answers.")
    models: list[ModelInfo] = Field(description="All there are, by name.")
    memory: list[PoolInfo]
    job: JobEvent | None = Field(description="The job under way.")
    missed_all: bool = Field(
        description="False when more happened since `since` than is sent again: the oldest was left out."
    )


class ModelEvent(Message):
    """/ws/events: a model is new or has changed."""

    type: Literal["model"] = "model"
    at: datetime
    model: ModelInfo


class ModelRemoved(Message):
    """/ws/events: a model's definition was deleted."""

    type: Literal["model_removed"] = "model_removed"
    at: datetime
    id: str


class MemoryEvent(Message):
    """/ws/events: the memory of a host moved noticeably (10 MB)."""

    type: Literal["memory"] = "memory"
    at: datetime
    memory: list[PoolInfo]


class Pong(Message):
    """/ws/events: the answer to `ping`."""

    type: Literal["pong"] = "pong"
    at: datetime


def job_event(job: JobSnapshot, at: datetime) -> JobEvent:
    """The event that a job's snapshot tells of."""
    same: dict[str, Any] = {name: job[name] for name in JobEvent.model_fields if name in job and name != "id"}  # type: ignore[literal-required]
    error = JobError(
        code=job["error_code"], message=job["error_text"], hint=job["error_hint"], data=job.get("error_data", {})
    )
    return JobEvent(
        **same,
        id=f"{job['id']}-{job['seq']}",
        job_id=job["id"],
        at=at,
        is_replay=False,
        text=job["stage_text"],
        error=error if job["error_code"] else None,
    )
