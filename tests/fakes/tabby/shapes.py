"""How an answer looks, without what it says: status, names and types of fields, order of events.

Two answers of equal shape are told apart by nobody who reads them as TabbyAPI's. Repeated events count once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

Shape = Any  # a type's name, a dict of shapes, or a list of shapes


@dataclass(frozen=True)
class RawAnswer:
    """What came over the wire, read by hand so that a broken answer can be looked at too."""

    status: int | None  # None: nothing came
    content_type: str
    body: bytes  # chunks put together
    is_complete: bool


def read_answer(data: bytes, *, is_head: bool = False) -> RawAnswer:
    """What a server has sent so far."""
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return RawAnswer(None, "", b"", is_complete=False)
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    status = int(first.split()[1])
    content_type = headers.get("content-type", "")
    if headers.get("transfer-encoding") == "chunked":
        joined, is_complete = _join_chunks(body)
        return RawAnswer(status, content_type, joined, is_complete)
    length = headers.get("content-length")
    return RawAnswer(status, content_type, body, is_head or length is None or len(body) >= int(length))


def _join_chunks(data: bytes) -> tuple[bytes, bool]:
    joined = b""
    while data:
        size, found, data = data.partition(b"\r\n")
        if not found or not size:
            break
        length = int(size, 16)
        if length == 0:
            return joined, True
        joined, data = joined + data[:length], data[length + 2 :]
    return joined, False


def events_of(body: bytes) -> list[Any]:
    """Data of the events, in order: JSON, or text that is none. Comments are left out."""
    lines = (line for line in body.decode().split("\r\n") if line.startswith("data: "))
    return [_event(line.removeprefix("data: ")) for line in lines]


def _event(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def shape_of(value: Any) -> Shape:
    """Names and types. Lists are the shapes of what is in them, each once."""
    if isinstance(value, dict):
        return {name: shape_of(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return _each_once([shape_of(item) for item in value])
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "flag"
    # A figure may be whole by chance, and a rate that cannot be told is a word.
    return "number" if isinstance(value, int | float) else "text"


def event_shapes(events: list[Any]) -> list[Shape]:
    """Shapes of events, runs of equal ones once; a load's steps carry their part and status."""
    return _each_once([_event_shape(event) for event in events], only_neighbours=True)


def _event_shape(event: Any) -> Shape:
    if isinstance(event, dict) and "model_type" in event:
        return f"{event['model_type']} {event['status']}" + (" 1/1" if event["modules"] == 1 else "")
    if isinstance(event, dict) and "usage" in event:
        return {**shape_of(event), "usage": sorted(event["usage"])}
    return event if isinstance(event, str) else shape_of(event)


def _each_once(shapes: list[Shape], *, only_neighbours: bool = False) -> list[Shape]:
    kept: list[Shape] = []
    for shape in shapes:
        if shape not in (kept[-1:] if only_neighbours else kept):
            kept.append(shape)
    return kept


def body_shape(data: Any) -> Shape:
    """Shape of a plain answer's JSON. What a usage measures may be a number or a word."""
    if isinstance(data, dict) and isinstance(data.get("usage"), dict):
        return {**shape_of(data), "usage": sorted(data["usage"])}
    return shape_of(data)
