"""How long connections to the database stay open in the web server."""

from __future__ import annotations

import threading
from typing import Any

from django.core.signals import request_finished
from django.db import DatabaseError, connection, connections

_held: list[Any] = []


def hold_open() -> None:
    """Keep a connection open for as long as this process lives. Nothing is done with it, and other databases need none.

    Each request has a connection of its own. With SQLite, the last one to be closed moves the write-ahead log back into the database and
    removes it, and everybody waits meanwhile: without this one, after many a request.
    """
    if connection.vendor != "sqlite":
        return
    try:
        _held.append(connection.get_new_connection(connection.get_connection_params()))
    except DatabaseError:  # whoever asks something of it says so
        return


def close_with_requests() -> None:
    """Have each request close its connection when it ends: its thread ends too, and nobody else could ever use it."""
    request_finished.connect(_close, dispatch_uid="gantry.open_database")


def _close(**_signal: Any) -> None:
    if threading.current_thread() is not threading.main_thread():  # which stays, and so does its connection
        connections.close_all()
