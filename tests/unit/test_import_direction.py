"""Imports go downwards only. Reads the tree; nothing is imported.

A module belongs to the entry of LAYERS with the longest prefix. It may import what stands lower, and its own layer, except
that edges (layer 4) do not import each other: they meet in actions and querysets.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gantry", "models_admin")
EDGE, COMPOSITION = 4, 5

# prefix -> (layer, name of the edge); prefixes with the same name are parts of one edge.
LAYERS: dict[str, tuple[int, str]] = {
    "gantry.planning": (0, ""),
    "gantry.env": (1, ""),
    "gantry.secret_key": (1, ""),
    "gantry.logs": (1, ""),
    "gantry.once": (1, ""),
    "gantry.runtimes": (1, ""),
    "gantry.hardware": (1, ""),
    "gantry.modelfiles": (1, ""),
    "gantry.ratelimit": (1, ""),
    "gantry.engine": (2, ""),
    "gantry.live": (3, ""),
    "models_admin": (3, ""),  # everything that is not named below
    "models_admin.templatetags": (3, ""),  # how figures are written: every edge writes them the same way
    "models_admin.admin": (EDGE, "admin pages"),
    "models_admin.admin_site": (EDGE, "admin pages"),
    "models_admin.admin_audit": (EDGE, "admin pages"),
    "models_admin.admin_people": (EDGE, "admin pages"),
    "models_admin.admin_policy": (EDGE, "admin pages"),
    "models_admin.admin_readonly": (EDGE, "admin pages"),
    "models_admin.admin_runtime": (EDGE, "admin pages"),
    "models_admin.forms": (EDGE, "admin pages"),
    "models_admin.urls": (EDGE, "admin pages"),
    "models_admin.views": (EDGE, "admin pages"),
    "models_admin.consumers": (EDGE, "sockets"),
    "models_admin.tasks": (EDGE, "tasks"),
    "models_admin.management": (EDGE, "commands"),
    "gantry.management": (EDGE, "commands"),
    "gantry.bringup": (EDGE, "commands"),
    "gantry.chat": (EDGE, "chat"),
    "gantry.gateway": (EDGE, "gateway"),
    "gantry.api": (EDGE, "api"),
    # Composition: wires the parts together and is imported by none of them.
    "gantry.apps": (COMPOSITION, ""),
    "gantry.asgi": (COMPOSITION, ""),
    "gantry.celery": (COMPOSITION, ""),
    "gantry.checks": (COMPOSITION, ""),
    "gantry.middleware": (COMPOSITION, ""),
    "gantry.open_database": (COMPOSITION, ""),
    "gantry.routing": (COMPOSITION, ""),
    "gantry.settings": (COMPOSITION, ""),
    "gantry.urls": (COMPOSITION, ""),
    "models_admin.apps": (COMPOSITION, ""),
    "gantry": (0, ""),  # the package itself, which holds nothing
}
# What pure code may import: nothing that reads a clock, a file or the network.
PURE = {
    "__future__",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "statistics",
    "typing",
}


def layer_of(module: str) -> tuple[int, str]:
    """Layer and edge of a module."""
    matching = [prefix for prefix in LAYERS if module == prefix or module.startswith(f"{prefix}.")]
    return LAYERS[max(matching, key=len)]


def modules() -> dict[str, Path]:
    """Every module of the product, migrations left out."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if "migrations" not in parts:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, source: str, known: set[str], *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, imported module) of each import, also those inside functions and for type checkers only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node, is_package=is_package)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in known else base


def _absolute(module: str, node: ast.ImportFrom, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    above = parts[: len(parts) - node.level + is_package]
    return ".".join([*above, *([node.module] if node.module else [])])


def faults_in(module: str, source: str, known: set[str], *, is_package: bool = False) -> list[str]:
    """What a module's imports do wrong."""
    layer, edge = layer_of(module)
    faults = []
    for line, imported in imports_of(module, source, known, is_package=is_package):
        top = imported.partition(".")[0]
        if top in PACKAGES:
            other_layer, other_edge = layer_of(imported)
            if other_layer > layer:
                faults.append(f"{module}:{line} climbs from layer {layer} to {imported} in layer {other_layer}")
            elif layer == other_layer == EDGE and edge != other_edge:
                faults.append(f"{module}:{line}, part of {edge}, imports {imported}, part of {other_edge}")
        elif top in {"httpx", "httpx_sse"} and not module.startswith("gantry.runtimes"):
            faults.append(f"{module}:{line} imports {imported}, which only gantry.runtimes may")
        elif module.startswith("gantry.planning") and top not in PURE:
            faults.append(f"{module}:{line} imports {imported}; planning is pure")
    return faults


def test_tree_imports_downwards_only() -> None:
    paths = modules()
    known = set(paths)
    faults = [
        fault
        for module, path in paths.items()
        for fault in faults_in(module, path.read_text(encoding="utf-8"), known, is_package=path.name == "__init__.py")
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gantry.engine.runner", "from models_admin import actions"),
        ("gantry.engine.runner", "def late():\n    import models_admin.models"),
        (
            "gantry.planning.planner",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from gantry.runtimes.base import Runtime",
        ),
        ("gantry.planning.planner", "from ..runtimes import base"),
        ("models_admin.actions", "from models_admin.tasks import run_job"),
        ("models_admin.views.status", "from gantry.chat.models import Conversation"),
        ("gantry.chat.views", "from models_admin import consumers"),
        ("models_admin.recovery", "import gantry.settings"),
        ("models_admin.catalog", "import httpx"),
        ("gantry.chat.views", "from httpx_sse import connect_sse"),
        ("gantry.planning.planner", "import time"),
    ],
)
def test_made_up_fault_is_caught(module: str, source: str) -> None:
    known = {
        "models_admin.actions",
        "models_admin.consumers",
        "models_admin.models",
        "gantry.runtimes.base",
        "gantry.runtimes",
    }
    assert len(faults_in(module, source, known)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gantry.chat.views", "from models_admin import actions"),
        ("models_admin.views.status", "from models_admin.forms import ModelForm"),
        ("gantry.engine.runner", "from gantry.planning.types import SwitchPlan"),
        ("gantry.runtimes.llama_server", "import httpx"),
        ("gantry.routing", "from gantry.chat.consumers import ChatConsumer"),
        ("models_admin.plans", "from models_admin.models import MemoryPool"),
    ],
)
def test_allowed_import_passes(module: str, source: str) -> None:
    assert faults_in(module, source, {"models_admin.actions"}) == []
