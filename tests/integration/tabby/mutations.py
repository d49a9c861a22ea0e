"""Answers of TabbyAPI, and what a bad day makes of them: truncated, reordered, wrong types, huge numbers, invalid UTF-8."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from tests.fakes.tabby import TabbyDouble
from tests.fakes.tabby.shapes import RawAnswer
from tests.fakes.tabby.talk import chat, data_of, load, request

STREAM = "text/event-stream; charset=utf-8"


@dataclass(frozen=True)
class Recorded:
    """An answer: where it was given, and its parts. A stream's parts are its events, a plain answer has one."""

    path: str
    status: int
    content_type: str
    parts: tuple[bytes, ...]

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of events."""
        return self.content_type.startswith("text/event-stream")


def recorded_from_double() -> list[Recorded]:
    """Answers of the double to everything that the adapter asks."""
    with TabbyDouble(module_seconds=0.0) as double:
        found = [_take("/v1/model", request(double, "GET", "/v1/model").read())]
        for name, options in (
            ("alpha-7b", {"draft_model": {"draft_model_name": "draft-1b"}}),
            ("vision-9b", {"vision": True}),
            ("broken-8b", {}),
            ("lateoom-30b", {}),
            ("none", {}),
            ("alpha-7b", {}),
            ("alpha-7b", {}),
        ):
            found.append(_take("/v1/model/load", load(double, name, **options).read()))
        found.append(_take("/v1/chat/completions", chat(double, stream_options={"include_usage": True}).read()))
        for path in ("/v1/model", "/health", "/.well-known/serviceinfo"):
            found.append(_take(path, request(double, "GET", path).read()))
        for path in ("/v1/model/list", "/v1/auth/permission"):
            found.append(_take(path, request(double, "GET", path, headers={"x-api-key": double.admin_key}).read()))
        found.append(_take("/v1/model/unload", request(double, "POST", "/v1/model/unload").read()))
    return found


def recorded_from_captures(folder: Path) -> list[Recorded]:
    """Answers of the real TabbyAPI, where recordings of them stand beside the project."""
    found = []
    for path in sorted(folder.glob("*.json")):
        for exchange in json.loads(path.read_text())["exchanges"]:
            response = exchange["response"]
            if response.get("status_line"):
                found.append(_from_capture(exchange["request"]["raw"].split(" ")[1], response))
    return found


def _take(path: str, answer: RawAnswer) -> Recorded:
    assert answer.status is not None
    if answer.content_type.startswith("text/event-stream"):
        parts = tuple(_event(data) for data in data_of(answer))
        return Recorded(path, answer.status, answer.content_type, parts)
    return Recorded(path, answer.status, answer.content_type, (answer.body,))


def _from_capture(path: str, response: dict[str, Any]) -> Recorded:
    status = int(response["status_line"].split()[1])
    content_type = dict(response["headers"])["content-type"]
    if "events" in response:
        parts = tuple(_event(event["data"]) if "data" in event else b": ping\r\n\r\n" for event in response["events"])
        return Recorded(path, status, content_type, parts)
    return Recorded(path, status, content_type, (response["body"].encode(),))


def _event(data: Any) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data)
    return f"data: {text}\r\n\r\n".encode()


# What may happen to an answer

JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**400,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "x" * 5000,
    "\ud800",
    "\x00\x1b[31m\r\n",
    [],
    {},
    [[[]]],
    {"detail": {"detail": []}},
)
Change = Callable[[Random, Recorded], Recorded]


def mutate(random: Random, answer: Recorded) -> bytes:
    """The answer as it comes over the wire after one to four mishaps."""
    for _ in range(random.randint(1, 4)):
        answer = random.choice(_CHANGES)(random, answer)
    return _damage_bytes(random, framed(random, answer))


def framed(random: Random, answer: Recorded) -> bytes:
    """HTTP around an answer: chunked, counted, or ended by closing."""
    head = f"HTTP/1.1 {answer.status} X\r\ncontent-type: {answer.content_type}\r\n"
    body = b"".join(answer.parts)
    way = random.choice(["chunked", "counted", "closed"])
    if way == "chunked":
        chunks = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in answer.parts if part)
        return f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"
    counted = f"content-length: {len(body)}\r\n" if way == "counted" else ""
    return f"{head}{counted}connection: close\r\n\r\n".encode() + body


def _damage_bytes(random: Random, raw: bytes) -> bytes:
    roll = random.random()
    if roll < 0.15:
        return raw[: random.randrange(len(raw) + 1)]
    if roll < 0.25:
        where = random.randrange(len(raw))
        return raw[:where] + bytes([random.randrange(256)]) + raw[where + 1 :]
    if roll < 0.3:
        where = raw.find(b"\r\n") + 2
        return raw[:where] + b"content-encoding: gzip\r\n" + raw[where:]
    return raw


def _reorder(random: Random, answer: Recorded) -> Recorded:
    parts = [*answer.parts]
    random.shuffle(parts)
    return replace(answer, parts=tuple(parts))


def _repeat(random: Random, answer: Recorded) -> Recorded:
    part = random.choice(answer.parts or (b"",))
    times = random.choice([1, 3, 300]) if len(part) < 10_000 else 1
    return replace(answer, parts=(*answer.parts, *[part] * times))


def _drop(random: Random, answer: Recorded) -> Recorded:
    kept = tuple(part for part in answer.parts if random.random() < 0.7)
    return replace(answer, parts=kept)


def _cut(random: Random, answer: Recorded) -> Recorded:
    parts = tuple(part[: random.randrange(len(part) + 1)] if random.random() < 0.3 else part for part in answer.parts)
    return replace(answer, parts=parts)


def _spoil_text(random: Random, answer: Recorded) -> Recorded:
    junk = random.choice(
        [b"\xff\xfe", b"\xc3", b"\x00", b"\xed\xa0\x80", b"{" * 3000, b"[" * 200_000, b"9" * 5000, b"\n", b"data:"]
    )
    return replace(answer, parts=tuple(_insert(random, part, junk) for part in answer.parts))


def _insert(random: Random, part: bytes, junk: bytes) -> bytes:
    if random.random() < 0.6:
        return part
    where = random.randrange(len(part) + 1)
    return part[:where] + junk + part[where:]


def _wrong_types(random: Random, answer: Recorded) -> Recorded:
    return replace(answer, parts=tuple(_rewrite(random, part) for part in answer.parts))


def _rewrite(random: Random, part: bytes) -> bytes:
    start = b"data: " if part.startswith(b"data: ") else b""
    try:
        data = json.loads(part.removeprefix(start))
    except (ValueError, RecursionError):
        return part
    changed = _change_value(random, data)
    end = b"\r\n\r\n" if start else b""
    return start + json.dumps(changed).encode(errors="replace") + end


def _change_value(random: Random, data: Any) -> Any:
    if random.random() < 0.15:
        return random.choice(JUNK)
    if isinstance(data, dict):
        return {name: _change_value(random, value) for name, value in data.items() if random.random() < 0.95}
    if isinstance(data, list):
        return [_change_value(random, value) for value in data]
    return data


def _other_head(random: Random, answer: Recorded) -> Recorded:
    status = random.choice([200, 200, 204, 302, 400, 401, 404, 422, 500, 503, 599])
    content_type = random.choice([answer.content_type, STREAM, "application/json", "text/html", "x"])
    return replace(answer, status=status, content_type=content_type)


_CHANGES: tuple[Change, ...] = (_reorder, _repeat, _drop, _cut, _spoil_text, _wrong_types, _wrong_types, _other_head)
