"""The one question that a limiter answers, and the twin that limits nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Window:
    """At most `most` uses within any `seconds`, counted under `key`."""

    key: str
    most: int
    seconds: int = 60


@dataclass(frozen=True, slots=True)
class Refusal:
    """A window has no room."""

    window: Window
    wait_seconds: float  # until it has, if nobody else uses it meanwhile


class LimiterAway(Exception):
    """Nobody can say how often something has happened. Whether that opens or closes is the caller's choice."""


class Limiter(Protocol):
    """Counts uses."""

    def take(self, windows: Sequence[Window]) -> Refusal | None:
        """Use one of each window, or none of any when one has no room: then the one to wait for longest.

        Raises:
            LimiterAway: the place where it counts does not answer.
        """


class NullLimiter:
    """Limits nothing."""

    def take(self, windows: Sequence[Window]) -> Refusal | None:
        """There is always room."""
        return None
