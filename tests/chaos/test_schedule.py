"""A seed says it all."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.schedule import CYCLE, EACH, Fault, make_round


def kinds_of(seed: int, rounds: int) -> Counter[Fault]:
    return Counter(
        make_round(seed, number, people=4, models=5, slow=[3, 4]).strikes[0].kind for number in range(1, rounds + 1)
    )


def test_same_seed_gives_the_same_round_whatever_came_before() -> None:
    one, other = (make_round(11, 5, people=4, models=5, slow=[3, 4]) for _ in range(2))
    assert one == other
    assert str(one) == str(other)
    assert one != make_round(12, 5, people=4, models=5, slow=[3, 4])


@pytest.mark.parametrize("seed", range(5))
def test_each_cycle_has_each_of_the_usual_faults(seed: int) -> None:
    assert all(times == 1 for times in kinds_of(seed, CYCLE).values())
    assert set(EACH) <= set(kinds_of(seed, CYCLE))


def test_two_hundred_rounds_have_every_fault() -> None:
    assert set(kinds_of(3, 200)) == set(Fault)


def test_everybody_and_every_model_takes_part() -> None:
    rounds = [make_round(3, number, people=4, models=5, slow=[3, 4]) for number in range(1, 50)]
    deeds = [deed for round_ in rounds for deed in round_.deeds]
    assert {deed.person for deed in deeds} == set(range(4))
    assert {deed.model for deed in deeds} == set(range(5))
