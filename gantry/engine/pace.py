"""The pace of one load: how much of it is done, when it will be over, and what is kept of that for the next one."""

from __future__ import annotations

from gantry.planning.eta import LIVE_RATE_FROM, LoadSign, load_fraction, load_seconds_left
from gantry.planning.types import TimeRange
from gantry.runtimes.base import LoadProgress, LoadStage


class LoadPace:
    """Follows the signs of a load. Its fraction never falls, and stays under 1 until the model is ready."""

    def __init__(self, usual: TimeRange, began_at: float) -> None:
        """Take what such loads have taken, and when this one began on a clock that never goes back."""
        self._usual = usual
        self.began_at = began_at
        self.fraction = 0.0  # of the whole load
        self.seconds_left: float | None = usual.usual_seconds if usual.is_known else None
        self.reading_seconds: float | None = None  # until all was read; None while it is not, or where nobody tells
        self.at_quarter_seconds: float | None = None  # what all of it was foretold to take when a quarter was done
        self._is_noted = False

    def see(self, progress: LoadProgress, now: float) -> None:
        """A sign, and when it came."""
        gone, read = now - self.began_at, progress.read_fraction
        if self.reading_seconds is None and read == 1:
            self.reading_seconds = gone
        sign = LoadSign(
            progress.fraction or 0.0, read, gone if self.reading_seconds is None else self.reading_seconds, gone
        )
        is_ready = progress.stage == LoadStage.READY
        self.fraction = 1.0 if is_ready else max(self.fraction, load_fraction(self._usual, sign))
        self.seconds_left = 0.0 if is_ready else load_seconds_left(self._usual, sign)
        self._note_quarter(gone)

    def _note_quarter(self, gone: float) -> None:
        """The first sign past the quarter is kept."""
        if self._is_noted or self.fraction < LIVE_RATE_FROM:
            return
        self._is_noted = True
        self.at_quarter_seconds = None if self.seconds_left is None else gone + self.seconds_left
