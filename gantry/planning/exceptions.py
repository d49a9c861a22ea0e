"""What planning can refuse.

PlanError
├── DoesNotFit      no allowed set of evictions makes room
└── DeviceUnknown   a model is to be put on a device that is not there
"""

from __future__ import annotations

from collections.abc import Sequence


class PlanError(Exception):
    """No plan can be made."""


class DoesNotFit(PlanError):
    """The target needs more than can be freed. All figures in bytes."""

    def __init__(self, *, required_bytes: int, available_bytes: int, freeable_bytes: int) -> None:
        super().__init__(f"needs {required_bytes} bytes, {available_bytes} are free, {freeable_bytes} could be freed")
        self.required_bytes = required_bytes
        self.available_bytes = available_bytes
        self.freeable_bytes = freeable_bytes


class DeviceUnknown(PlanError):
    """A model names a device that the pool does not have."""

    def __init__(self, device_id: str, known_ids: Sequence[str]) -> None:
        there_are = f"there are {', '.join(known_ids)}" if known_ids else "it has one memory only"
        super().__init__(f"The pool has no device {device_id!r}; {there_are}.")
        self.device_id = device_id
        self.known_ids = tuple(known_ids)
