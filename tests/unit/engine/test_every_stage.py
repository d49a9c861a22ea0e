"""Whatever happens at whatever stage: how the job ends, what is loaded then, and what is active.

`old` is loaded and active, `new` the target. A cancel comes in the middle of the stage; so does a supersede, which is a cancel by a
job that takes over; a fault is what can go wrong there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gantry.engine.runner import Limits
from gantry.planning.states import DrainAction, ErrorCode, JobKind, JobState, LoadOrder
from gantry.planning.types import SwitchPlan
from gantry.runtimes.exceptions import RuntimeFault
from gantry.runtimes.null import Failure
from tests.unit.engine.bench import GB, Bench

# stage -> what is told while it lasts
MOMENTS = {
    "drain": "Finishing 1 answer",
    "unload": "Unloading Old",
    "free": "Waiting for the memory",
    "load": "Loading New",
    "verify": "Asking New for a first token",
    "call": "New is answering",
}

PLANS: dict[str, Callable[[Bench], SwitchPlan]] = {
    "switch": lambda bench: bench.switch("old"),
    "load first": lambda bench: bench.switch("old", order=LoadOrder.LOAD_FIRST),
    "preload": lambda bench: bench.preload(),
    "call": lambda bench: bench.call("old"),
    "restart": lambda bench: bench.switch("old", target="old", kind=JobKind.RESTART),
    "unload": lambda bench: bench.unload("old"),
}

CANCELLED, FAILED, SUCCEEDED, SUPERSEDED = JobState.CANCELLED, JobState.FAILED, JobState.SUCCEEDED, JobState.SUPERSEDED

# plan, stage, event -> end, loaded, active
TABLE = [
    ("switch", "drain", "cancel", CANCELLED, "old", "old"),
    ("switch", "drain", "fault", FAILED, "old", "old"),
    ("switch", "drain", "supersede", SUPERSEDED, "old", "old"),
    ("switch", "unload", "cancel", CANCELLED, "old", "old"),
    ("switch", "unload", "fault", FAILED, "old", "old"),
    ("switch", "unload", "supersede", SUPERSEDED, "", ""),
    ("switch", "free", "cancel", CANCELLED, "old", "old"),
    ("switch", "free", "fault", FAILED, "old", "old"),
    ("switch", "free", "supersede", SUPERSEDED, "", ""),
    ("switch", "load", "cancel", CANCELLED, "old", "old"),
    ("switch", "load", "fault", FAILED, "old", "old"),
    ("switch", "load", "supersede", SUPERSEDED, "", ""),
    ("switch", "verify", "cancel", CANCELLED, "old", "old"),
    ("switch", "verify", "fault", FAILED, "old", "old"),
    ("switch", "verify", "supersede", SUPERSEDED, "", ""),
    ("load first", "load", "cancel", CANCELLED, "old", "old"),
    ("load first", "load", "fault", FAILED, "old", "old"),
    ("load first", "load", "supersede", SUPERSEDED, "old", "old"),
    ("load first", "verify", "cancel", CANCELLED, "old", "old"),
    ("load first", "verify", "fault", FAILED, "old", "old"),
    ("load first", "verify", "supersede", SUPERSEDED, "old", "old"),
    # From here on the target serves.
    ("load first", "drain", "cancel", CANCELLED, "old", "old"),
    ("load first", "drain", "fault", SUCCEEDED, "new old", "new"),
    ("load first", "drain", "supersede", SUPERSEDED, "new old", "new"),
    ("load first", "unload", "cancel", SUCCEEDED, "new", "new"),
    ("load first", "unload", "fault", SUCCEEDED, "new old", "new"),
    ("load first", "unload", "supersede", SUCCEEDED, "new", "new"),
    ("load first", "free", "cancel", SUCCEEDED, "new", "new"),
    ("load first", "free", "fault", SUCCEEDED, "new", "new"),
    ("load first", "free", "supersede", SUCCEEDED, "new", "new"),
    ("preload", "load", "cancel", CANCELLED, "old", "old"),
    ("preload", "load", "fault", FAILED, "old", "old"),
    ("preload", "load", "supersede", SUPERSEDED, "old", "old"),
    ("preload", "verify", "cancel", CANCELLED, "old", "old"),
    ("preload", "verify", "fault", FAILED, "old", "old"),
    ("preload", "verify", "supersede", SUPERSEDED, "old", "old"),
    ("call", "drain", "cancel", CANCELLED, "old", "old"),
    ("call", "unload", "fault", FAILED, "old", "old"),
    ("call", "free", "fault", FAILED, "old", "old"),
    ("call", "load", "cancel", CANCELLED, "old", "old"),
    ("call", "load", "fault", FAILED, "old", "old"),
    ("call", "verify", "cancel", CANCELLED, "old", "old"),
    ("call", "verify", "fault", FAILED, "old", "old"),
    ("call", "call", "cancel", CANCELLED, "old", "old"),
    ("call", "call", "fault", FAILED, "old", "old"),
    ("call", "call", "supersede", SUPERSEDED, "", ""),
    # What is unloaded by its own wish is not put back.
    ("restart", "drain", "cancel", CANCELLED, "old", "old"),
    ("restart", "unload", "cancel", CANCELLED, "", ""),
    ("restart", "unload", "fault", FAILED, "old", "old"),
    ("restart", "free", "cancel", CANCELLED, "", ""),
    ("restart", "free", "fault", FAILED, "", ""),
    ("unload", "drain", "cancel", CANCELLED, "old", "old"),
    ("unload", "drain", "fault", FAILED, "old", "old"),
    ("unload", "unload", "cancel", SUCCEEDED, "", ""),
    ("unload", "unload", "fault", FAILED, "old", "old"),
    ("unload", "free", "cancel", SUCCEEDED, "", ""),
    ("unload", "free", "fault", SUCCEEDED, "", ""),
]


@pytest.mark.parametrize(("plan", "stage", "event", "state", "held", "active"), TABLE)
def test_end(bench: Bench, plan: str, stage: str, event: str, state: JobState, held: str, active: str) -> None:
    made = PLANS[plan](bench)
    reach(bench, stage)
    if event == "fault":
        break_at(bench, stage)
    else:
        bench.cancel_at(MOMENTS[stage])
    if event == "supersede":
        bench.effects.superseded_when = bench.effects.cancel_when
    outcome = bench.run(made)
    assert (outcome.state, " ".join(bench.held), bench.effects.active) == (state, held, active)
    assert MOMENTS[stage] in bench.effects.texts  # it came that far
    assert outcome.state != JobState.CANCELLED or event == "cancel"
    assert (outcome.error_code is not None) is (outcome.state == JobState.FAILED)


def reach(bench: Bench, stage: str) -> None:
    """Let the stage last long enough to be met."""
    if stage == "drain":
        bench.world.busy["old"] = 1
        bench.limits = Limits(drain_seconds=5.0)
    elif stage == "free":
        bench.effects.free = lambda: GB if "gone old" in bench.calls else 4 * GB
        bench.effects.at(10, lambda: setattr(bench.effects, "free", lambda: 20 * GB))
    elif stage == "load":
        bench.world.load_seconds = 0.1
    elif stage == "verify":
        bench.world.verify_seconds = 0.3


def break_at(bench: Bench, stage: str) -> None:
    """Let the stage go wrong."""
    if stage == "drain":
        bench.limits = Limits(drain_seconds=5.0, drain_action=DrainAction.ABORT)
    elif stage == "unload":
        bench.world.stuck_unloads.add("old")
    elif stage == "free":
        bench.limits = Limits(free_seconds=3.0)
    elif stage == "load":
        bench.world.failures["new"] = Failure(ErrorCode.OUT_OF_MEMORY, 0.5)
    elif stage == "verify":
        bench.world.silent.add("new")
    elif stage == "call":
        bench.effects.call_fault = RuntimeFault(code=ErrorCode.CALL_FAILED)


def test_former_model_that_has_died_meanwhile_leaves_the_target_active(bench: Bench) -> None:
    plan = bench.switch("old", order=LoadOrder.LOAD_FIRST)
    bench.world.busy_next["old"] = [1, 1]
    bench.effects.at(0.1, lambda: bench.world.crash(plan.evicted[0].instance_id))
    bench.effects.cancel_when = lambda: not bench.instance("old").is_alive
    outcome = bench.run(plan)
    assert (outcome.state, outcome.rolled_back) == (JobState.CANCELLED, False)
    assert outcome.aftermath == "New stays active: what was active before does not answer any more."
    assert (bench.held, bench.effects.active) == (["new"], "new")


def test_former_model_serves_again_before_the_target_goes(bench: Bench) -> None:
    bench.world.busy["old"] = 1
    bench.cancel_at("Finishing 1 answer")
    outcome = bench.run(bench.switch("old", order=LoadOrder.LOAD_FIRST))
    assert (outcome.rolled_back, outcome.aftermath, outcome.downtime_seconds) == (True, "Old is active again.", 0.0)
    assert bench.calls.index("activate old") < bench.calls.index("unloading new")


def test_target_that_does_not_go_after_a_cancel_fails_the_job(bench: Bench) -> None:
    bench.world.stuck_unloads.add("new")
    bench.world.verify_seconds = 0.3
    bench.cancel_at("Asking New for a first token")
    outcome = bench.run()
    assert (outcome.state, outcome.error_code) == (JobState.FAILED, ErrorCode.UNLOAD_FAILED)
    assert (bench.effects.active, outcome.aftermath) == ("old", "Old was put back.")


def test_unload_all_that_is_cancelled_in_between_says_what_is_gone(bench: Bench) -> None:
    bench.hold("other")
    bench.cancel_at("Old is unloaded")
    outcome = bench.run(bench.unload("old", "other"))
    assert (outcome.state, outcome.aftermath, bench.held) == (JobState.CANCELLED, "Old stays unloaded.", ["other"])
