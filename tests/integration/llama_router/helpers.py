"""A real router that somebody else runs, for tests."""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from gantry.runtimes.base import LoadProgress, LoadRequest, RunningInstance, Runtime
from gantry.runtimes.llama_binary import ask_build, find_binary
from gantry.runtimes.llama_router import LlamaRouterRuntime
from gantry.runtimes.process import choose_port
from gantry.runtimes.registry import RuntimeConfig

KEY = "somebody-elses-key"
PATIENCE_SECONDS = 20.0
Sections = Mapping[str, Mapping[str, Any]]


class RealRouter:
    """llama-server in router mode with a preset of its own. A context manager."""

    def __init__(self, folder: Path, sections: Sections, *arguments: str, port: int = 0) -> None:
        """Take what it is to offer: name -> preset lines."""
        self.port = port or choose_port()
        self.preset = folder / "preset.ini"
        self._folder = folder
        self._arguments = arguments
        self.write(sections)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def write(self, sections: Sections) -> None:
        """Write its preset; it looks there at its start and when it is told to."""
        blocks = [
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())
            for name, lines in sections.items()
        ]
        self.preset.write_text("\n".join(blocks))

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        build = ask_build(find_binary(None))
        arguments = ["--models-preset", str(self.preset), "--host", "127.0.0.1", "--port", str(self.port)]
        self._log = (self._folder / "router.log").open("ab")
        self.process = subprocess.Popen(
            [str(build.path), *arguments, "--threads-http", "64", "--offline", *self._arguments],
            env={**build.environment(), "LLAMA_API_KEY": KEY, "LLAMA_CACHE": str(self._folder / "no-cache")},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        wait_for(self._is_up)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it with its models."""
        root = psutil.Process(self.process.pid)
        everything = [root, *root.children(recursive=True)]
        self.process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(everything, timeout=5)
        for process in left:
            process.kill()
        self.process.wait()
        self._log.close()

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Ask it as another client would."""
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.request(method, f"{self.url}{path}", headers=headers, timeout=10, trust_env=False, **options)
        return answer.json()

    def status(self, name: str) -> dict[str, Any]:
        """What it says of one model."""
        rows = self.ask("GET", "/models")["data"]
        return dict(next(row["status"] for row in rows if row["id"] == name))

    def load(self, name: str) -> None:
        """Have somebody else load a model."""
        assert self.ask("POST", "/models/load", json={"model": name}) == {"success": True}
        wait_for(lambda: self.status(name)["value"] == "loaded")

    def unload(self, name: str) -> None:
        """Have somebody else unload a model."""
        assert self.ask("POST", "/models/unload", json={"model": name}) == {"success": True}
        wait_for(lambda: self.status(name)["value"] == "unloaded")

    def chat(self, name: str) -> Any:
        """Have somebody else ask a model something."""
        return self.ask("POST", "/v1/completions", json={"model": name, "prompt": "Hello", "max_tokens": 1})

    def kill_model(self, name: str) -> None:
        """Let a model's process die, and wait until the router has noticed."""
        for process in psutil.Process(self.process.pid).children():
            if name in process.cmdline():
                process.kill()
        wait_for(lambda: self.status(name)["value"] == "unloaded")

    def _is_up(self) -> bool:
        assert self.process.poll() is None, (self._folder / "router.log").read_text()[-2000:]
        try:
            return httpx.get(f"{self.url}/health", trust_env=False, timeout=1).status_code == 200
        except httpx.TransportError:
            return False


def attach(tmp_path: Path, url: str, *, name: str = "there", **changes: Any) -> LlamaRouterRuntime:
    """An adapter for somebody else's router."""
    values = {"api_key": KEY, "state_dir": tmp_path / "state", **changes}
    return LlamaRouterRuntime(RuntimeConfig(name, "llama_router", url=url, **values))


def own(tmp_path: Path, **changes: Any) -> LlamaRouterRuntime:
    """An adapter that starts a router itself."""
    return LlamaRouterRuntime(RuntimeConfig("own", "llama_router", state_dir=tmp_path / "own", **changes))


def request_for(path: Path, **changes: Any) -> LoadRequest:
    values: dict[str, Any] = {
        "instance_id": str(uuid.uuid4()),
        "model_id": path.stem,
        "path": path,
        "file_bytes": path.stat().st_size if path.exists() else 1,
        "parameters": {"ctx_size": 256, "threads": 1},
    }
    return LoadRequest(**{**values, **changes})


def wait_for(is_so: Callable[[], bool]) -> None:
    """Until it is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def load(runtime: Runtime, request: LoadRequest) -> list[LoadProgress]:
    return list(runtime.load(request, lambda: False))


def only(runtime: Runtime) -> RunningInstance:
    (instance,) = runtime.running()
    return instance


def end_all(runtime: Runtime) -> None:
    """Leave nothing behind."""
    for instance in runtime.running():
        runtime.unload(instance.instance_id)
