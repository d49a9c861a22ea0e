"""What requests may carry, refused in the words of the validator that TabbyAPI uses as well."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tests.fakes.tabby.wire import Request, refusal


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class DraftOptions(_Body):
    """The draft model of a load."""

    draft_model_name: str


class LoadBody(_Body):
    """POST /v1/model/load."""

    model_name: str
    backend: str | None = None
    max_seq_len: int | None = None
    cache_size: int | None = None
    cache_mode: str | None = None
    tensor_parallel: bool | None = None
    gpu_split_auto: bool | None = None
    gpu_split: list[float] | None = None
    autosplit_reserve: list[float] | None = None
    rope_alpha: float | str | None = None
    chunk_size: int | None = None
    prompt_template: str | None = None
    vision: bool | None = None
    draft_model: DraftOptions | None = None
    skip_queue: bool | None = None


class StreamOptions(_Body):
    """What a stream is to tell besides."""

    include_usage: bool = False


class _Sampling(_Body):
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=10)
    stop: str | list[str] | None = None
    n: int = Field(1, ge=1)


class ChatBody(_Sampling):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]]


class CompletionBody(_Sampling):
    """POST /v1/completions."""

    prompt: str | list[str]


class TokenBody(_Body):
    """POST /v1/token/encode."""

    text: str


Body = TypeVar("Body", bound=_Body)


def parse_json(request: Request) -> Any:
    """The body; text that is not declared as JSON stays text. Judged before anything else, keys included."""
    if not request.body:
        return None
    if not request.headers.get("content-type", "").startswith("application/json"):
        return request.body.decode(errors="replace")
    try:
        return json.loads(request.body)
    except ValueError as exc:
        where = getattr(exc, "pos", 0)
        told = {"error": getattr(exc, "msg", "Invalid JSON")}
        error = {"type": "json_invalid", "loc": ["body", where], "msg": "JSON decode error", "input": {}, "ctx": told}
        raise refusal(422, [error]) from exc


def validate(kind: type[Body], data: Any) -> Body:
    """The fields, checked."""
    if data is None:
        raise refusal(422, [{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    if not isinstance(data, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise refusal(422, [{"type": "model_attributes_type", "loc": ["body"], "msg": message, "input": data}])
    try:
        return kind.model_validate(data)
    except ValidationError as exc:
        errors = json.loads(exc.json(include_url=False))
        raise refusal(422, [{**error, "loc": ["body", *error["loc"]]} for error in errors]) from exc
