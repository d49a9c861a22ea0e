"""Chaos in a short form: what always holds, holds while processes are killed. `make chaos` is the long form."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.functional.stack import ROOT

# Six rounds of this seed hit the worker, the web server, the broker, the scheduler, a model that serves, one that loads, and a keeper.
SEED = os.environ.get("GANTRY_CHAOS_SEED", "14743")
ROUNDS = 6


@pytest.mark.llama
@pytest.mark.timeout(300)
def test_nothing_is_lost_and_everything_ends_while_processes_are_killed() -> None:
    # In a process of its own, which looks at the rows of the Gantry it starts and not at those of the test database.
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--rounds", str(ROUNDS), "--seed", SEED],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"GANTRY_CHAOS_SEED={SEED}\n{done.stdout}\n{done.stderr}"
