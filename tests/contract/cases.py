"""Every kind of runtime, each with what a test needs to put it through the contract. A new kind is one more entry in CASES."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes import llama_client, llama_router_client, llama_router_load, tabby_client
from gantry.runtimes.base import LoadRequest, Runtime
from gantry.runtimes.llama_router import LlamaRouterRuntime
from gantry.runtimes.llama_server import LlamaServerRuntime
from gantry.runtimes.null import Failure, NullRuntime, null_world, reset_null_worlds
from gantry.runtimes.registry import RuntimeConfig
from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby.server import TabbyDouble
from tests.fakes.unreliable import UnreliableProxy
from tests.integration.llama_router.helpers import KEY, RealRouter, end_all
from tests.tiny_gguf import write_tiny_model, write_truncated

MIB = 1024**2
Role = str  # small, other, slow, broken, absent


@dataclass(frozen=True)
class Bench:
    """A runtime of one kind, ready to be tested."""

    build: Callable[[], Runtime]  # a fresh adapter each time, as another process would build it
    request: Callable[[Role], LoadRequest]
    crash: Callable[[str], None] | None = None  # let the process of an instance die; None where nobody would be told
    load_elsewhere: Callable[[Role], None] | None = None  # by another client; None where there are none
    unload_elsewhere: Callable[[Role], None] | None = None
    proxy: UnreliableProxy | None = None  # between adapter and server; None where there is no network
    build_at: Callable[[str], Runtime] | None = None  # an adapter for another address
    hurry: Callable[[pytest.MonkeyPatch], None] = lambda _: None  # wait less long for what never comes


Build = Callable[[Path, Path], AbstractContextManager[Bench]]  # own folder, folder with model files


@dataclass(frozen=True)
class Case:
    """One kind of runtime."""

    name: str
    bench: Build
    is_remote: bool = False  # its server is somebody else's, over the network
    marks: tuple[pytest.MarkDecorator, ...] = ()


def write_models(folder: Path) -> Path:
    """The files that the roles are read from."""
    write_tiny_model(folder / "small.gguf")
    write_tiny_model(folder / "other.gguf", seed=1)
    write_tiny_model(folder / "slow.gguf", padding_bytes=600 * MIB)
    write_truncated(folder / "broken.gguf")
    return folder


def _request(model_id: str, path: Path, **values: Any) -> LoadRequest:
    size = path.stat().st_size if path.is_file() else 1000
    return LoadRequest(instance_id=str(uuid.uuid4()), model_id=model_id, path=path, file_bytes=size, **values)


# null


@contextmanager
def _null(tmp_path: Path, models: Path) -> Generator[Bench]:
    world = null_world(tmp_path)
    world.load_seconds = 0.1
    world.failures["broken"] = Failure(fraction=0.5)
    world.failures["absent"] = Failure(ErrorCode.NOT_DOWNLOADED)
    world.refused["absent"] = ErrorCode.NOT_DOWNLOADED
    try:
        yield Bench(
            build=lambda: NullRuntime(RuntimeConfig("null", "null", state_dir=tmp_path)),
            request=lambda role: _request(role, models / f"{role}.gguf"),
            crash=world.crash,
        )
    finally:
        reset_null_worlds()


# llama-server, a process for each model

_PARAMETERS = {"ctx_size": 256, "threads": 1, "no_mmap": True}


def _llama_request(models: Path) -> Callable[[Role], LoadRequest]:
    return lambda role: _request(role, models / f"{role}.gguf", parameters=_PARAMETERS)


def _crash(build: Callable[[], Runtime]) -> Callable[[str], None]:
    def crash(instance_id: str) -> None:
        pid = next(each.pid for each in build().running() if each.instance_id == instance_id)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    return crash


@contextmanager
def _llama_server(tmp_path: Path, models: Path) -> Generator[Bench]:
    def build() -> Runtime:
        return LlamaServerRuntime(RuntimeConfig("local", "llama_server", state_dir=tmp_path))

    try:
        yield Bench(build, _llama_request(models), crash=_crash(build))
    finally:
        end_all(build())


# llama-server as a router, Gantry's own and somebody else's


@contextmanager
def _own_router(tmp_path: Path, models: Path) -> Generator[Bench]:
    def build() -> Runtime:
        return LlamaRouterRuntime(RuntimeConfig("own", "llama_router", state_dir=tmp_path))

    try:
        yield Bench(build, _llama_request(models), crash=_crash(build))
    finally:
        end_all(build())


@contextmanager
def _attached_router(tmp_path: Path, models: Path) -> Generator[Bench]:
    lines = {"ctx-size": 256, "threads": 1, "no-mmap": "true"}
    roles = ("small", "other", "slow", "broken")
    sections = {role: {"model": str(models / f"{role}.gguf"), **lines} for role in roles}
    with RealRouter(tmp_path, sections) as router, UnreliableProxy(router.url) as proxy:

        def build_at(url: str) -> Runtime:
            config = RuntimeConfig("there", "llama_router", state_dir=tmp_path / "state", url=url, api_key=KEY)
            return LlamaRouterRuntime(config)

        def crash(instance_id: str) -> None:
            (instance,) = (each for each in build_at(proxy.url).running() if each.instance_id == instance_id)
            router.kill_model(instance.model_id)

        yield Bench(
            build=lambda: build_at(proxy.url),
            request=lambda role: _request(role, Path(), parameters={"ctx_size": 256}),
            crash=crash,
            load_elsewhere=router.load,
            unload_elsewhere=router.unload,
            proxy=proxy,
            build_at=build_at,
            hurry=_hurry_router,
        )


def _hurry_router(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(llama_router_client, "QUICK_SECONDS", 0.4)
    patch.setattr(llama_router_client, "CHANGE_SECONDS", 0.4)
    patch.setattr(llama_client, "QUICK_SECONDS", 0.4)
    patch.setattr(llama_client, "VERIFY_SECONDS", 0.4)
    patch.setattr(llama_router_load, "AWAY_SECONDS", 0.4)


# TabbyAPI

_TABBY = {"small": "small-ctx-1b", "other": "alpha-7b", "slow": "slow-34b", "broken": "broken-8b", "absent": "nowhere"}


@contextmanager
def _tabby(tmp_path: Path, _: Path) -> Generator[Bench]:
    with TabbyDouble() as double, UnreliableProxy(double.url) as proxy:

        def build_at(url: str) -> Runtime:
            config = RuntimeConfig(
                "tabby", "tabby", state_dir=tmp_path, url=url, api_key=double.api_key, admin_key=double.admin_key
            )
            return TabbyRuntime(config)

        yield Bench(
            build=lambda: build_at(proxy.url),
            request=lambda role: _request(_TABBY[role], Path()),
            load_elsewhere=lambda role: double.put(_TABBY[role]),
            unload_elsewhere=lambda _: double.drop(),
            proxy=proxy,
            build_at=build_at,
            hurry=_hurry_tabby,
        )


def _hurry_tabby(patch: pytest.MonkeyPatch) -> None:
    for name in ("QUICK_SECONDS", "UNLOAD_SECONDS", "VERIFY_SECONDS", "SILENCE_SECONDS"):
        patch.setattr(tabby_client, name, 0.4)


_LLAMA = (pytest.mark.llama,)
CASES = (
    Case("null", _null),
    Case("llama_server", _llama_server, marks=_LLAMA),
    Case("llama_router", _own_router, marks=_LLAMA),
    Case("llama_router_attached", _attached_router, is_remote=True, marks=_LLAMA),
    Case("tabby", _tabby, is_remote=True),
)


def parameters(*, only_remote: bool = False) -> Iterator[Any]:
    """The cases as pytest takes them."""
    for case in CASES:
        if case.is_remote or not only_remote:
            yield pytest.param(case, id=case.name, marks=case.marks)
