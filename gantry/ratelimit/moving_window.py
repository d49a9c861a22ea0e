"""The `limits` library's moving window: on Redis or Valkey, or in the memory of one process (`memory://`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from limits import RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import MovingWindowRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

from gantry.ratelimit.base import Limiter, LimiterAway, NullLimiter, Refusal, Window

PATIENCE_SECONDS = 1.0  # for the answer of Redis: somebody waits, and a database row is locked meanwhile
_NAMESPACE = "gantry"


@cache
def limiter_for(url: str) -> Limiter:
    """The limiter of this process for a place to count at: redis://, rediss://, unix://, memory://, or nothing for no limits."""
    return MovingWindowLimiter(url) if url else NullLimiter()


class MovingWindowLimiter:
    """Keeps the moments of the last uses of each window, and asks and adds in one step of Redis.

    Looking at several windows and using them are two steps. Two processes that pass the look at the same time can therefore spend
    one window before the other turns out to be full; more than the limit is never let through.
    """

    def __init__(self, url: str) -> None:
        options: dict[str, Any] = {} if url.startswith("memory:") else _redis_options()
        storage = storage_from_string(url.replace("unix://", "redis+unix://"), wrap_exceptions=True, **options)
        self._limiter = MovingWindowRateLimiter(storage)

    def take(self, windows: Sequence[Window]) -> Refusal | None:
        """One of each window, or none of any."""
        try:
            full = [window for window in windows if not self._limiter.test(_item(window), window.key)]
            full = full or [window for window in windows if not self._limiter.hit(_item(window), window.key)]
            refusals = [Refusal(window, self._wait_seconds(window)) for window in full]
        except StorageError as exc:
            raise LimiterAway(str(exc)) from exc
        return max(refusals, key=lambda refusal: refusal.wait_seconds, default=None)

    def _wait_seconds(self, window: Window) -> float:
        return max(0.0, self._limiter.get_window_stats(_item(window), window.key).reset_time - time.time())


def _item(window: Window) -> RateLimitItemPerSecond:
    # The figure is part of the key: a limit that was changed begins to count anew.
    return RateLimitItemPerSecond(window.most, window.seconds, namespace=_NAMESPACE)


def _redis_options() -> dict[str, Any]:
    return {
        "socket_connect_timeout": PATIENCE_SECONDS,
        "socket_timeout": PATIENCE_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
