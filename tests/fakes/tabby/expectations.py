"""What TabbyAPI does on the wire, scenario by scenario: status, fields and their types, order of events, its own words.

Written from recordings of TabbyAPI e632af4. The double is held to them by tests/integration/tabby/test_double_expectations.py; whoever
changes the double changes TabbyAPI in the eyes of every test that uses it.

A scenario is a list of steps. Times are seconds of the double's manual clock: a module takes 0.06 (0.25 in slow-34b), an unload 0.06,
the end of a load 0.22, a token 0.03.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.tabby.keys import Keys

_KEYS = Keys()
API, ADMIN = _KEYS.api_keys[0], _KEYS.admin_key

# Shapes: names of fields and their types.
CARD = {
    "id": "text",
    "object": "text",
    "created": "number",
    "owned_by": "text",
    "logging": "null",
    "parameters": "null",
}
PARAMETERS = {
    "max_seq_len": "number",
    "cache_size": "number",
    "cache_mode": "text",
    "rope_scale": "number",
    "rope_alpha": "number",
    "max_batch_size": "number",
    "chunk_size": "number",
    "prompt_template": "text",
    "prompt_template_content": "text",
    "use_vision": "flag",
    "draft": "null",
}
LIST = {"object": "text", "data": [CARD]}
EMPTY_LIST = {"object": "text", "data": []}
LOADED_CARD = {**CARD, "parameters": PARAMETERS}
ERROR = {"error": {"message": "text", "trace": "null"}}
CHUNK = {
    "id": "text",
    "object": "text",
    "created": "number",
    "model": "text",
    "choices": [{"index": "number", "delta": {"content": "text"}, "finish_reason": "null"}],
}
LAST_CHUNK = {**CHUNK, "choices": [{"index": "number", "delta": {}, "finish_reason": "text", "eos_reason": "text"}]}
USAGE = [
    "completion_time",
    "completion_tokens",
    "completion_tokens_per_sec",
    "prompt_time",
    "prompt_tokens",
    "prompt_tokens_per_sec",
    "total_time",
    "total_tokens",
]
USAGE_CHUNK = {**CHUNK, "choices": [{"index": "number", "delta": {}, "finish_reason": "text"}], "usage": USAGE}
MESSAGE = {"role": "text", "content": "text", "reasoning_content": "null", "tool_calls": "null", "tool_call_id": "null"}
CHOICE = {
    "index": "number",
    "finish_reason": "text",
    "eos_reason": "text",
    "stop_str": "text",
    "message": MESSAGE,
    "logprobs": "null",
}
COMPLETION = {
    "id": "text",
    "object": "text",
    "created": "number",
    "model": "text",
    "choices": [CHOICE],
    "usage": "null",
}
CUT_COMPLETION = {**COMPLETION, "choices": [{**CHOICE, "eos_reason": "null", "stop_str": "null"}]}
FIELD_ERRORS = {"detail": [{"type": "text", "loc": ["text"], "msg": "text", "input": "null"}]}

# Words that are TabbyAPI's own.
NONE_LOADED = {"detail": "No models are currently loaded."}
NO_KEY = {"detail": "Please provide an API key"}
WRONG_KEY = {"detail": "Invalid API key"}
NO_ADMIN_KEY = {"detail": "Please provide an admin key"}
WRONG_ADMIN_KEY = {"detail": "Invalid admin key"}
NO_PATH = {"detail": "Could not find the model path for load. Check model name or config.yml?"}
FAULT = "Internal Server Error"  # text/plain
HEALTHY = {"status": "healthy", "issues": []}

MODEL_STEPS = ["model processing", "model finished"]
JOINED = ["model processing 1/1", "model finished 1/1"]


@dataclass(frozen=True)
class Ask:
    """Send a request; `name` stands for it from here on."""

    name: str
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] | None = None  # None: the right key


@dataclass(frozen=True)
class Pass:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True)
class Leave:
    """The client closes the connection."""

    name: str


@dataclass(frozen=True)
class Expect:
    """What has come by now. Give one of `exactly` (data or text), `shape`, `events`."""

    name: str
    status: int | None
    exactly: Any = None
    shape: Any = None
    events: list[Any] | None = None
    is_over: bool = True  # the answer has ended properly


Step = Ask | Pass | Leave | Expect


@dataclass(frozen=True)
class Scenario:
    """Steps, and what had happened before them."""

    name: str
    steps: list[Step]
    loaded: str = ""
    knobs: Mapping[str, Any] = field(default_factory=dict)  # "api.loads_inline" -> value


def load(name: str, model: str, **options: Any) -> Ask:
    """Ask for a load."""
    return Ask(name, "POST", "/v1/model/load", {"model_name": model, **options})


def unload(name: str = "unload") -> Ask:
    """Ask for an unload."""
    return Ask(name, "POST", "/v1/model/unload")


def chat(name: str, text: str = "hello", **options: Any) -> Ask:
    """Ask for an answer."""
    body = {"messages": [{"role": "user", "content": text}], **options}
    return Ask(name, "POST", "/v1/chat/completions", body)


def once(
    method: str, path: str, status: int, *, headers: Mapping[str, str] | None = None, body: Any = None, **told: Any
) -> list[Step]:
    """A request that is answered at once."""
    return [Ask("once", method, path, body, headers), Expect("once", status, **told)]


def shows(model: str) -> list[Step]:
    """`/v1/model` names it, or nothing."""
    if not model:
        return once("GET", "/v1/model", 503, exactly=NONE_LOADED)
    return [*once("GET", "/v1/model", 200, shape=LOADED_CARD), *once("GET", "/v1/models", 200, shape=LIST)]
