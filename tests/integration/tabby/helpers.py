"""Short forms for tests of the adapter."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gantry.runtimes.base import LoadProgress, LoadRequest
from gantry.runtimes.registry import RuntimeConfig
from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby import TabbyDouble

ALPHA, BETA, SLOW = "alpha-7b", "beta-13b", "slow-34b"
MOST_SIGNS = 300  # of a load that shows something else than what is waited for


def config_for(double: TabbyDouble, folder: Path, **changes: Any) -> RuntimeConfig:
    """How Gantry reaches a double."""
    given = {"url": double.url, "api_key": double.api_key, "admin_key": double.admin_key, "options": {}} | changes
    return RuntimeConfig("tabby", "tabby", state_dir=folder / "state", **given)


def runtime_for(double: TabbyDouble, folder: Path, **changes: Any) -> TabbyRuntime:
    """An adapter."""
    return TabbyRuntime(config_for(double, folder, **changes))


def ask(model_id: str, instance_id: str = "", **parameters: Any) -> LoadRequest:
    """A request for a load, under a new id unless one is given."""
    return LoadRequest(instance_id or str(uuid.uuid4()), model_id, Path(), 0, parameters)


def never() -> bool:
    """Nobody cancels."""
    return False


def run(runtime: TabbyRuntime, request: LoadRequest, is_cancelled: Callable[[], bool] = never) -> list[LoadProgress]:
    """A load to its end."""
    return list(runtime.load(request, is_cancelled))


def load(runtime: TabbyRuntime, model_id: str, **parameters: Any) -> str:
    """Load a model; gives its instance's id."""
    request = ask(model_id, **parameters)
    run(runtime, request)
    return request.instance_id


def wait_for(signs: Iterator[LoadProgress], detail: str) -> LoadProgress:
    """Follow a load until its words begin so."""
    seen = []
    for _, sign in zip(range(MOST_SIGNS), signs, strict=False):
        if sign.detail.startswith(detail):
            return sign
        seen.append(sign.detail)
    raise AssertionError(f"{detail!r} never came; seen were {list(dict.fromkeys(seen))}")
