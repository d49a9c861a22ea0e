"""Scenarios of reading, loading and unloading, and all of them together; see expectations.py."""

from __future__ import annotations

from typing import Any

from tests.fakes.tabby.expectations import (
    ADMIN,
    API,
    CHUNK,
    CUT_COMPLETION,
    EMPTY_LIST,
    ERROR,
    FAULT,
    HEALTHY,
    JOINED,
    LIST,
    LOADED_CARD,
    MODEL_STEPS,
    NO_ADMIN_KEY,
    NO_KEY,
    NO_PATH,
    NONE_LOADED,
    WRONG_ADMIN_KEY,
    WRONG_KEY,
    Ask,
    Expect,
    Leave,
    Pass,
    Scenario,
    Step,
    chat,
    load,
    once,
    shows,
    unload,
)
from tests.fakes.tabby.scenarios_answers import ALPHA, ANSWERS, BETA, STREAM

SLOW = "slow-34b"
LONG = "[[stub tokens=100 delay=0.05]]"
_NO_UNLOAD = "'NoneType' object has no attribute 'unload'"


def _key(status: int, told: dict[str, Any], path: str = "/v1/models", **headers: str) -> list[Step]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return once("GET", path, status, headers=names, **told)


def _load_key(status: int, words: Any, **headers: str) -> list[Step]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return once("POST", "/v1/model/load", status, headers=names, body={"model_name": "none"}, exactly=words)


def _fails(model: str, events: list[Any], **options: Any) -> list[Step]:
    return [load("load", model, **options), Pass(2), Expect("load", 200, events=events), *shows("")]


def _error(words: str) -> dict[str, Any]:
    return {"error": {"message": words, "trace": None}}


SCENARIOS = [
    Scenario(
        "open to everybody",
        [
            *once("GET", "/health", 200, headers={}, exactly=HEALTHY),
            *once("GET", "/v1/nope", 404, headers={}, exactly={"detail": "Not Found"}),
            *once("GET", "/", 404, headers={}, exactly={"detail": "Not Found"}),
            *once("GET", "/v1/model/load", 405, exactly={"detail": "Method Not Allowed"}),
        ],
    ),
    Scenario(
        "keys of lists: the first header decides",
        [
            *_key(200, {"shape": LIST}, x_api_key=ADMIN),
            *_key(200, {"shape": LIST}, authorization=f"Bearer {ADMIN}"),
            *_key(200, {"shape": LIST}, x_api_key=API, x_admin_key=ADMIN),
            *_key(200, {"shape": EMPTY_LIST}, x_api_key=API),
            *_key(200, {"shape": EMPTY_LIST}, authorization=f"bearer {API}"),
            *_key(200, {"shape": EMPTY_LIST}, x_api_key=API, authorization="Bearer nope"),
            *_key(401, {"exactly": NO_KEY}),
            *_key(401, {"exactly": NO_KEY}, x_admin_key=ADMIN),
            *_key(401, {"exactly": WRONG_KEY}, x_api_key="nope", authorization=f"Bearer {API}"),
            *_key(401, {"exactly": WRONG_KEY}, authorization=API),
            *_key(500, {"exactly": FAULT}, x_api_key=API, x_admin_key="nope"),
        ],
    ),
    Scenario(
        "what a key opens",
        [
            *_key(200, {"exactly": {"permission": "api"}}, "/v1/auth/permission", x_api_key=API),
            *_key(200, {"exactly": {"permission": "admin"}}, "/v1/auth/permission", authorization=f"Bearer {ADMIN}"),
            *_key(401, {"exactly": WRONG_KEY}, "/v1/auth/permission", x_api_key="nope"),
        ],
    ),
    Scenario(
        "keys of loads",
        [
            *_load_key(400, NO_PATH, x_admin_key=ADMIN),
            *_load_key(400, NO_PATH, authorization=f"Bearer {ADMIN}"),
            *_load_key(401, NO_ADMIN_KEY),
            *_load_key(401, NO_ADMIN_KEY, x_api_key=ADMIN),
            *_load_key(401, WRONG_ADMIN_KEY, x_admin_key=API),
            *_load_key(401, WRONG_ADMIN_KEY, authorization=f"Bearer {API}"),
            *_load_key(401, WRONG_ADMIN_KEY, x_admin_key="nope", authorization=f"Bearer {ADMIN}"),
        ],
    ),
    Scenario("no keys wanted", once("GET", "/v1/models", 200, headers={}, shape=LIST), knobs={"keys.is_open": True}),
    Scenario(
        "idle",
        [
            *shows(""),
            *once("GET", "/v1/models", 200, shape=EMPTY_LIST),
            *once("GET", "/props", 503, exactly=NONE_LOADED),
            *once("POST", "/v1/model/unload", 503, exactly=NONE_LOADED),
            chat("chat"),
            Expect("chat", 503, exactly=NONE_LOADED),
            chat("stream", stream=True, model=ALPHA),
            Expect("stream", 500, exactly=FAULT),
            *once("POST", "/v1/token/encode", 503, body={}, exactly=NONE_LOADED),
            Ask("empty", "POST", "/v1/chat/completions", {}),
            Expect("empty", 422, shape={"detail": [{"type": "text", "loc": ["text"], "msg": "text", "input": {}}]}),
        ],
    ),
    Scenario(
        "loads refused at once leave the loaded model",
        [
            *once("POST", "/v1/model/load", 400, body={"model_name": "none"}, exactly=NO_PATH),
            *once(
                "POST",
                "/v1/model/load",
                400,
                body={"model_name": ""},
                exactly={"detail": "A model name was not provided for load."},
            ),
            *once(
                "POST",
                "/v1/model/load",
                422,
                body={"model_name": None},
                shape={"detail": [{"type": "text", "loc": ["text"], "msg": "text", "input": "null"}]},
            ),
            *once(
                "POST",
                "/v1/model/load",
                422,
                body={"model_name": BETA, "max_seq_len": "much"},
                shape={"detail": [{"type": "text", "loc": ["text"], "msg": "text", "input": "text"}]},
            ),
            *shows(ALPHA),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "a load: nothing is loaded before the stream has ended",
        [
            load("load", ALPHA),
            Pass(0.15),
            Expect("load", 200, events=["model processing"], is_over=False),
            *shows(""),
            *once("GET", "/v1/models", 200, shape=EMPTY_LIST),
            *once("POST", "/v1/model/unload", 503, exactly=NONE_LOADED),
            chat("named", model=ALPHA),
            Expect("named", 500, exactly=FAULT),
            Pass(0.4),
            Expect("load", 200, events=MODEL_STEPS, is_over=False),
            *shows(""),
            Pass(0.3),
            Expect("load", 200, events=MODEL_STEPS),
            *shows(ALPHA),
        ],
    ),
    Scenario(
        "the loaded one again: a no-op that ignores its options, also while it answers",
        [
            chat("answer", LONG, stream=True),
            load("again", ALPHA, max_seq_len=2304),
            Expect("again", 200, events=JOINED),
            *once("GET", "/v1/model", 200, shape=LOADED_CARD),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "a switch: the old one goes first",
        [load("load", BETA), Pass(0.1), *shows(""), Pass(1), Expect("load", 200, events=MODEL_STEPS), *shows(BETA)],
        loaded=ALPHA,
    ),
    Scenario(
        "parts: one `finished` each, vision and draft before the model",
        [
            load("draft", ALPHA, draft_model={"draft_model_name": "draft-1b"}),
            Pass(2),
            Expect("draft", 200, events=["draft processing", "draft finished", *MODEL_STEPS]),
            load("vision", "vision-9b", vision=True),
            Pass(2),
            Expect("vision", 200, events=["vision processing", "vision finished", *MODEL_STEPS]),
        ],
    ),
    Scenario(
        "two loads: the second waits in silence, then swaps",
        [
            load("first", SLOW),
            Pass(0.5),
            load("second", BETA),
            Pass(1),
            Expect("second", 200, events=[], is_over=False),
            Pass(4),
            Expect("first", 200, events=MODEL_STEPS),
            Expect("second", 200, events=MODEL_STEPS),
            *shows(BETA),
        ],
    ),
    Scenario(
        "two loads of the same: the second joins",
        [
            load("first", SLOW),
            Pass(0.5),
            load("second", SLOW),
            Pass(4),
            Expect("first", 200, events=MODEL_STEPS),
            Expect("second", 200, events=JOINED),
        ],
    ),
    Scenario(
        "nested models are shown by their last component",
        [
            load("first", "family/4.0bpw"),
            Pass(1),
            load("second", "cousin/4.0bpw"),
            Pass(1),
            Expect("second", 200, events=MODEL_STEPS),
            *shows("4.0bpw"),
        ],
    ),
    Scenario("a load that fails half way", _fails("broken-8b", ["model processing", ERROR]), loaded=ALPHA),
    Scenario("one that does not fit", _fails("toolarge-70b", ["model processing", ERROR]), loaded=ALPHA),
    Scenario("one that runs out of memory after `finished`", _fails("lateoom-30b", [*MODEL_STEPS, ERROR])),
    Scenario("a directory without a model costs the loaded one", _fails("not-a-model", [ERROR]), loaded=ALPHA),
    Scenario("an old quantisation costs the loaded one", _fails("oldquant-7b", [ERROR]), loaded=ALPHA),
    Scenario("a wrong backend", _fails(ALPHA, [ERROR], backend="llama")),
    Scenario("a missing draft model", _fails(ALPHA, [ERROR], draft_model={"draft_model_name": "no-such"})),
    Scenario(
        "failures do not show in /health, and a queued load runs",
        [
            load("bad", "broken-8b"),
            load("good", ALPHA),
            Pass(2),
            Expect("bad", 200, events=["model processing", ERROR]),
            Expect("good", 200, events=MODEL_STEPS),
            *once("GET", "/health", 200, exactly=HEALTHY),
        ],
    ),
    Scenario(
        "a client that leaves stops no load; the same request joins it",
        [
            load("gone", SLOW),
            Pass(0.8),
            Leave("gone"),
            *shows(""),
            load("again", SLOW),
            Pass(4),
            Expect("again", 200, events=JOINED),
            *shows(SLOW),
        ],
    ),
    Scenario(
        "a queued load whose client left still happens",
        [load("first", SLOW), Pass(0.5), load("gone", BETA), Pass(0.5), Leave("gone"), Pass(4), *shows(BETA)],
    ),
    Scenario(
        "unload",
        [unload(), Pass(0.1), Expect("unload", 200, exactly=None), *shows(""), unload("again"), Expect("again", 503)],
        loaded=ALPHA,
    ),
    Scenario(
        "an unload cuts answers off: a stream stays open, a plain answer looks whole",
        [
            chat("stream", LONG, stream=True),
            chat("plain", LONG),
            Pass(0.26),
            unload(),
            Pass(0.1),
            Expect("unload", 200, exactly=None),
            Expect("plain", 200, shape=CUT_COMPLETION),
            Pass(60),
            Expect("stream", 200, events=[CHUNK], is_over=False),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "a load waits for answers, and an unload meanwhile blocks and fails",
        [
            chat("answer", "[[stub tokens=30 delay=0.05]]", stream=True),
            Pass(0.15),
            load("load", BETA),
            Pass(0.3),
            *shows(ALPHA),
            chat("stream", stream=True),
            chat("plain"),
            unload(),
            Pass(0.5),
            Expect("load", 200, events=[], is_over=False),
            Expect("stream", 200, events=[], is_over=False),
            Pass(3),
            Expect("answer", 200, events=STREAM),
            Expect("unload", 500, exactly=FAULT),
            Expect("stream", 200, events=[ERROR]),
            Expect("plain", 503, shape={"detail": "text"}),
            Expect("load", 200, events=MODEL_STEPS),
            *shows(BETA),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "a load of the old one during that wait swaps back",
        [
            chat("answer", "[[stub tokens=30 delay=0.05]]", stream=True),
            load("load", BETA),
            load("back", ALPHA),
            Pass(5),
            Expect("back", 200, events=MODEL_STEPS),
            *shows(ALPHA),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "the waiting load begins when the answer's client leaves",
        [
            chat("answer", LONG, stream=True),
            load("load", BETA),
            Leave("answer"),
            Pass(1),
            Expect("load", 200, events=MODEL_STEPS),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "two unloads at once: one fails",
        [
            unload("first"),
            unload("second"),
            Pass(0.2),
            Expect("first", 200, exactly=None),
            Expect("second", 500, exactly=FAULT),
        ],
        loaded=ALPHA,
    ),
    Scenario(
        "a load that crosses an unload fails, and works when sent again",
        [
            unload(),
            load("crossed", BETA),
            Pass(0.2),
            Expect("crossed", 200, exactly=[_error(_NO_UNLOAD)]),
            load("again", BETA),
            Pass(1),
            Expect("again", 200, events=MODEL_STEPS),
        ],
        loaded=ALPHA,
    ),
    *ANSWERS,
]
