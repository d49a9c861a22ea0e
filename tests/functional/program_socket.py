"""A program's WebSocket over a real connection (RFC 6455, client side), without a library that would hide what the server does."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE_SECONDS = 60.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class ProgramSocket:
    """One connection; it answers pings while it reads."""

    def __init__(self, url: str, path: str, **headers: str) -> None:
        """Connect to a path of Gantry, whose address ends with a slash. An underscore in a header's name stands for a dash."""
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), timeout=PATIENCE_SECONDS)
        self._stream = self._socket.makefile("rb")
        lines = [
            f"GET /{path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            "Sec-WebSocket-Version: 13",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self.status = int(self._stream.readline().split()[1])
        while self._stream.readline().strip():
            pass
        self.close_code: int | None = None

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """End the connection."""
        self._stream.close()
        self._socket.close()

    def send(self, **message: Any) -> None:
        """Send a message as JSON."""
        self.send_frame(TEXT, json.dumps(message).encode())

    def send_frame(self, kind: int, payload: bytes) -> None:
        """Send one masked frame."""
        mask, size = os.urandom(4), len(payload)
        if size < 126:
            head = struct.pack("!BB", 0x80 | kind, 0x80 | size)
        elif size < 65536:
            head = struct.pack("!BBH", 0x80 | kind, 0x80 | 126, size)
        else:
            head = struct.pack("!BBQ", 0x80 | kind, 0x80 | 127, size)
        repeated = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        self._socket.sendall(head + mask + masked)

    def next(self) -> dict[str, Any] | None:
        """The next message; None when the server has closed, then with its code in `close_code`: None if it hung up without a word."""
        while True:
            kind, payload = self._frame()
            if kind == TEXT:
                message: dict[str, Any] = json.loads(payload)
                return message
            if kind == CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big") or None
                return None
            if kind == PING:
                self.send_frame(PONG, payload)

    def until(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        """Every message up to the next of this type with these values, it included.

        Raises:
            AssertionError: the connection was closed before.
        """
        messages: list[dict[str, Any]] = []
        while True:
            message = self.next()
            assert message is not None, f"closed with {self.close_code} after {messages}"
            messages.append(message)
            if message["type"] == kind and all(message[name] == value for name, value in fields.items()):
                return messages

    def _frame(self) -> tuple[int, bytes]:
        try:
            head = self._stream.read(2)
        except ConnectionResetError:
            head = b""
        first, second = head or (CLOSE, 0)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._stream.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._stream.read(8))
        return first & 0x0F, self._stream.read(size)
