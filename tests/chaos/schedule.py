"""What happens in a round, drawn from the seed: who asks for what, and what is killed. Pure, so that a seed says it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from typing_extensions import override

ACT_SECONDS = 3.0  # within which everybody does what they do


class Fault(StrEnum):
    """What is done to Gantry from outside. SIGKILL unless it says otherwise."""

    WORKER = "worker"
    WEB = "web"
    MODEL = "model"  # the process of a model that is loaded
    LOADING = "loading"  # the process of a model in the middle of its load
    KEEPER = "keeper"  # what holds a model's process
    BROKER = "broker"
    PAUSE = "pause"  # SIGSTOP to the worker for a few seconds
    SCHEDULER = "scheduler"
    HANG = "hang"  # SIGSTOP to the worker for longer than a job may be without a sign of life
    MODEL_PAUSE = "model_pause"  # SIGSTOP to a model's process
    STALE_FOLDER = "stale_folder"  # a folder that claims a process which is somebody else's by now


EACH = (Fault.WORKER, Fault.WEB, Fault.MODEL, Fault.LOADING, Fault.KEEPER, Fault.BROKER, Fault.PAUSE)
RARE = (Fault.SCHEDULER, Fault.STALE_FOLDER, Fault.MODEL_PAUSE, Fault.HANG)
CYCLE = len(EACH) + 1
# When to strike: as soon as a job is in this state, or at once.
MOMENTS = ("", "", "waiting", "planning", "draining", "unloading", "loading", "loading", "warming")


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault. `choice`, 0 to 1, picks among what can be struck when the time has come."""

    kind: Fault
    at_seconds: float
    moment: str = ""
    delay_seconds: float = 0.0  # from that moment
    hold_seconds: float = 0.0  # how long a stop lasts
    choice: float = 0.0

    @override
    def __str__(self) -> str:
        """As a line of the story."""
        when = f" when a job is {self.moment}" if self.moment else ""
        hold = f" for {self.hold_seconds:.1f} s" if self.hold_seconds else ""
        return f"{self.at_seconds:4.1f} s  strike {self.kind}{hold}{when}, {self.delay_seconds:.2f} s later"


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that a person does. `choice` picks among what there is when the time has come."""

    at_seconds: float
    person: int
    what: str
    model: int = 0
    is_confirmed: bool = False
    context: int | None = None
    choice: float = 0.0

    @override
    def __str__(self) -> str:
        """As a line of the story."""
        details = f" model {self.model}" if self.what in ON_A_MODEL else ""
        details += " confirmed" if self.is_confirmed else ""
        details += f" context {self.context}" if self.context else ""
        return f"{self.at_seconds:4.1f} s  person {self.person} {self.what}{details}"


@dataclass(frozen=True, slots=True)
class Round:
    """What happens in one round, in the order of time."""

    number: int
    deeds: tuple[Deed, ...]
    strikes: tuple[Strike, ...]

    @override
    def __str__(self) -> str:
        """The whole story as planned."""
        things: list[Deed | Strike] = [*self.deeds, *self.strikes]
        things.sort(key=lambda thing: thing.at_seconds)
        return "\n".join(f"  {thing}" for thing in things)


# How often each of these is done, in proportion.
_DEEDS = {
    "switch": 10,
    "chat_switch": 5,
    "ask": 7,
    "cancel": 3,
    "chat_cancel": 1,
    "unload": 2,
    "restart": 2,
    "preload": 2,
    "unload_all": 1,
    "pin": 3,
    "unpin": 3,
    "stop": 1,
}
# The others are about whatever job or answer there is.
ON_A_MODEL = frozenset({"switch", "chat_switch", "unload", "restart", "preload", "pin", "unpin"})
_CONTEXTS = (None, None, None, None, 512, 1024)


def make_round(
    seed: int, number: int, *, people: int, models: int, slow: Sequence[int], only: Fault | None = None
) -> Round:
    """Round `number` of a seed; the same whatever rounds came before it.

    Args:
        slow: which of the models take long to load; they are what is hit in the middle of a load.
        only: this fault in every round, and no other.
    """
    rng = Random(f"{seed}:{number}")
    kinds = [only or _kind(seed, number)]
    if rng.random() < 0.3 and only is None:
        kinds.append(rng.choice(EACH))
    strikes = tuple(_strike(rng, kind) for kind in kinds)
    deeds = [_deed(rng, people, models) for _ in range(rng.randint(4, 9))]
    for strike in strikes:
        if strike.moment not in {"", "waiting"}:  # something has to be going on by then
            deeds += [_provoke(rng, strike, people, place) for place in slow]
    return Round(number, tuple(sorted(deeds, key=lambda deed: deed.at_seconds)), strikes)


def _kind(seed: int, number: int) -> Fault:
    """Each kind once in a cycle, in an order of the cycle's own, so that none is left out for long."""
    cycle, place = divmod(number - 1, CYCLE)
    rng = Random(f"{seed}:cycle:{cycle}")
    kinds = [*EACH, RARE[cycle % len(RARE)]]
    rng.shuffle(kinds)
    return kinds[place]


def _strike(rng: Random, kind: Fault) -> Strike:
    hold = {Fault.PAUSE: rng.uniform(2, 7), Fault.HANG: rng.uniform(33, 38), Fault.MODEL_PAUSE: rng.uniform(2, 7)}
    return Strike(
        kind=kind,
        at_seconds=round(rng.uniform(0.3, ACT_SECONDS), 2),
        moment="loading" if kind == Fault.LOADING else rng.choice(MOMENTS),
        delay_seconds=round(rng.choice((0.0, rng.uniform(0, 0.2), rng.uniform(0, 1.5))), 3),
        hold_seconds=round(hold.get(kind, 0.0), 1),
        choice=rng.random(),
    )


def _deed(rng: Random, people: int, models: int) -> Deed:
    return Deed(
        at_seconds=round(rng.uniform(0, ACT_SECONDS), 2),
        person=rng.randrange(people),
        what=rng.choices(list(_DEEDS), list(_DEEDS.values()))[0],
        model=rng.randrange(models),
        is_confirmed=rng.random() < 0.5,
        context=rng.choice(_CONTEXTS),
        choice=rng.random(),
    )


def _provoke(rng: Random, strike: Strike, people: int, model: int) -> Deed:
    """A load that takes a while, asked for around the time of the strike."""
    return Deed(
        at_seconds=round(strike.at_seconds + rng.uniform(-0.3, 0.3), 2),
        person=rng.randrange(people),
        what=rng.choice(("switch", "switch", "restart")),
        model=model,
        is_confirmed=True,
    )
