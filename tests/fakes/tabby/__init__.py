"""A test double of TabbyAPI: a real HTTP server on loopback that speaks its wire, and misbehaves when told to.

Runs by itself too: `python -m tests.fakes.tabby --port 0`.
"""

from __future__ import annotations

from tests.fakes.tabby.library import FakeModel, standard_models
from tests.fakes.tabby.server import TabbyDouble
from tests.fakes.tabby.wire import Canned

__all__ = ["Canned", "FakeModel", "TabbyDouble", "standard_models"]
