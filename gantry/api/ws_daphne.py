"""What lies below a connection of Daphne, for what ASGI has no word for.

Daphne's `send` is `partial(handle_reply, protocol)`; with any other server, none of this is there and nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST_REASON_BYTES = 123  # of a control frame, behind the code
GOODBYE_SECONDS = 10  # in which a slow sender gets to the end of what is too large


def transport_of(send: Any) -> Any:
    """Twisted's transport of a connection, by the `send` that the server itself gave; None for any other server."""
    transport = getattr(_protocol_of(send), "transport", None)
    return transport if hasattr(transport, "registerProducer") else None


def say_what_is_too_large(send: Any) -> None:
    """Have a connection closed with code 1009 and a reason when a message is larger than the server reads (1 MiB).

    By itself Daphne drops it, which looks like a fault of the network. Now the rest of the message is thrown away as it comes, so that
    whoever has sent it can read the answer. Whatever else breaks the protocol is dropped as before: not all of that is thrown away, and
    a stranger could fill the memory with it.

    Source: https://autobahn.readthedocs.io/en/latest/websocket/programming.html; Daphne has no setting for `failByDrop`
    """
    protocol = _protocol_of(send)
    begin = getattr(protocol, "onMessageFrameBegin", None)  # where the length is looked at
    if begin is None:
        return

    def begin_frame(length: int) -> None:
        with _changed(protocol, failByDrop=False, closeHandshakeTimeout=GOODBYE_SECONDS):
            begin(length)

    protocol.onMessageFrameBegin = begin_frame


def close_with_any_code(send: Any) -> None:
    """Have a connection close with whatever code it is told, such as 1011 and 1013: “try again”.

    Autobahn keeps applications to 1000 and what begins at 3000, Daphne passes on every code, and a close that Autobahn refuses is an
    error of the application: the connection ends with another code, or not at all where the error is taken for “it is gone already”.

    Source: RFC 6455, 7.4; `WebSocketProtocol.sendClose` of Autobahn 26.10
    """
    protocol = _protocol_of(send)
    send_frame = getattr(protocol, "sendCloseFrame", None)
    if send_frame is None:
        return

    def send_close(code: int | None = None, reason: str | None = None) -> None:
        text = reason.encode()[:MOST_REASON_BYTES] if reason else None
        send_frame(code=code, reasonUtf8=text, isReply=False)

    protocol.sendClose = send_close


@contextmanager
def _changed(protocol: Any, **options: object) -> Iterator[None]:
    before = {name: getattr(protocol, name) for name in options}
    vars(protocol).update(options)
    try:
        yield
    finally:
        vars(protocol).update(before)


def _protocol_of(send: Any) -> Any:
    return next(iter(getattr(send, "args", ())), None)
