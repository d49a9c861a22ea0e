"""Broken and whole models, and a runtime that cleans up behind a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gantry.runtimes.llama_server import LlamaServerRuntime
from tests.integration.llama_server.helpers import (
    make_runtime,
)
from tests.tiny_gguf import write_not_gguf, write_tiny_model, write_truncated

MIB = 1024**2


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, a large one, and two that are broken."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "tiny.gguf")
    write_tiny_model(folder / "large.gguf", padding_bytes=600 * MIB)
    write_truncated(folder / "truncated.gguf")
    write_not_gguf(folder / "page.gguf")
    return folder


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LlamaServerRuntime]:
    """A runtime of its own; whatever a test leaves behind is ended."""
    runtime = make_runtime(tmp_path)
    yield runtime
    for instance in runtime.running():
        runtime.unload(instance.instance_id)
