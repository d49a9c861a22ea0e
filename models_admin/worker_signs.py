"""Signs of life of the workers: one sorted set in the broker, host -> when its worker was last heard of.

Written by each worker every two seconds, from the same loop that takes its messages, so that a worker which hangs falls silent too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache

import redis
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

log = structlog.get_logger(__name__)

KEY = "gantry:workers"
GONE_KEY = (
    "gantry:workers:gone"  # host -> since when it has no worker: when that ended in order, or when it was first missed
)
SILENT_AFTER_SECONDS = 10.0  # five signs missed
PATIENCE_SECONDS = 1.0  # for the broker's answer


@cache
def _client() -> redis.Redis:
    """One client with a pool of connections for each process. No retries: whoever asks for health wants the answer now."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_connect_timeout=PATIENCE_SECONDS,
        socket_timeout=PATIENCE_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def note_alive(host: str) -> None:
    """Note that the worker of `host` lives. A broker that is away is logged; the next sign comes soon."""
    try:
        _client().zadd(KEY, {host: time.time()})
    except redis.RedisError as exc:
        log.warning("worker_sign_lost", host=host, reason=str(exc))


def note_ended(host: str) -> None:
    """Note that the worker of `host` ends, so that nobody waits for its silence."""
    try:
        _client().zrem(KEY, host)
        _client().zadd(GONE_KEY, {host: time.time()})
    except redis.RedisError as exc:
        log.warning("worker_sign_lost", host=host, reason=str(exc))


def living_hosts() -> list[str]:
    """Hosts whose worker was heard of within the last seconds.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    return [str(host) for host in _client().zrangebyscore(KEY, time.time() - SILENT_AFTER_SECONDS, "+inf")]


def silent_hosts(hosts: Sequence[str], for_seconds: float) -> list[str]:
    """Those of these hosts whose worker has not been heard of for so long; a host never heard of counts from the first question on.

    Raises:
        redis.RedisError: the broker does not answer.
    """
    now = time.time()
    signs = dict(zip(hosts, _client().zmscore(KEY, list(hosts)), strict=True))
    never_heard = {host: now for host, sign in signs.items() if sign is None}
    if never_heard:
        _client().zadd(GONE_KEY, never_heard, nx=True)
    gone = dict(zip(hosts, _client().zmscore(GONE_KEY, list(hosts)), strict=True))
    return [host for host in hosts if now - max(signs[host] or 0.0, gone[host] or 0.0) >= for_seconds]
