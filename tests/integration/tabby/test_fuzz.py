"""2,000 answers that went wrong: the adapter raises nothing but its own errors, and every call ends.

Seeded: a case that fails is named by its number and fails again. The answers are the double's, and those of the real TabbyAPI where
recordings stand beside the project. They come through httpx and its parser of HTTP as they would from a socket, and a part of them
through real sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import httpcore
import httpx
import pytest
from typing_extensions import override

from gantry.runtimes.base import LoadProgress, LoadRequest
from gantry.runtimes.exceptions import RuntimeFault
from gantry.runtimes.registry import RuntimeConfig
from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby import Canned, TabbyDouble
from tests.integration.tabby.helpers import runtime_for
from tests.integration.tabby.mutations import Recorded, framed, mutate, recorded_from_captures, recorded_from_double
from tests.integration.tabby.test_double_replay import CAPTURES

CASES, BLOCKS, SOCKET_CASES = 2000, 10, 100
INSTANCE_ID = "5b9c0b0e-0000-4000-8000-000000000000"
REQUEST = LoadRequest(INSTANCE_ID, "alpha-7b", Path(), 0, {"draft_model": "draft-1b"})


@cache
def recordings() -> tuple[Recorded, ...]:
    """All answers that there are to be spoilt."""
    real = recorded_from_captures(CAPTURES) if CAPTURES.is_dir() else []
    return (*recorded_from_double(), *real)


class FuzzedStream(httpcore.NetworkStream):
    """One connection on which a bad day is had."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._answer: bytes | None = None
        self._at = 0

    @override
    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Take a request; the first line chooses what comes back."""
        if self._answer is None:
            self._answer = choose(self._random, buffer.split(b" ", 2)[1].decode())

    @override
    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The answer in pieces; then the end, or silence."""
        answer = self._answer or b""
        size = self._random.choice([1, 7, 1000, max_bytes]) if len(answer) - self._at < 3000 else max_bytes
        piece = answer[self._at : self._at + size]
        self._at += size
        if not piece and self._random.random() < 0.1:
            raise httpcore.ReadTimeout
        return piece

    @override
    def close(self) -> None:
        """Nothing is open."""

    @override
    def get_extra_info(self, info: str) -> Any:
        """None."""
        return None


class FuzzedBackend(httpcore.NetworkBackend):
    """A network of such connections."""

    def __init__(self, random: Random) -> None:
        self._random = random

    @override
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Mostly works."""
        if self._random.random() < 0.01:
            raise httpcore.ConnectError
        return FuzzedStream(self._random)


def choose(random: Random, path: str) -> bytes:
    """An answer for a path: right, or spoilt, or a spoilt one that belongs elsewhere."""
    fitting = [answer for answer in recordings() if answer.path == path]
    answer = random.choice(fitting if fitting and random.random() < 0.98 else recordings())
    return framed(random, answer) if random.random() < 0.7 else mutate(random, answer)


def transport_for(random: Random) -> httpx.HTTPTransport:
    """Httpx as it is, on a network that is not."""
    transport = httpx.HTTPTransport(verify=False)  # reading certificates takes longer than all the rest
    transport._pool = httpcore.ConnectionPool(max_keepalive_connections=0, network_backend=FuzzedBackend(random))
    return transport


def follow(runtime: TabbyRuntime) -> None:
    """A load; its figures must make sense whatever comes."""
    last = 0.0
    for sign in runtime.load(REQUEST, lambda: False):
        assert isinstance(sign, LoadProgress)
        assert last <= (sign.fraction or 0.0) <= 1
        last = sign.fraction or 0.0


def unload_all(runtime: TabbyRuntime) -> None:
    """Whatever there is."""
    for instance in runtime.running():
        runtime.unload(instance.instance_id)


CALLS: tuple[Callable[[TabbyRuntime], object], ...] = (
    follow,
    follow,
    follow,
    lambda runtime: runtime.running(),
    lambda runtime: runtime.models(),
    lambda runtime: runtime.check(),
    lambda runtime: runtime.check_load(REQUEST),
    lambda runtime: [runtime.verify(instance.instance_id) for instance in runtime.running()],
    unload_all,
)


def attempt(runtime: TabbyRuntime, random: Random, case: str) -> None:
    """One call. The adapter's own errors are fine, with words fit to be shown."""
    detail = "fine"
    try:
        random.choice(CALLS)(runtime)
    except RuntimeFault as fault:
        detail = fault.detail
    except Exception as exc:
        raise AssertionError(f"{case}: {exc!r}") from exc
    assert detail, case
    assert detail.isprintable(), case
    assert "fault of its own" not in detail, case


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gantry.runtimes.tabby_load.PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_spoilt_answers_never_raise_anything_else_and_every_call_ends(tmp_path: Path, block: int) -> None:
    for number in range(block, CASES, BLOCKS):
        random = Random(f"tabby-{number}")
        config = RuntimeConfig(
            "fuzz", "tabby", state_dir=tmp_path, url="http://tabby.test:5000", api_key="api-key", admin_key="admin-key"
        )
        attempt(TabbyRuntime(config, transport_for(random)), random, f"case {number}")


def test_spoilt_answers_over_real_sockets_are_no_different(double: TabbyDouble, tmp_path: Path) -> None:
    paths = {answer.path for answer in recordings()}
    runtime = runtime_for(double, tmp_path, options={"silence_seconds": 5})
    for number in range(SOCKET_CASES):
        random = Random(f"tabby-socket-{number}")
        double.canned = {path: Canned(choose(random, path), is_raw=True) for path in paths}
        attempt(runtime, random, f"socket case {number}")
