"""Tells people where to go, once there is something to see."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

ASK_EVERY_SECONDS = 0.3
PATIENCE_SECONDS = 45.0


def url_of(bind: str, port: int) -> str:
    """Where a browser on this machine finds Gantry."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}  # noqa: S104 - compared with, not bound to
    host = everywhere.get(bind, f"[{bind}]" if ":" in bind and not bind.startswith("[") else bind)
    return f"http://{host}:{port}/"


class Announcer:
    """Asks the web server now and then whether all is ready, and says the lines once, when it is.

    Called on each turn of the supervisor, so that no thread runs beside its forks.
    """

    def __init__(self, url: str, lines: Sequence[str], say: Callable[[str], None]) -> None:
        self._url = urlsplit(url)  # empty: there is nothing to ask, and the lines are said at once
        self._lines = lines
        self._say = say
        self._is_done = False
        self._next_at = 0.0
        self._impatient_at = time.monotonic() + PATIENCE_SECONDS

    def __call__(self) -> None:
        """Look, when it is time to."""
        now = time.monotonic()
        if self._is_done or now < self._next_at:
            return
        self._next_at = now + ASK_EVERY_SECONDS
        if self._is_ready():
            self._is_done = True
            for line in self._lines:
                self._say(line)
        elif now > self._impatient_at:
            self._impatient_at = now + PATIENCE_SECONDS
            self._say(f"Not ready yet: {self._url.geturl()} tells what is missing, the lines above perhaps why")

    def _is_ready(self) -> bool:
        if not self._url.hostname:
            return True
        connection = http.client.HTTPConnection(self._url.hostname, self._url.port, timeout=1)
        try:
            connection.request("GET", self._url.path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
