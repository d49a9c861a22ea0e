"""A double with quick models, one whose time a test moves by hand, and adapters for both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby import TabbyDouble
from tests.integration.tabby.helpers import runtime_for


@pytest.fixture
def double() -> Iterator[TabbyDouble]:
    """Loads take some hundredths of a second."""
    with TabbyDouble(module_seconds=0.002) as double:
        yield double


@pytest.fixture
def manual() -> Iterator[TabbyDouble]:
    """Time stands still until a test advances it: a module takes 1 s, in slow-34b 4.2 s, an unload 1 s."""
    with TabbyDouble(is_manual=True, module_seconds=1.0) as double:
        yield double


@pytest.fixture
def runtime(double: TabbyDouble, tmp_path: Path) -> TabbyRuntime:
    """The adapter for the quick double."""
    return runtime_for(double, tmp_path)


@pytest.fixture
def followed(manual: TabbyDouble, tmp_path: Path) -> TabbyRuntime:
    """The adapter for the double whose time is moved by hand."""
    return runtime_for(manual, tmp_path)


@pytest.fixture
def open_runtime(tmp_path: Path) -> Callable[[TabbyDouble], TabbyRuntime]:
    """A second adapter on the same folder, as another process of Gantry has one."""
    return lambda double: runtime_for(double, tmp_path)
