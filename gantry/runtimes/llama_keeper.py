"""Keepers of llama-servers (llama_shim.py): starting them, and ending them with what they keep.

One keeper for each server, whether it serves one model or is a router. Everything that is known of it stands in its folder
(llama_instance.py), so that whoever comes later can end it as well as the worker that started it.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, cast

from gantry.runtimes import llama_shim
from gantry.runtimes.exceptions import UnloadFailed
from gantry.runtimes.llama_instance import InstanceFolder
from gantry.runtimes.process import ProcessMark, group_of, listens_on, wait_gone

POLL_SECONDS = 0.005  # a ready model waits this long at most before it is seen; a look costs 0.1 ms
START_SECONDS = 3.0  # for a keeper to write down whom it started
KILL_SECONDS = 2.0  # for the kernel to take a killed process away; a large one is torn down slowly
# The keeper's own time: the polite line, SIGTERM, SIGKILL, and the writing down.
KEEPER_SECONDS = llama_shim.POLITE_SECONDS + llama_shim.KILL_SECONDS + llama_shim.DRAIN_SECONDS + 1.0
LOG_LINES = 50


class _Spares:
    """A keeper that waits for its order: an interpreter takes longer to come up than all else that a start needs.

    One for the whole process, whoever takes it. It ends with this process, for then nobody can give it an order any more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: subprocess.Popen[bytes] | None = None

    def fill(self) -> None:
        """Have one wait. Where it cannot be started, whoever needs one will hear why."""
        with self._lock, contextlib.suppress(OSError):
            if self._waiting is not None and self._waiting.poll() is not None:
                _give(self._waiting, b"")
                self._waiting = None
            if self._waiting is None:
                self._waiting = _launch()

    def take(self) -> subprocess.Popen[bytes] | None:
        """The one that waits, if one does."""
        with self._lock:
            keeper, self._waiting = self._waiting, None
        return keeper


_spares = _Spares()


def ready_keeper() -> None:
    """Have a keeper at hand for a load that is about to come. Returns at once; nothing is started for any model yet."""
    threading.Thread(target=_spares.fill, name="spare-keeper", daemon=True).start()


def start_keeper(
    folder: InstanceFolder, environment: Mapping[str, str], *, waits: bool = False
) -> subprocess.Popen[bytes]:
    """The keeper of a server, with its order.

    Args:
        waits: the server is to wait, as far as it can come without its model, until `let_go`; it ends when `dismiss` comes
            instead, or this process ends.
    """
    # A router hears of its models by itself, and would take itself for one of another's.
    env = {**environment} if folder.spec.get("is_router") else {**environment, "LLAMA_SERVER_ROUTER_PORT": "1"}
    order = llama_shim.Order(str(folder.path), folder.spec["argv"], env, waits=waits).encode()
    keeper = _spares.take()
    if keeper is None or not _give(keeper, order, is_all=not waits):  # somebody may have ended it while it waited
        keeper = _launch()
        _give(keeper, order, is_all=not waits)
    return keeper


def let_go(folder: InstanceFolder, keeper: subprocess.Popen[bytes]) -> bool:
    """Let a server that waits go on. False when it did not wait but has ended: nothing is left of it, and nothing was written down."""
    if not _give(keeper, b"g"):
        return False
    _wait_started(folder, keeper)
    return folder.process is not None


def dismiss(keeper: subprocess.Popen[bytes]) -> None:
    """End a server that waits, and its keeper; returns when they are gone."""
    _give(keeper, b"")
    try:
        keeper.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()  # our own child and not collected yet; its server ends with its stdin


def _launch() -> subprocess.Popen[bytes]:
    """A keeper without an order, in a session of its own so that no signal to the worker's group reaches it."""
    keeper = subprocess.Popen(
        [sys.executable, "-S", "-E", "-s", llama_shim.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"LC_ALL": "C.UTF-8"},
        start_new_session=True,
    )
    # Collects it when it ends, so that no zombie stays for as long as this worker lives.
    threading.Thread(target=keeper.wait, name=f"keeper-{keeper.pid}", daemon=True).start()
    return keeper


def _give(keeper: subprocess.Popen[bytes], words: bytes, *, is_all: bool = True) -> bool:
    """Whether it took what it was told. When that is all, the pipe is closed."""
    pipe = cast("IO[bytes]", keeper.stdin)
    if pipe.closed:
        return False
    try:
        pipe.write(words)
        pipe.flush()
    except OSError:
        return False
    finally:
        if is_all:
            with contextlib.suppress(OSError):
                pipe.close()
    return True


def is_over(folder: InstanceFolder, keeper: subprocess.Popen[bytes]) -> bool:
    """Whether the server has ended, or never came to be."""
    if folder.has_ended:
        return True
    return keeper.poll() is not None and not folder.is_alive


def listens(folder: InstanceFolder) -> bool:
    """Whether the server itself, and nobody else, listens on its port."""
    child = folder.child
    return child is not None and any(listens_on(mark.pid, folder.spec["port"]) for mark in group_of(child))


def end_server(
    folder: InstanceFolder, starter: subprocess.Popen[bytes] | None = None, *, is_idle: bool = False
) -> None:
    """End a server and its keeper, whatever state they are in. Signals go only to processes proven ours.

    Args:
        is_idle: it is known to do nothing, so it is killed. It writes nothing down at its end; left to itself it gives back
            its memory piece by piece, which takes longer the larger it is, and the kernel does it at once.

    Raises:
        UnloadFailed: something outlived SIGKILL.
    """
    if starter is not None:
        _wait_started(folder, starter)
    keeper, child = folder.keeper, folder.child
    group = group_of(child) if child else []
    if is_idle:
        _send_all(group, signal.SIGKILL)
    if keeper is not None and keeper.is_alive:
        keeper.send(signal.SIGTERM)
        is_gone = wait_gone([keeper, *group], KEEPER_SECONDS)
    else:
        _send_all(group, signal.SIGTERM)
        is_gone = wait_gone(group, llama_shim.KILL_SECONDS)
    if not is_gone:
        _kill(folder, [*group, *([keeper] if keeper else [])])


def _wait_started(folder: InstanceFolder, starter: subprocess.Popen[bytes]) -> None:
    """Until the keeper has said whom it started; one that does not say so in time is ended itself."""
    deadline = time.monotonic() + START_SECONDS
    while folder.process is None and starter.poll() is None:
        if time.monotonic() > deadline:
            starter.kill()  # our own child and not collected yet; the server, if any, ends with its stdin
            return
        time.sleep(POLL_SECONDS)


def _kill(folder: InstanceFolder, marks: Sequence[ProcessMark]) -> None:
    _send_all(marks, signal.SIGKILL)
    if not wait_gone(marks, KILL_SECONDS):
        left = ", ".join(str(mark.pid) for mark in marks if mark.is_alive)
        raise UnloadFailed(f"Process {left} outlived SIGKILL.", log_tail=folder.log_tail(LOG_LINES))


def _send_all(marks: Sequence[ProcessMark], number: int) -> None:
    for mark in marks:
        mark.send(number)
