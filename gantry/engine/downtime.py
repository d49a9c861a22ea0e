"""How long no model could answer."""

from __future__ import annotations

from collections.abc import Iterable

from gantry.engine.effects import Effects


class Downtime:
    """A clock that runs from the moment the active model begins to go until a verified one is active."""

    def __init__(self, effects: Effects, owed_ids: Iterable[str] = ()) -> None:
        """Begin at once where an earlier job took the active model away (`owed_ids`) and left the rest to this one."""
        self._effects = effects
        self._total = 0.0
        self._began_at: float | None = None
        self._was_served = effects.active_model() != ""
        if not self._was_served and any(effects.was_active(model_id) for model_id in owed_ids):
            self._was_served = True
            self._began_at = effects.monotonic()

    def begin(self, model_id: str) -> None:
        """A model is about to be unloaded; it counts when it is the active one."""
        if self._began_at is None and self._effects.active_model() == model_id:
            self._began_at = self._effects.monotonic()

    def end(self) -> None:
        """A verified model is active."""
        self._total += self._running()
        self._began_at = None

    @property
    def seconds(self) -> float | None:
        """So far; None when nobody was served before."""
        return self._total + self._running() if self._was_served else None

    def _running(self) -> float:
        return 0.0 if self._began_at is None else self._effects.monotonic() - self._began_at
