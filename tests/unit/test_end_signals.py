"""Ctrl-C and SIGTERM while Gantry is being started: heard whenever they come."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from gantry.bringup import end_signals
from gantry.bringup.exceptions import EndAsked


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """As they were before, afterwards."""
    numbers = (*end_signals.SIGNALS, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    end_signals.end_when_asked()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class Finalised:
    """Python drops whatever is raised in here."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)


@pytest.mark.parametrize("number", end_signals.SIGNALS)
def test_signal_ends_what_is_under_way(number: signal.Signals) -> None:
    with pytest.raises(EndAsked):
        signal.raise_signal(number)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_signal_that_comes_where_nothing_can_be_raised_is_heard_a_moment_later() -> None:
    with pytest.raises(EndAsked):
        wait_after(Finalised())


def wait_after(thing: Finalised) -> None:
    del thing
    time.sleep(5)


def test_one_that_has_been_heard_is_not_raised_again() -> None:
    with pytest.raises(EndAsked):
        signal.raise_signal(signal.SIGTERM)
    end_signals.ignore()
    signal.raise_signal(signal.SIGINT)
    time.sleep(2 * end_signals.AGAIN_SECONDS)
