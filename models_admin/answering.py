"""Answers that Gantry itself is giving at this moment. Some servers tell nobody how many they give, and an unload would cut them off.

Who gives answers says how to count them (`count_by`, once, when its app is ready); who unloads a model asks here.
"""

from __future__ import annotations

from collections.abc import Callable

Counter = Callable[[str], int]  # id of a model -> answers that it is giving

_counters: list[Counter] = []


def count_by(counter: Counter) -> None:
    """Have these answers counted too."""
    if counter not in _counters:
        _counters.append(counter)


def answers_of(model_id: str) -> int:
    """How many answers of a model Gantry is passing on now."""
    return sum(counter(model_id) for counter in _counters)
