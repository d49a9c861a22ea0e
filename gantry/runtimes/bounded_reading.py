"""Reading what a server sends, within bounds: of size, of time, of patience.

httpx bounds each wait and nothing else, and what splits its bytes into lines keeps a line until it ends, however long it is. A server that goes on for ever must
cost neither memory nor a worker.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from typing import Any

LARGEST_ANSWER = 4_000_000  # bytes
LONGEST_LINE = 1_000_000  # bytes
LONGEST_WORDS = 300  # characters of a message that is shown
LARGEST_STREAM = 64_000_000  # bytes of one load; pings for a day are below a megabyte


class UnreadableError(ValueError):
    """What came cannot be read."""


def read_all(chunks: Iterable[bytes], deadline: float) -> bytes:
    """A whole body.

    Args:
        deadline: on the monotonic clock.

    Raises:
        UnreadableError: it is too large, or drips on past the deadline.
    """
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > LARGEST_ANSWER or time.monotonic() > deadline:
            raise UnreadableError("the answer does not end")
    return bytes(body)


def read_json(data: bytes) -> Any:
    """JSON, whatever else it is.

    Raises:
        UnreadableError: it is none.
    """
    try:
        return json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError) as exc:
        raise UnreadableError("the answer is not JSON") from exc


class EventLines:
    """The data of an event stream that comes in pieces. TabbyAPI and llama-server send each event in one line."""

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """What the `data:` lines hold that this piece completes. Comments and other fields are passed over.

        Raises:
            UnreadableError: a line does not end.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise UnreadableError("the stream does not end")
        fields = (line.strip().partition(b":") for line in lines)
        return [value.strip() for name, _, value in fields if name == b"data"]


def read_events(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """JSON objects in the `data:` lines of an event stream. Comments and what is no JSON object are passed over.

    Raises:
        UnreadableError: a line or the stream does not end.
    """
    lines, total = EventLines(), 0
    for chunk in chunks:
        total += len(chunk)
        if total > LARGEST_STREAM:
            raise UnreadableError("the stream does not end")
        yield from (event for data in lines.feed(chunk) if (event := _event(data)) is not None)


def _event(data: bytes) -> dict[str, Any] | None:
    try:
        event = read_json(data)
    except UnreadableError:
        return None
    return event if isinstance(event, dict) else None


def one_line(value: Any) -> str:
    """Somebody else's text, fit to be shown: one line, printable, not too long."""
    text = value if isinstance(value, str) else ""
    text = "".join(char if char.isprintable() else " " for char in text[: 4 * LONGEST_WORDS])
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_WORDS else text[: LONGEST_WORDS - 1] + "…"
