"""How far a running plan is, and how long it will still take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gantry.planning.types import TimeRange

MOST_BEFORE_THE_END = 99.0  # percent; 100 is said of what is done
LIVE_RATE_FROM = 0.25  # fraction of a step from which its own pace tells something: before, most of it was start-up
# How far a load is off what its own pace foretells, as a share of it, less as more is done. Seen in recorded loads at a quarter:
# a median of 0.21 with the usual time after reading added. Where that is not known, the pace leaves out what nobody foresees.
PACE_ERROR = 0.2
BLIND_PACE_ERROR = 1.0
UNSEEN_SPREAD = 0.5  # of the expected seconds, where no load was seen yet
GRACE_SECONDS = 1.0  # a step this little over its time is about to end; more than that, and nobody knows


def overall_percent(expected_seconds: Sequence[float], index: int, fraction: float) -> float:
    """Percent (0 to 100) of the whole plan; each step counts by the seconds it is expected to take.

    Never falls while `index` and, within a step, `fraction` rise. Below 100 until every step is over.

    Args:
        expected_seconds: of all steps, in order.
        index: the running step; the number of steps or more when all are over.
        fraction: 0 to 1, how much of the running step is done.
    """
    if index >= len(expected_seconds):
        return 100.0
    weights = [max(0.0, seconds) for seconds in expected_seconds]
    if not sum(weights):
        weights = [1.0] * len(weights)
    done = sum(weights[:index]) + weights[index] * _clamp(fraction)
    return min(MOST_BEFORE_THE_END, 100.0 * done / sum(weights))


def remaining_seconds(
    expected_seconds: Sequence[float], index: int, fraction: float, elapsed_seconds: float
) -> float | None:
    """Seconds until the plan's end, never negative; None when nobody can tell.

    What was expected of the running step is blended with its own pace, which counts the more the further it is.
    A step that is past its time and shows no pace gives None: better "this may take a while" than a false promise.

    Args:
        expected_seconds: of all steps, in order.
        index: the running step.
        fraction: 0 to 1, how much of it is done.
        elapsed_seconds: how long it has been running.
    """
    if index >= len(expected_seconds):
        return 0.0
    left = _left_of_step(max(0.0, expected_seconds[index]), _clamp(fraction), max(0.0, elapsed_seconds))
    return None if left is None else left + seconds_after_step(expected_seconds, index)


def seconds_after_step(expected_seconds: Sequence[float], index: int) -> float:
    """Seconds that all steps behind one are expected to take."""
    return sum(max(0.0, seconds) for seconds in expected_seconds[index + 1 :])


@dataclass(frozen=True, slots=True)
class LoadSign:
    """What is seen of a running load; seconds since it began."""

    fraction: float  # 0 to 1 of the whole load, by the runtime's own word
    read: float | None  # 0 to 1 of what has to be read; None where nobody tells
    read_seconds: float  # until now, or until all was read
    seconds: float


def load_fraction(usual: TimeRange, sign: LoadSign) -> float:
    """How much of a load is done, 0 to 1: what is read counts by the share that reading has usually had.

    Where no share is known, the runtime's own word counts.
    """
    if sign.read is None or usual.reading is None:
        return _clamp(sign.fraction)
    return usual.reading.share * _clamp(sign.read)


def load_seconds_left(usual: TimeRange, sign: LoadSign) -> float | None:
    """Seconds until a load's end, never negative; None when it is past all that was foretold.

    Two foretellings of the whole load are joined: what such loads have usually taken, and what the pace of its reading makes of
    it, with the usual seconds after. Each counts by the inverse of its variance: where past loads differ much (a page cache that
    is warm or cold) the pace counts, where they hardly do they count themselves. One that the load has outlasted counts no more.

    Args:
        usual: what such loads have taken.
        sign: how the load stands.
    """
    usual_whole = max(0.0, usual.usual_seconds)
    spread = UNSEEN_SPREAD * usual_whole if usual.spread_seconds is None else usual.spread_seconds
    foretold = [(usual_whole, spread)] if usual.is_known else []
    if (pace := _whole_by_pace(usual, sign)) is not None:
        foretold.append(pace)
    open_yet = [one for one in foretold if one[0] > sign.seconds]
    if open_yet:
        return _joined(open_yet) - sign.seconds
    return 0.0 if foretold and sign.seconds - max(foretold)[0] <= GRACE_SECONDS else None


def _whole_by_pace(usual: TimeRange, sign: LoadSign) -> tuple[float, float] | None:
    """Seconds of the whole load by its pace, and by how much that may be off; None before there is a pace."""
    done = load_fraction(usual, sign)
    if sign.read is None or usual.reading is None:
        if done < LIVE_RATE_FROM:
            return None
        whole = sign.seconds / done
        return whole, BLIND_PACE_ERROR * (1 - done) * max(whole, usual.usual_seconds)
    if sign.read < LIVE_RATE_FROM:
        return None
    whole = sign.read_seconds / _clamp(sign.read) + usual.reading.seconds_after
    return whole, PACE_ERROR * (1 - done) * whole


def _joined(foretold: Sequence[tuple[float, float]]) -> float:
    """The mean of some figures, each by the inverse of its variance; one that cannot be off is the truth."""
    if sure := [figure for figure, error in foretold if error <= 0]:
        return min(sure)
    surest = min(error for _, error in foretold)
    weights = [(surest / error) ** 2 for _, error in foretold]
    return sum(weight * figure for weight, (figure, _) in zip(weights, foretold, strict=True)) / sum(weights)


def _left_of_step(expected: float, fraction: float, elapsed: float) -> float | None:
    by_estimate = expected - elapsed
    if fraction <= LIVE_RATE_FROM or elapsed <= 0:
        return max(0.0, by_estimate) if by_estimate >= -GRACE_SECONDS else None
    by_pace = elapsed * (1 - fraction) / fraction
    if by_estimate <= 0:
        return by_pace
    return fraction * by_pace + (1 - fraction) * by_estimate


def _clamp(fraction: float) -> float:
    return min(1.0, max(0.0, fraction))
