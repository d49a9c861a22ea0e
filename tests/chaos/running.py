"""A whole run: round after round until the last one, or the first violation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import django.db

from tests.chaos.doing import Story, everybody_acts
from tests.chaos.invariants import Memory, violations
from tests.chaos.quiet import NotQuiet, wait_quiet
from tests.chaos.report import Tally, story_of
from tests.chaos.schedule import Fault, Round, Strike, make_round
from tests.chaos.striking import strike
from tests.chaos.watching import Watcher
from tests.chaos.world import World


@dataclass
class Run:
    """One run on one world."""

    world: World
    seed: int
    say: Callable[[str], None]
    only: Fault | None = None  # this fault in every round
    tells_all: bool = False  # the whole story of each round
    tally: Tally = field(default_factory=Tally)
    memory: Memory = field(default_factory=Memory)
    watcher: Watcher = field(default_factory=Watcher)

    def rounds(self, first: int, count: int, *, goes_on: bool = False) -> None:
        """Run so many rounds; a violation ends it, unless it `goes_on`."""
        self.watcher.start()
        try:
            for number in range(first, first + count):
                self._round(number)
                if self.tally.violations and not goes_on:
                    return
        finally:
            self.watcher.stop()

    def _round(self, number: int) -> None:
        world = self.world
        round_ = make_round(
            self.seed, number, people=len(world.people), models=len(world.models), slow=world.slow, only=self.only
        )
        world.cool()
        story = Story()
        self._let_loose(round_, story)
        found = [f"broken: {line}" for line in story.broken]
        try:
            wait_quiet(world, story.struck_at if _silences_worker(round_) else 0.0)
        except NotQuiet as exc:
            found += exc.reasons
        seconds = time.time() - story.struck_at
        found += violations(world, self.watcher, self.tally.struck, self.memory)
        self._note(round_, story, seconds, found)

    def _let_loose(self, round_: Round, story: Story) -> None:
        """All deeds and all strikes; returns when the last of them is done."""
        threads = everybody_acts(self.world, round_.deeds, story)
        for what in round_.strikes:
            threads.append(threading.Thread(target=self._strike, args=(what, story), name=f"strike-{what.kind}"))
            threads[-1].start()
        for thread in threads:
            thread.join()

    def _strike(self, what: Strike, story: Story) -> None:
        try:
            strike(self.world, what, story, self.tally.struck)
        except Exception as exc:  # noqa: BLE001 - what was not done was not tested, which must not pass for "held"
            story.broken.append(f"{what.kind} could not be done: {exc!r}")
        finally:
            django.db.connection.close()

    def _note(self, round_: Round, story: Story, seconds: float, found: list[str]) -> None:
        self.tally.rounds += 1
        self.tally.note_recovery(round_, seconds)
        self.tally.violations += found
        kinds = " + ".join(f"{what.kind}{f' when {what.moment}' if what.moment else ''}" for what in round_.strikes)
        end = f"VIOLATED {len(found)}" if found else "ok"
        self.say(
            f"round {round_.number:>4}  {kinds:<44} {len(round_.deeds):>2} deeds, quiet after {seconds:5.1f} s  {end}"
        )
        if self.tells_all:
            self.say(story.as_text())
        if found:
            self.say(story_of(self.world, self.seed, round_, story, found, is_only=self.only is not None))


def _silences_worker(round_: Round) -> bool:
    """Whether the worker has to be heard of again before all is quiet."""
    return any(what.kind in {Fault.WORKER, Fault.BROKER, Fault.PAUSE, Fault.HANG} for what in round_.strikes)
