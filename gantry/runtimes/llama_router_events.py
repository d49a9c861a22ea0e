"""The router's event stream, read in a thread of its own and opened anew whenever it breaks.

Source: GET /models/sse, llama.cpp tools/server/README.md and server-models.cpp, checked on builds 10068 and 11434. The first event of a
load is named `model_status`, as all are in the README; the later ones are named `status_change`. There is no replay and no ping, so
after a break the list is asked first, and the stream opened after that.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gantry.runtimes.exceptions import RuntimeFault
from gantry.runtimes.llama_router_client import EventStream, RouterClient
from gantry.runtimes.llama_router_models import READY, RouterModel, is_name

PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds before the stream is opened again; the last one for all further times
STATUS_EVENTS = frozenset({"model_status", "status_change"})
EVERY_MODEL = "*"
MOST_WAITING = 10_000  # events that nobody has taken; beyond, the oldest are dropped


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """Something happened to a model."""

    name: str  # the model's, or "*"
    status: str = ""  # "" when the event is not about its status
    progress: Mapping[str, Any] = field(default_factory=dict)  # stages, current, value

    @property
    def is_turn(self) -> bool:
        """Whether the list is worth a look: a load may have ended, one way or the other."""
        return self.status != "loading"

    @property
    def is_ready(self) -> bool:
        """Whether the model answers now."""
        return self.status in READY


def read_event(data: Mapping[str, Any]) -> ModelEvent | None:
    """One event; None when it tells nothing that can be used."""
    name, kind, body = data.get("model"), data.get("event"), data.get("data")
    if not is_name(name) or not isinstance(kind, str):
        return None
    body = body if isinstance(body, Mapping) else {}
    if kind not in STATUS_EVENTS:
        return ModelEvent(name)
    status, progress = body.get("status"), body.get("progress")
    if not isinstance(status, str):
        return None
    return ModelEvent(name, status, progress if isinstance(progress, Mapping) else {})


class EventFeed:
    """Follows the stream until it is closed; what comes is taken with `take`, by one thread."""

    def __init__(self, client: RouterClient) -> None:
        """Open nothing yet."""
        self._client = client
        self._found: queue.SimpleQueue[ModelEvent | list[RouterModel]] = queue.SimpleQueue()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._open = threading.Event()
        self._stream: EventStream | None = None
        self._thread = threading.Thread(target=self._run, name="llama-router-events", daemon=True)

    def start(self, seconds: float) -> None:
        """Open the stream, and give it some time: what happens before it is open is not seen. It is no error when it stays shut."""
        self._thread.start()
        self._open.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Until there is something to take, or the time is over."""
        self._news.wait(seconds)

    def take(self) -> list[ModelEvent | list[RouterModel]]:
        """What came since the last time, oldest first: events, and the whole list after each break."""
        self._news.clear()
        found = []
        while not self._found.empty():
            found.append(self._found.get_nowait())
        return found

    def close(self) -> None:
        """End the thread, also in the middle of a wait."""
        self._closing.set()
        if self._stream is not None:
            self._stream.close()
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        breaks = 0
        while not self._closing.is_set():
            try:
                if breaks:
                    self._put(self._client.models())
                with self._client.events() as stream:
                    self._stream = stream
                    self._open.set()
                    if self._closing.is_set():
                        return
                    for data in stream:
                        if (event := read_event(data)) is not None:
                            self._put(event)
                        breaks = 0
            except RuntimeFault:
                pass  # whoever follows the load asks the router too, and decides how long it may be away
            self._closing.wait(PAUSES[min(breaks, len(PAUSES) - 1)])
            breaks += 1

    def _put(self, item: ModelEvent | list[RouterModel]) -> None:
        if self._found.qsize() > MOST_WAITING:
            self._found.get_nowait()
        self._found.put(item)
        self._news.set()
