"""Adapters are built by kind, once each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gantry.runtimes.llama_server import LlamaServerRuntime
from gantry.runtimes.null import NullRuntime
from gantry.runtimes.registry import KINDS, RuntimeConfig, UnknownRuntimeKind, build_runtime


def test_kind_gives_its_class(tmp_path: Path) -> None:
    assert isinstance(build_runtime(RuntimeConfig("a", "null", state_dir=tmp_path)), NullRuntime)
    assert isinstance(build_runtime(RuntimeConfig("b", "llama_server", state_dir=tmp_path)), LlamaServerRuntime)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_row_names_its_own_kind(kind: str, tmp_path: Path) -> None:
    assert build_runtime(RuntimeConfig("a", kind, state_dir=tmp_path)).kind == kind


def test_same_configuration_gives_the_same_adapter_from_any_thread(tmp_path: Path) -> None:
    configs = [RuntimeConfig("a", "null", {"b": 1, "a": [2]}, tmp_path) for _ in range(20)]
    with ThreadPoolExecutor(8) as threads:
        assert len(set(map(id, threads.map(build_runtime, configs)))) == 1


def test_other_options_give_another_adapter(tmp_path: Path) -> None:
    first = build_runtime(RuntimeConfig("a", "null", {"load_seconds": 0}, tmp_path))
    assert build_runtime(RuntimeConfig("a", "null", {"load_seconds": 0.0, "verify_seconds": 0}, tmp_path)) is not first


def test_unknown_kind_is_refused_with_what_is_known() -> None:
    with pytest.raises(UnknownRuntimeKind, match="'steam'; known: llama_router, llama_server, null, tabby"):
        build_runtime(RuntimeConfig("a", "steam"))
