"""The least that a switch can be: end one llama-server, start another, ask it for a token. No Gantry."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import psutil

from tests.functional.stack import free_port

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """A command line and environment, as Gantry starts a model with them."""

    argv: Sequence[str]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, pid: int, folder: Path) -> Recipe:
        """Read from a running process. Files that lie in its instance's folder go with it, so they are copied to `folder`."""
        process = psutil.Process(pid)
        home = process.cwd()
        argv = [
            str(shutil.copy(word, folder / f"{pid}-{Path(word).name}")) if word.startswith(f"{home}/") else word
            for word in process.cmdline()
        ]
        if "--api-key-file" in argv:  # by which Gantry lets it wait; this server waits for nobody
            at = argv.index("--api-key-file")
            argv[at : at + 2] = []
        # LLAMA_SERVER_ROUTER_PORT makes it tell its keeper of its progress and wait for its word: there is no keeper here.
        given = {name: value for name, value in process.environ().items() if name != "LLAMA_SERVER_ROUTER_PORT"}
        return cls(argv, given)

    def on_port(self, port: int) -> list[str]:
        """The command line with another port; every other flag stays."""
        words = list(self.argv)
        words[words.index("--port") + 1] = str(port)
        return words


@dataclass(frozen=True, slots=True)
class BareSwitch:
    """One switch; seconds."""

    stop: float
    load: float
    verify: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.stop + self.load + self.verify


class BareScript:
    """What somebody would write in an afternoon; at most one server at a time."""

    def __init__(self, log: Path) -> None:
        """Servers write to `log`, as those of Gantry do to theirs."""
        self._log: IO[bytes] = log.open("wb")
        self._server: subprocess.Popen[bytes] | None = None

    def switch(self, to: Recipe) -> BareSwitch:
        """End what runs, start a model, poll /health every 50 ms, ask for one token."""
        begun = time.perf_counter()
        self.stop()
        stopped = time.perf_counter()
        url, key = self._start(to)
        loaded = time.perf_counter()
        self._ask_for_token(url, key)
        return BareSwitch(stopped - begun, loaded - stopped, time.perf_counter() - loaded)

    def stop(self) -> None:
        """SIGTERM, and wait until it is gone."""
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(PATIENCE_SECONDS)
            finally:
                self._server.kill()
        self._server = None

    def close(self) -> None:
        """End what runs."""
        self.stop()
        self._log.close()

    def _start(self, recipe: Recipe) -> tuple[str, str]:
        port = free_port()
        self._server = subprocess.Popen(
            recipe.on_port(port),
            env=dict(recipe.environment),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=Path(self._log.name).parent,
        )
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._is_ready(url):
            assert self._server.poll() is None, (
                f"the bare server ended with {self._server.returncode}: {self._log.name}"
            )
            assert time.monotonic() < deadline, "the bare server does not become ready"
            time.sleep(POLL_SECONDS)
        return url, recipe.environment.get("LLAMA_API_KEY", "")

    def _is_ready(self, url: str) -> bool:
        try:
            return _HTTP.get(f"{url}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def _ask_for_token(self, url: str, key: str) -> None:
        body = {"prompt": "Hello", "max_tokens": 1, "n": 1, "temperature": 0}
        headers = {"Authorization": f"Bearer {key}"}
        answer = _HTTP.post(f"{url}/v1/completions", json=body, headers=headers, timeout=PATIENCE_SECONDS)
        assert answer.json()["usage"]["completion_tokens"] == 1, answer.text


# One for all requests, without idle connections: a client of its own for each costs more than the request.
_HTTP = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)
