"""All that waits: for memory, for a call that blocks, for signs of a load, for a file that is read ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gantry.engine.effects import Effects
from gantry.engine.terms import Limits
from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadProgress, LoadRequest, Runtime

POLL_SECONDS = 0.05
NO_ROOM_SECONDS = 0.5  # after which a load that stands by is in doubt: what is missing may be what it holds itself
STAND_BY_SECONDS = 5.0  # for what is prepared to be started; far more than that takes
READ_AHEAD_END_SECONDS = 2.0  # for a read to notice that it is not wanted any more; a disk that hangs is left alone

T = TypeVar("T")


def wait_for_free(
    effects: Effects,
    wanted_bytes: int,
    devices: Sequence[str],
    seconds: float,
    *,
    is_over: Callable[[], bool],
    tell: Callable[[float], None] = lambda _fraction: None,
) -> int:
    """Poll the memory until so much is free, the time is up, or it is over; gives what is free then, enough or not.

    Args:
        tell: told how much of what is missing has come, 0 to 0.99, at each look.

    Raises:
        RuntimeFault: the memory cannot be read.
    """
    deadline = effects.monotonic() + seconds
    first = free = effects.free_bytes(devices)
    while free < wanted_bytes and effects.monotonic() <= deadline and not is_over():
        tell(min(0.99, max(0.0, (free - first) / (wanted_bytes - first))))
        effects.sleep(POLL_SECONDS)
        free = effects.free_bytes(devices)
    return free


class Aside(Generic[T]):
    """A call that blocks for long, made in a thread of its own so that whoever waits for it can leave.

    What the call gives or raises after that is nobody's business any more. The thread is a daemon: it keeps no worker from ending.
    """

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call = call
        self._is_done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def is_done(self, wait_seconds: float) -> bool:
        """Whether it has ended, within so much (real) time."""
        return self._is_done.wait(wait_seconds)

    def result(self) -> T | None:
        """What it gave, or raises what it raised; None before it has ended."""
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as exc:  # noqa: BLE001 # raised again where the result is asked for
            self._error = exc
        finally:
            self._is_done.set()


class ReadAhead:
    """Reads what the next load will read while something else still has to be waited for. It can fail nobody."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._is_unwanted = threading.Event()
        self._reading: Aside[int] | None = None

    def begin(self, request: LoadRequest) -> None:
        """Start, unless it has been started before."""
        if self._reading is None:
            self._reading = Aside(lambda: self._runtime.prefetch(request, self._is_unwanted.is_set), "read-ahead")

    def end(self) -> None:
        """Make it stop, and wait for that, not for long."""
        self._is_unwanted.set()
        if self._reading is not None:
            self._reading.is_done(READ_AHEAD_END_SECONDS)


class StandBy:
    """A load that is prepared while what has to make room for it goes. It can fail nobody."""

    def __init__(self, runtime: Runtime, effects: Effects) -> None:
        self._runtime = runtime
        self._effects = effects
        self._preparing: Aside[None] | None = None
        self._waited_since: float | None = None

    def begin(self, request: LoadRequest) -> None:
        """Start, unless it has been started before."""
        if self._preparing is None:
            self._preparing = Aside(lambda: self._runtime.prepare(request), "stand-by")

    def ready(self) -> None:
        """Return when it stands by: the load may begin."""
        if self._preparing is not None:
            self._preparing.is_done(STAND_BY_SECONDS)

    def no_room(self) -> None:
        """The memory is still not free. After a while it is dropped, in case that is the reason; the load then begins from its beginning."""
        now = self._effects.monotonic()
        self._waited_since = self._waited_since or now
        if now - self._waited_since >= NO_ROOM_SECONDS:
            self.drop()

    def drop(self) -> None:
        """End it where no load has taken it over."""
        if self._preparing is not None:
            self.ready()
            self._runtime.drop_prepared()
            self._preparing = None


class StallWatch:
    """Ends a load that shows no sign of progress, or that takes longer than any load may."""

    def __init__(self, effects: Effects, limits: Limits) -> None:
        self._effects = effects
        self._limits = limits
        self._began_at = self._moved_at = effects.monotonic()
        self._last: tuple[object, ...] = ()
        self.over_code: ErrorCode | None = None

    def see(self, progress: LoadProgress) -> None:
        """Note what the load says; only a change counts as a sign."""
        now = self._effects.monotonic()
        sign = (progress.stage, progress.fraction, progress.bytes_done, progress.detail)
        if sign != self._last:
            self._last, self._moved_at = sign, now
        if now - self._moved_at > self._limits.stall_seconds:
            self.over_code = ErrorCode.LOAD_STALLED
        elif now - self._began_at > self._limits.load_seconds:
            self.over_code = ErrorCode.LOAD_TIMEOUT

    @property
    def is_over(self) -> bool:
        """The load is to be ended."""
        return self.over_code is not None
