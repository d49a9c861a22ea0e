"""A network between a client and a server that goes wrong in a chosen way, and right again. Real sockets on loopback."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

BLOCK = 65_536
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Trouble(Enum):
    """What a client meets instead of the server."""

    REFUSED = "nothing listens"
    SILENT = "no answer comes"
    RESET = "the connection closes at once"
    ERROR = "500, without a reason"
    HTML = "a page to sign in, with status 200"
    CUT_JSON = "half an answer, sent as if it were whole"
    BROKEN_OFF = "half an answer, then the connection breaks"
    ENDLESS = "an answer that never ends"
    DRIP = "an answer that comes byte by byte, for ever"
    GARBAGE = "something that is no HTTP"


class UnreliableProxy:
    """Passes everything on to `upstream` until `trouble` is set. A context manager."""

    def __init__(self, upstream: str) -> None:
        """Take the address of the server behind it."""
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._trouble: Trouble | None = None
        self._listener = _listen(0)
        self.port: int = self._listener.getsockname()[1]
        self.heads: list[bytes] = []  # first line of each request on a new connection, oldest first

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong now; None: nothing."""
        return self._trouble

    @trouble.setter
    def trouble(self, trouble: Trouble | None) -> None:
        was_shut = self._trouble is Trouble.REFUSED
        self._trouble = trouble
        if trouble is Trouble.REFUSED and not was_shut:
            self._stop_listening()
        elif was_shut and trouble is not Trouble.REFUSED:
            self._listener = _listen(self.port)
            self._accept_in_thread()
        self.cut()

    def cut(self) -> None:
        """Break all connections, in the middle of whatever they carry."""
        with self._lock:
            sockets = [*self._open]
        for each in sockets:
            _close(each)

    def __enter__(self) -> Self:
        """Listen."""
        self._accept_in_thread()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._trouble = Trouble.REFUSED
        self._stop_listening()
        self.cut()

    def _stop_listening(self) -> None:
        _close(self._listener)

    def _accept_in_thread(self) -> None:
        threading.Thread(target=self._accept, args=[self._listener], name="proxy", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], name="proxy-connection", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._held(client), contextlib.suppress(OSError):
            trouble = self._trouble
            if trouble is None:
                self._pass_on(client)
            elif trouble is not Trouble.RESET:
                client.recv(BLOCK)
                ANSWERS[trouble](client)

    def _pass_on(self, client: socket.socket) -> None:
        with socket.create_connection(self._upstream, timeout=10) as server, self._held(server):
            server.settimeout(None)
            first = client.recv(BLOCK)
            self.heads.append(first.partition(b"\r\n")[0])
            server.sendall(first)
            back = threading.Thread(target=_pump, args=[server, client], daemon=True)
            back.start()
            _pump(client, server)
            back.join()

    @contextlib.contextmanager
    def _held(self, each: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(each)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(each)
            _close(each)


def _listen(port: int) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), backlog=50)


def _close(each: socket.socket) -> None:
    """Also under a thread that waits in it."""
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(BLOCK):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def _say(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda client: client.sendall(answer)


def _silence(client: socket.socket) -> None:
    client.recv(BLOCK)


def _endless(client: socket.socket) -> None:
    client.sendall(JSON_HEAD + b"Connection: close\r\n\r\n")
    while True:
        client.sendall(b'data: {"data": [' + b" " * BLOCK)


def _drip(client: socket.socket) -> None:
    client.sendall(JSON_HEAD + b"Connection: close\r\n\r\n")
    client.settimeout(0.02)
    for byte in itertools.cycle(b'{"data": [ '):
        client.sendall(bytes([byte]))
        with contextlib.suppress(TimeoutError):
            if not client.recv(BLOCK):
                return


_PAGE = b"<!doctype html><title>Sign in</title>"
_HALF = b'{"data": [{"id": "tin'
ANSWERS: dict[Trouble, Callable[[socket.socket], None]] = {
    Trouble.SILENT: _silence,
    Trouble.ERROR: _say(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    Trouble.HTML: _say(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(_PAGE) + _PAGE
    ),
    Trouble.CUT_JSON: _say(JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(_HALF) + _HALF),
    Trouble.BROKEN_OFF: _say(JSON_HEAD + b"Content-Length: 5000\r\n\r\n" + _HALF),
    Trouble.ENDLESS: _endless,
    Trouble.DRIP: _drip,
    Trouble.GARBAGE: _say(b"\x00\xff\x16\x03 nothing of use\r\n\r\n"),
}
