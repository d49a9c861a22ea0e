"""The double against recordings of the real TabbyAPI: every recorded request is sent again, and the answers compared.

The recordings are not part of this project. Where they stand beside it, status, shape and order of all of them must agree; elsewhere
there is nothing to compare and no test is collected. The double's own expectations (test_double_expectations.py) run everywhere.

Time is the double's manual clock, moved to the recorded moments, so nothing depends on how fast the machine is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.tabby import TabbyDouble
from tests.fakes.tabby.shapes import body_shape, event_shapes
from tests.fakes.tabby.talk import Exchange, data_of

CAPTURES = Path(__file__).resolve().parents[3].parent / "shared" / "wire" / "tabby_captures"
PATHS = sorted(CAPTURES.glob("*.json")) if CAPTURES.is_dir() else []
CATCH_UP = 0.01  # seconds of the double's time between two looks whether it is as far as the recording was

# What had happened before a request, beside what is recorded: (capture, label) -> preparation.
Prepare = Callable[[TabbyDouble], None]


def _put(path: str, **options: Any) -> Prepare:
    return lambda double: double.put(path, **options)


def _set(**knobs: Any) -> Prepare:
    def change(double: TabbyDouble) -> None:
        for name, value in knobs.items():
            owner, _, field = name.partition("__")
            setattr(getattr(double, owner), field, value)

    return change


def _both(first: Prepare, second: Prepare) -> Prepare:
    def prepare(double: TabbyDouble) -> None:
        first(double)
        second(double)

    return prepare


ALPHA = _put("alpha-7b")
BEFORE: dict[str, dict[str, Prepare]] = {
    "10_load_refused": {"": ALPHA},
    "21_loaded_reads": {"": ALPHA},
    "22_load_same": {"": ALPHA},
    "30_load_broken": {"": ALPHA},
    "31_load_too_large": {"": ALPHA},
    "33_load_not_a_model": {
        "": ALPHA,
        "a plain file": ALPHA,
        "the models directory itself": ALPHA,
        "an unsupported quantisation": ALPHA,
    },
    "50_unload": {"": ALPHA, "unload, admin key as Bearer, with a JSON body": ALPHA},
    "51_unload_busy": {"": ALPHA},
    "52_unload_blocked": {"": ALPHA},
    "53_two_unloads": {"": ALPHA, "a load works after that": ALPHA},
    "54_unload_and_load": {"": ALPHA},
    "60_chat": {"": ALPHA},
    "61_chat_refused": {"": _put("small-ctx-1b"), "a model without a chat template": _put("notemplate-7b")},
    "62_chat_disconnect": {"": ALPHA},
    "63_chat_parallel": {"": ALPHA},
    "64_load_waits": {"": ALPHA, "a generation of about 1.5 s (skip_queue=True)": ALPHA},
    "65_engine_crash": {"": ALPHA},
    "66_leave_to_switch": {"": ALPHA},
    "67_load_back": {"": ALPHA},
    "70_inline": {"": _set(api__loads_inline=True)},
    "71_inline_race": {"": _both(_set(api__loads_inline=True), ALPHA)},
    "72_disable_auth": {"": _set(keys__is_open=True)},
    "73_keys_file": {
        "": _set(
            keys__api_keys=["1f5fdd47d1e8dd737f4705dbfe18f898"], keys__admin_key="be204718e04d0a7fd73ff510b7841386"
        ),
        "a key added to the file, 3 s later": _set(
            keys__api_keys=["1f5fdd47d1e8dd737f4705dbfe18f898", "second-user-key"]
        ),
        "a key removed from the file, 3 s later": _set(keys__api_keys=["second-user-key"]),
    },
    "74_ping": {"": _both(_set(api__ping_seconds=1.0), ALPHA)},
    "75_ping_after_unload": {"": _both(_set(api__ping_seconds=1.0), ALPHA)},
    "76_dummy": {
        "": _set(api__dummy_models=["gpt-3.5-turbo"], keys__api_keys=["api-key-0123456789abcdef", "another-key"])
    },
    "77_tracebacks": {"": _set(engine__send_tracebacks=True)},
    "81_sigterm_chat": {"": ALPHA},
    "83_startup": {"": _put("slow-34b")},
}
LEFT_OUT_BODY = " bytes left out>"  # the recording has no body for these
BROKE = "server closed the connection"


class Replay:
    """One recording, sent again."""

    def __init__(self, double: TabbyDouble, recording: dict[str, Any], name: str) -> None:
        self.double = double
        self.recorded: list[dict[str, Any]] = recording["exchanges"]
        self.before = BEFORE.get(name, {})
        self.sent: dict[int, Exchange] = {}
        self.now = 0.0

    def run(self) -> None:
        """All of it, in the order of the recorded moments; each group's moments begin at zero again."""
        for group in self._groups():
            self.now = 0.0
            for moment, act, index in sorted(self._acts(group), key=lambda row: row[0]):
                self._move_to(moment)
                if act == self._send:
                    self._catch_up(group, self.recorded[index]["sent_at"])
                act(index)
            self._catch_up(group, float("inf"))

    def _groups(self) -> list[list[int]]:
        groups: list[list[int]] = [[]]
        for index, exchange in enumerate(self.recorded):
            if exchange["sent_at"] == 0.0 and any(self.recorded[each]["sent_at"] for each in groups[-1]):
                groups.append([])
            groups[-1].append(index)
        return groups

    def _acts(self, group: list[int]) -> Iterator[tuple[float, Callable[[int], None], int]]:
        for index in group:
            exchange = self.recorded[index]
            yield exchange["sent_at"], self._send, index
            end, moment = exchange["response"]["end"], exchange["response"]["ended_at"]
            if end.startswith("client "):
                yield moment, self._leave, index
            elif end == BROKE:
                yield moment, self._cut, index

    def _send(self, index: int) -> None:
        exchange = self.recorded[index]
        prepare = self.before.get(exchange["label"]) or (self.before.get("") if index == 0 else None)
        if prepare is not None:
            prepare(self.double)
        self.sent[index] = Exchange(self.double, exchange["request"]["raw"].encode())

    def _leave(self, index: int) -> None:
        self.sent[index].look()
        self.sent[index].leave()

    def _cut(self, index: int) -> None:
        self.double.cut()
        self.sent[index].read()

    def _move_to(self, moment: float) -> None:
        if moment > self.now:
            self.double.advance(moment - self.now)
            self.now = moment

    def _catch_up(self, group: list[int], moment: float) -> None:
        """Let the double come to where the recording was: what had ended by then must have ended here too."""
        for index in group:
            response = self.recorded[index]["response"]
            if index in self.sent and response["end"] == "complete" and response["ended_at"] <= moment:
                for _ in range(1000):
                    if self.sent[index].look().is_complete and self.sent[index].is_over:
                        break
                    self.double.advance(CATCH_UP)
                else:
                    pytest.fail(f"{self.recorded[index]['label']}: it ended in the recording, and does not here")


if PATHS:

    @pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
    def test_the_double_answers_every_recorded_request_as_tabbyapi_did(path: Path) -> None:
        recording = json.loads(path.read_text())
        with TabbyDouble(is_manual=True, module_seconds=0.06) as double:
            double.engine.finish_seconds = 0.22
            double.api.token_seconds = 0.03
            replay = Replay(double, recording, path.stem)
            replay.run()
            for index, exchange in enumerate(replay.recorded):
                assert _seen(replay.sent[index]) == _recorded(exchange), exchange["label"]


def test_preparations_belong_to_recordings_that_exist() -> None:
    assert not PATHS or set(BEFORE) <= {path.stem for path in PATHS}


def _seen(exchange: Exchange) -> dict[str, Any]:
    answer = exchange.look()
    if answer.status is None:
        return {"status": None}
    told = {"status": answer.status, "content_type": answer.content_type, "is_complete": answer.is_complete}
    if answer.content_type.startswith("text/event-stream"):
        return {**told, "events": event_shapes(data_of(answer)), "words": _words(data_of(answer))}
    return {**told, **_body(answer.body.decode())}


def _recorded(exchange: dict[str, Any]) -> dict[str, Any]:
    response = exchange["response"]
    if response.get("status_line") is None:
        return {"status": None}
    headers = dict(response["headers"])
    told = {
        "status": int(response["status_line"].split()[1]),
        "content_type": headers["content-type"],
        "is_complete": response["end"] == "complete",
    }
    if "events" in response:
        events = [event["data"] for event in response["events"] if "data" in event]
        return {**told, "events": event_shapes(events), "words": _words(events)}
    return {**told, **_body(response["body"])}


def _body(text: str) -> dict[str, Any]:
    """What a plain answer looks like. One that the recording left out is known by its beginning only."""
    if LEFT_OUT_BODY in text or text.startswith(("<!DOCTYPE", '{"openapi"')):
        return {"body": "a page"}
    try:
        data = json.loads(text)
    except ValueError:
        return {"body": text}
    return {"body": body_shape(data), "words": _words([data])}


def _words(answers: list[Any]) -> list[str]:
    """TabbyAPI's own words in refusals and errors, without what differs each time."""
    details = [
        answer["detail"] for answer in answers if isinstance(answer, dict) and isinstance(answer.get("detail"), str)
    ]
    errors = [answer["error"]["message"] for answer in answers if isinstance(answer, dict) and "error" in answer]
    return [_ID.sub("ID", _ENGINE.sub("engine: ", _FOLDER.sub("FOLDER", text))) for text in [*details, *errors]]


_ID = re.compile(r"[0-9a-f]{32}")
_ENGINE = re.compile(r"^(stub engine|double): ")  # an engine's own words, made up on both sides
_FOLDER = re.compile(r"<MODELS_DIR>|/models\b")
