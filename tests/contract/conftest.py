"""One bench for each kind of runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.cases import Bench, Case, parameters, write_models


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(params=parameters())
def bench(request: pytest.FixtureRequest, tmp_path: Path, model_files: Path) -> Iterator[Bench]:
    """Each kind in turn."""
    case: Case = request.param
    with case.bench(tmp_path, model_files) as bench:
        yield bench


@pytest.fixture(params=parameters(only_remote=True))
def remote(request: pytest.FixtureRequest, tmp_path: Path, model_files: Path) -> Iterator[Bench]:
    """Each kind whose server is reached over the network."""
    case: Case = request.param
    with case.bench(tmp_path, model_files) as bench:
        yield bench
