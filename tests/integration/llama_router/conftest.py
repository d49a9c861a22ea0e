"""The two real models of the demo, tiny and broken ones, and routers that clean up behind a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gantry.bringup.demo import assemble_gemma, link_smollm2
from gantry.runtimes.llama_router import LlamaRouterRuntime
from tests.fakes.unreliable import UnreliableProxy
from tests.integration.llama_router.helpers import RealRouter, attach, end_all, own
from tests.tiny_gguf import write_not_gguf, write_tiny_model, write_truncated

MIB = 1024**2
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1"
GEMMA = "gemma-3-270m-q4_k_m"
LINES = {"ctx-size": 256, "threads": 1}


def say_nothing(_: str) -> None:
    pass


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two real models, a tiny and a slow one, and two that are broken."""
    folder = tmp_path_factory.mktemp("models")
    link_smollm2(folder / f"{SMOLLM2}.gguf", say_nothing)
    assemble_gemma(folder / f"{GEMMA}.gguf", say_nothing)
    write_tiny_model(folder / "tiny.gguf")
    write_tiny_model(folder / "slow.gguf", padding_bytes=600 * MIB)
    write_truncated(folder / "truncated.gguf")
    write_not_gguf(folder / "page.gguf")
    return folder


def sections_of(models: Path) -> dict[str, dict[str, object]]:
    """What somebody else's router offers."""
    names = (SMOLLM2, GEMMA, "tiny", "slow", "truncated", "page")
    return {name: {"model": models / f"{name}.gguf", **LINES} for name in names}


@pytest.fixture
def router(tmp_path: Path, models: Path) -> Iterator[RealRouter]:
    """Somebody else's router, which loads by itself what its clients ask for."""
    with RealRouter(tmp_path, sections_of(models)) as router:
        yield router


@pytest.fixture
def attached(tmp_path: Path, router: RealRouter) -> LlamaRouterRuntime:
    """Gantry's view of it."""
    return attach(tmp_path, router.url)


@pytest.fixture
def proxy(router: RealRouter) -> Iterator[UnreliableProxy]:
    """The network on the way there."""
    with UnreliableProxy(router.url) as proxy:
        yield proxy


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LlamaRouterRuntime]:
    """A router of Gantry's own; whatever a test leaves behind is ended."""
    runtime = own(tmp_path)
    yield runtime
    end_all(runtime)
