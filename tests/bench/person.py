"""A person in front of Gantry: signed in, with the Models tab open, who clicks Load and waits until the page says that it is done.

Everything goes through the doors that a browser uses: the same form, the same session, the same WebSocket.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import httpx

from tests.functional.stack import ADMIN_NAME, ADMIN_PASSWORD

PATIENCE_SECONDS = 120.0
_JOB = re.compile(r"/admin/switches/(\d+)/")
_PANEL = re.compile(r'id="switch-panel" class="([^"]*)"')
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class SwitchFailed(Exception):
    """A switch did not end well; holds what the page said."""


@dataclass(frozen=True, slots=True)
class Click:
    """One request as its asker saw it; instants in seconds since the epoch, so that they can be laid beside those of rows."""

    job: int
    asked_at: float
    shown_at: float  # the page said that it is done

    @property
    def seconds(self) -> float:
        """From the click to the page's word."""
        return self.shown_at - self.asked_at


class Person:
    """Signs in and opens the Models tab."""

    def __init__(self, url: str) -> None:
        """Take Gantry's address, which ends with a slash."""
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        token = self._token(self._http.get("sign-in/").text)
        form = {"username": ADMIN_NAME, "password": ADMIN_PASSWORD, "csrfmiddlewaretoken": token}
        assert self._http.post("sign-in/", data=form).status_code == 302, "the administrator cannot sign in"
        self._csrf = self._token(self._http.get("admin/models/").text)
        self._page = PageSocket(url, "ws/models/", dict(self._http.cookies))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Close the page."""
        self._page.close()
        self._http.close()

    def switch(self, model: int) -> Click:
        """Make a model the active one, by its primary key, and wait until the page says that it is.

        Raises:
            SwitchFailed: it did not become active.
        """
        return self._click(f"admin/models/{model}/switch/")

    def restart(self, model: int) -> Click:
        """Unload a model and load it again, and wait until the page says so.

        Raises:
            SwitchFailed: it was not loaded.
        """
        return self._click(f"admin/models/{model}/restart/")

    def _click(self, address: str) -> Click:
        headers = {"HX-Request": "true", "X-CSRFToken": self._csrf}
        self._http.get(address, headers=headers)  # the dialog that asks; answering it is what is timed
        asked_at = time.time()
        answer = self._http.post(address, headers=headers)
        found = _JOB.search(answer.text)
        if answer.status_code != 200 or found is None:
            raise SwitchFailed(f"{address}: {answer.status_code}\n{answer.text}")
        job = int(found[1])
        self._wait_for_end(job)
        return Click(job, asked_at, time.time())

    def _wait_for_end(self, job: int) -> None:
        for text in self._page.texts():
            panel = _PANEL.search(text)
            if panel is None or f"/admin/switches/{job}/" not in text:
                continue
            if "g-panel--green" in panel[1]:
                return
            if "g-panel--red" in panel[1] or "g-panel--quiet" in panel[1]:
                raise SwitchFailed(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)))
        raise SwitchFailed("the page's connection was closed")

    @staticmethod
    def _token(html: str) -> str:
        found = re.search(r'(?:name="csrfmiddlewaretoken" value="|"X-CSRFToken": ")([^"]+)"', html)
        assert found, "the page holds no CSRF token"
        return found[1]


class PageSocket:
    """The reading half of a WebSocket (RFC 6455), which is all that a page of Gantry needs."""

    def __init__(self, url: str, path: str, cookies: dict[str, str]) -> None:
        """Connect with a browser's session."""
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        lines = [
            f"GET /{path} HTTP/1.1",
            f"Host: {parts.netloc}",
            f"Origin: {parts.scheme}://{parts.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            "Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items()),
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        status = self._stream.readline()
        assert b" 101 " in status, f"the WebSocket was refused: {status!r}"
        while self._stream.readline().strip():
            pass

    def texts(self) -> Iterator[str]:
        """Each message as it comes, until the connection ends; pings are answered on the way."""
        whole = b""
        while frame := self._frame():
            is_last, opcode, data = frame
            if opcode == _CLOSE:
                return
            if opcode == _PING:
                self._socket.sendall(bytes([0x80 | _PONG, 0x80 | len(data), 0, 0, 0, 0]) + data)  # masked with zeros
            elif opcode <= _TEXT:
                whole += data
                if is_last:
                    yield whole.decode()
                    whole = b""

    def close(self) -> None:
        """Go without a word, as a browser that is closed does."""
        with suppress(OSError):
            self._stream.close()
            self._socket.close()

    def _frame(self) -> tuple[bool, int, bytes] | None:
        head = self._stream.read(2)
        if len(head) < 2:
            return None
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self._stream.read(2 if size == 126 else 8), "big")
        return bool(head[0] & 0x80), head[0] & 0x0F, self._stream.read(size)
