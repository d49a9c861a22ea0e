"""`python -m tests.chaos --rounds 200 --seed 7`: chaos, with a table at the end. Exit code 1 when something did not hold."""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.reality import processes_in
from tests.chaos.schedule import Fault
from tests.chaos.world import world


def main() -> int:
    """Run it."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that nothing is left running
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1_000_000)
    _say(f"seed {seed}, {options.rounds} rounds")
    folder = Path(tempfile.mkdtemp(prefix="gantry-chaos-"))
    with world(folder, seed) as chaos:
        # Only now: these look at the rows, and need the settings of the Gantry that was just started.
        from tests.chaos.report import table
        from tests.chaos.running import Run

        run = Run(chaos, seed, _say, only=options.fault, tells_all=options.verbose)
        run.rounds(options.first, options.rounds, goes_on=options.keep_going)
        _say(f"\nseed {seed}, {run.tally.rounds} rounds\n{table(run.tally)}")
    if left := [process.pid for process in processes_in(folder)]:
        run.tally.violations.append(f"I7: {left} still run after the end")
        _say(run.tally.violations[-1])
    if run.tally.violations:
        _say(f"\nThe data of this run is kept in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, help="draws everything that happens (default: a new one)")
    parser.add_argument("--first", type=int, default=1, help="begin with this round of the seed")
    parser.add_argument("--fault", type=Fault, choices=list(Fault), help="this fault in every round, and no other")
    parser.add_argument("--keep-going", action="store_true", help="go on after a violation")
    parser.add_argument("--verbose", action="store_true", help="tell all that happens in each round")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
