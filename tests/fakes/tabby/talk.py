"""Raw requests to the double over plain sockets: sent at once, read when a test wants to, left when it wants to."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping
from typing import Any

from tests.fakes.tabby.server import PATIENCE_SECONDS, TabbyDouble
from tests.fakes.tabby.shapes import RawAnswer, events_of, read_answer


class Exchange:
    """One request, and what has come back."""

    def __init__(self, double: TabbyDouble, raw: bytes) -> None:
        """Send it; returns when the double has read it and has done what it does at once."""
        self._double = double
        self._data = b""
        self._is_head = raw.startswith(b"HEAD ")
        self.is_over = False  # the server closed, or the client left
        self.is_refused = False  # nobody listened
        count = len(double.requests)
        try:
            self._socket = socket.create_connection(("127.0.0.1", double.port), PATIENCE_SECONDS)
        except ConnectionRefusedError:
            self.is_refused = self.is_over = True
            return
        self._socket.sendall(raw)
        double.wait_for(lambda: len(double.requests) > count)

    def look(self) -> RawAnswer:
        """What has come so far."""
        if not self.is_over:
            self._socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while not self.is_over:
                    self._take()
        return read_answer(self._data, is_head=self._is_head)

    def read(self) -> RawAnswer:
        """What came until the server closed.

        Raises:
            TimeoutError: it did not.
        """
        if not self.is_over:
            self._socket.settimeout(PATIENCE_SECONDS)
        while not self.is_over:
            self._take()
        return read_answer(self._data, is_head=self._is_head)

    def leave(self) -> None:
        """Close before the end; returns when the double has noticed."""
        if self.is_over:
            return
        count = self._double.departures
        self.is_over = True
        self._socket.close()
        self._double.wait_for(lambda: self._double.departures > count)

    def close(self) -> None:
        """Be done with it."""
        if not self.is_refused:
            self._socket.close()

    def _take(self) -> None:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._data += data
        if not data:
            self.is_over = True
            self._socket.close()


def request(
    double: TabbyDouble, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Exchange:
    """A request with both keys where they belong, unless `headers` are given."""
    keys = (
        {"x-admin-key": double.admin_key}
        if path in {"/v1/model/load", "/v1/model/unload"}
        else {"x-api-key": double.api_key}
    )
    data = b"" if body is None else json.dumps(body).encode()
    lines = {"Host": "double", **(keys if headers is None else headers)}
    if body is not None:
        lines |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return Exchange(double, f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)


def load(double: TabbyDouble, name: str, **options: Any) -> Exchange:
    """Ask for a load."""
    return request(double, "POST", "/v1/model/load", {"model_name": name, **options})


def chat(double: TabbyDouble, text: str = "hello", **options: Any) -> Exchange:
    """Ask for an answer."""
    body = {"messages": [{"role": "user", "content": text}], **options}
    return request(double, "POST", "/v1/chat/completions", body)


def data_of(answer: RawAnswer) -> Any:
    """Events of a stream, JSON of a plain answer, or its text."""
    if answer.content_type.startswith("text/event-stream"):
        return events_of(answer.body)
    if answer.content_type.startswith("application/json") and answer.body:
        return json.loads(answer.body)
    return answer.body.decode()
