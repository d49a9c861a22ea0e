"""How far a running plan is, and how long it will still take."""

from __future__ import annotations

from collections.abc import Sequence

MOST_BEFORE_THE_END = 99.0  # percent; 100 is said of what is done
LIVE_RATE_FROM = 0.25  # fraction of a step from which its own pace tells something: before, most of it was start-up
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
    rest = sum(max(0.0, seconds) for seconds in expected_seconds[index + 1 :])
    left = _left_of_step(max(0.0, expected_seconds[index]), _clamp(fraction), max(0.0, elapsed_seconds))
    return None if left is None else rest + left


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
