"""What lies below a connection of Daphne, for what ASGI has no word for.

Daphne's `send` is `partial(handle_reply, protocol)`; with any other server, none of this is there and nothing is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
