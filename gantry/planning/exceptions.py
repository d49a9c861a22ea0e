"""What planning can refuse.

PlanError
└── DoesNotFit     no allowed set of evictions makes room
"""

from __future__ import annotations


class PlanError(Exception):
    """No plan can be made."""


class DoesNotFit(PlanError):
    """The target needs more than can be freed. All figures in bytes."""

    def __init__(self, *, required_bytes: int, available_bytes: int, freeable_bytes: int) -> None:
        super().__init__(f"needs {required_bytes} bytes, {available_bytes} are free, {freeable_bytes} could be freed")
        self.required_bytes = required_bytes
        self.available_bytes = available_bytes
        self.freeable_bytes = freeable_bytes
