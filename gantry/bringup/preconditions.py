"""What must be true before anything is started. Each function raises CannotStart with the remedy."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from gantry.bringup.exceptions import CannotStart


def take_locks(data_dir: Path, role: str, host: str) -> list[IO[str]]:
    """Claim a data directory for what `role` runs; the claim lasts as long as the files returned are open.

    The kernel drops a lock with the process that holds it, so nothing stale is ever left behind.
    """
    folder = data_dir / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return [_take_lock(folder / f"{name}.lock", data_dir) for name in _lock_names(role, host)]


def _lock_names(role: str, host: str) -> list[str]:
    """Two workers of one host would both own its models; two schedulers would do everything twice."""
    names = {"all": ["up", f"worker-{host}", "scheduler"], "worker": [f"worker-{host}"], "scheduler": ["scheduler"]}
    return names.get(role, [])


def _take_lock(path: Path, data_dir: Path) -> IO[str]:
    file = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        by = f" (process {holder})" if holder else ""
        raise CannotStart(
            f"Gantry already runs on {data_dir}{by}: end it first, or set GANTRY_DATA_DIR to another directory."
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def require_free_port(bind: str, port: int) -> None:
    """The web server can listen at this address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(bind.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as exc:
        raise CannotStart(
            f"GANTRY_BIND: there is no address {bind}: use one of this machine's, or 0.0.0.0 for all."
        ) from exc
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # else a connection that has just ended counts as use
        try:
            probe.bind(address)
        except OSError as exc:
            raise CannotStart(_port_sentence(exc, bind, port)) from exc


def _port_sentence(exc: OSError, bind: str, port: int) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"Port {port} is in use: set GANTRY_PORT to another one, or end the program that uses it."
    if exc.errno == errno.EACCES:
        return f"Port {port} is reserved for the system: set GANTRY_PORT to 1024 or more."
    if exc.errno == errno.EADDRNOTAVAIL:
        return f"GANTRY_BIND: {bind} is not an address of this machine: use one that is, or 0.0.0.0 for all."
    return f"Cannot listen at {bind}, port {port}: {exc.strerror}. Set GANTRY_BIND and GANTRY_PORT."


def require_models_dir(models_dir: Path, default: Path) -> None:
    """The folder of models is there; the default one is made, one that was named has to exist."""
    if models_dir == default:
        models_dir.mkdir(parents=True, exist_ok=True)
    elif not models_dir.is_dir():
        raise CannotStart(f"GANTRY_MODELS_DIR: {models_dir} is no folder: create it, or correct the path.")
