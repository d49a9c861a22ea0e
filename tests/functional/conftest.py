"""One running Gantry for all functional tests that do not end it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.functional.stack import Stack, start_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Web server, worker and scheduler with a data folder of their own; no models."""
    running = start_stack(tmp_path_factory.mktemp("stack"))
    yield running
    running.stop()
