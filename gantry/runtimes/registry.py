"""Which class stands behind each kind of runtime. A new kind is one module and one row here."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from gantry.runtimes.base import Capabilities, Runtime


class UnknownRuntimeKind(Exception):
    """No adapter is registered under this kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"no runtime of kind {kind!r}; known: {', '.join(sorted(KINDS))}")
        self.kind = kind


@dataclass(frozen=True)
class RuntimeConfig:
    """What an adapter is built from."""

    name: str  # as people call it
    kind: str  # a key of KINDS
    options: Mapping[str, Any] = field(default_factory=dict)  # settings of this kind, JSON data
    state_dir: Path = Path()  # where it keeps what must outlive the process
    binary: Path | None = None  # the server program; None: looked for
    url: str = ""  # of a server that somebody else runs, without a path
    api_key: str = field(default="", repr=False)  # for what everybody may ask it
    admin_key: str = field(default="", repr=False)  # for loading and unloading, where that takes another key

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for configurations that mean the same adapter."""
        options = json.dumps(dict(self.options), sort_keys=True, default=str)
        return (
            self.name,
            self.kind,
            options,
            str(self.state_dir),
            str(self.binary),
            self.url,
            self.api_key,
            self.admin_key,
        )


class RuntimeFactory(Protocol):
    """What a row of KINDS names: a class that is built from a configuration."""

    def __call__(self, config: RuntimeConfig) -> Runtime:
        """The adapter. Starts nothing and asks nobody."""
        ...


# kind -> "module:class", imported on first use so that no process loads an adapter it never needs.
KINDS: dict[str, str] = {
    "llama_router": "gantry.runtimes.llama_router:LlamaRouterRuntime",
    "llama_server": "gantry.runtimes.llama_server:LlamaServerRuntime",
    "null": "gantry.runtimes.null:NullRuntime",
    "tabby": "gantry.runtimes.tabby:TabbyRuntime",
}

_built: dict[tuple[str, ...], Runtime] = {}
_lock = threading.Lock()


def build_runtime(config: RuntimeConfig) -> Runtime:
    """The adapter for a configuration; built once in each process, from any thread.

    Raises:
        UnknownRuntimeKind: nothing is registered under `config.kind`.
    """
    with _lock:
        runtime = _built.get(config.key)
        if runtime is None:
            runtime = _built[config.key] = _factory(config.kind)(config)
        return runtime


def capabilities_of(kind: str) -> Capabilities:
    """What a kind of runtime can do, without building one.

    Raises:
        UnknownRuntimeKind: nothing is registered under `kind`.
    """
    return cast("type[Runtime]", _factory(kind)).capabilities


def _factory(kind: str) -> RuntimeFactory:
    try:
        module, _, name = KINDS[kind].partition(":")
    except KeyError:
        raise UnknownRuntimeKind(kind) from None
    return cast("RuntimeFactory", getattr(import_module(module), name))
