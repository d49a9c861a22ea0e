"""Scenarios of answers, engine errors and inline loading; see expectations.py."""

from __future__ import annotations

from tests.fakes.tabby.expectations import (
    ADMIN,
    CHUNK,
    COMPLETION,
    ERROR,
    LAST_CHUNK,
    USAGE_CHUNK,
    Ask,
    Expect,
    Pass,
    Scenario,
    chat,
    load,
    once,
    shows,
)

ALPHA, BETA = "alpha-7b", "beta-13b"
STREAM = [CHUNK, LAST_CHUNK, "[DONE]"]

ANSWERS = [
    Scenario(
        "answers: any name is answered by the loaded one",
        [
            chat("stream", stream=True, model="gpt-4o", max_tokens=3),
            chat("usage", stream=True, stream_options={"include_usage": True}),
            chat("plain"),
            Pass(5),
            Expect("stream", 200, events=STREAM),
            Expect("usage", 200, events=[CHUNK, USAGE_CHUNK, "[DONE]"]),
            Expect("plain", 200, shape=COMPLETION),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "a context that is too small",
        [
            chat("chat"),
            Expect(
                "chat",
                400,
                shape={"error": {"message": "text", "type": "text", "param": "null", "code": "text"}},
            ),
        ],
        knobs={"models.alpha-7b.max_seq_len": 2048},
        loaded=ALPHA,
    ),
    Scenario(
        "a model without a template",
        [
            chat("chat"),
            Expect(
                "chat", 422, exactly={"detail": "Chat completions are disabled because a prompt template is not set."}
            ),
        ],
        loaded="notemplate-7b",
    ),
    Scenario(
        "an engine error stays in /health",
        [
            chat("stream", "[[stub crash=3]]", stream=True),
            Pass(1),
            Expect("stream", 200, events=[CHUNK, ERROR]),
            *once("GET", "/health", 503, shape={"status": "text", "issues": [{"time": "text", "description": "text"}]}),
            load("load", BETA),
            Pass(2),
            *once("GET", "/health", 503, shape={"status": "text", "issues": [{"time": "text", "description": "text"}]}),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "inline loading: an administrator's chat switches, nobody else's",
        [
            chat("api", model=BETA),
            Expect(
                "api", 401, exactly={"detail": f"Unable to switch model to {BETA} because an admin key isn't provided"}
            ),
            Ask(
                "admin",
                "POST",
                "/v1/chat/completions",
                {"messages": [], "model": BETA, "max_tokens": 2},
                {"authorization": f"Bearer {ADMIN}"},
            ),
            Pass(2),
            Expect("admin", 200),
            *shows(BETA),
        ],
        knobs={"api.loads_inline": True},
        loaded=ALPHA,
    ),
]
