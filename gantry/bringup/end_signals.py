"""Ctrl-C and SIGTERM while Gantry is being started."""

from __future__ import annotations

import signal
from types import FrameType

from gantry.bringup.exceptions import EndAsked

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_SECONDS = 0.25


def end_when_asked() -> None:
    """From now on each of the signals raises EndAsked in the main thread."""
    for number in (*SIGNALS, signal.SIGALRM):
        signal.signal(number, _ask)


def ignore() -> None:
    """What is being ended is ended to its end, however often Ctrl-C is pressed; every step of it is bounded."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (*SIGNALS, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def _ask(number: int, frame: FrameType | None) -> None:
    # Python drops what is raised while it calls back, as in a finaliser or around a fork: it is raised again until it is heard.
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    raise EndAsked
