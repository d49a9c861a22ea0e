"""Memory: waited for before a load, after an unload and on the way back, and measured."""

from __future__ import annotations

import pytest

from gantry.engine.runner import Limits
from gantry.planning.states import ErrorCode, JobState, LoadOrder
from gantry.runtimes.exceptions import RuntimeFault
from gantry.runtimes.null import Failure
from tests.unit.engine.bench import GB, HELD, Bench


class Memory:
    """What is free: what the models leave, less what a model that is gone still holds for so many `late` seconds."""

    def __init__(self, bench: Bench, *, total: int = 10 * GB, **late: float) -> None:
        self.figures: list[int] = []
        self._bench = bench
        self._total = total
        self._late = late
        self._lingering = 0
        self._note_gone = bench.effects.instance_gone
        bench.effects.free = self
        bench.effects.instance_gone = self.instance_gone  # type: ignore[method-assign]

    def __call__(self) -> int:
        self.figures.append(self._total - HELD * (len(self._bench.held) + self._lingering))
        return self.figures[-1]

    def instance_gone(self, instance_id: str) -> None:
        effects = self._bench.effects
        self._note_gone(instance_id)
        self._lingering += 1
        effects.at(effects.monotonic() + self._late.get(effects.models[instance_id], 0.0), self._come_back)
        effects.sleep(0.0)

    def _come_back(self) -> None:
        self._lingering -= 1


def test_load_waits_until_the_memory_is_really_free(bench: Bench) -> None:
    memory = Memory(bench, old=2.0)
    assert bench.run().state == JobState.SUCCEEDED
    assert "Waiting for the memory" in bench.effects.texts
    assert "10.0 GB are free" in bench.effects.texts
    assert memory.figures[0] < HELD


def test_memory_is_measured_on_the_devices_of_the_plan(bench: Bench) -> None:
    bench.run(bench.switch(devices=("gpu-1", "gpu-2")))
    assert set(bench.effects.looked_at) == {("gpu-1", "gpu-2")}


def test_memory_that_does_not_come_back_fails_a_switch(bench: Bench) -> None:
    bench.effects.free = lambda: 4 * GB
    bench.limits = Limits(free_seconds=1.0)
    outcome = bench.run()
    assert outcome.error_code == ErrorCode.MEMORY_NOT_FREED
    assert "2.0 GB are still missing after 1 s." in outcome.error_text
    assert bench.held == ["old"]  # it was put back all the same


def test_unload_ends_when_about_what_was_held_is_free_again(bench: Bench) -> None:
    memory = Memory(bench, old=3.0)
    assert bench.run(bench.unload("old")).text == "Old is unloaded"
    assert (memory.figures[0], memory.figures[-1]) == (4 * GB, 10 * GB)
    assert "Waiting for the memory" in bench.effects.texts


def test_unload_all_waits_for_the_memory_of_all(bench: Bench) -> None:
    bench.hold("other")
    memory = Memory(bench, total=20 * GB, old=3.0, other=5.0)
    assert bench.run(bench.unload("old", "other")).text == "Old and Other are unloaded"
    assert (memory.figures[0], memory.figures[-1]) == (8 * GB, 20 * GB)


def test_unload_whose_memory_does_not_come_back_succeeds_and_says_what_is_missing(bench: Bench) -> None:
    bench.effects.free = lambda: 4 * GB
    bench.limits = Limits(free_seconds=7.0)
    outcome = bench.run(bench.unload("old"))
    assert outcome.state == JobState.SUCCEEDED
    assert outcome.text == "Old is unloaded. 6.0 GB of the memory have not come back after 7 s"


def test_small_difference_is_not_waited_for(bench: Bench) -> None:
    figures = iter([4 * GB, 4 * GB + HELD - 500_000_000])
    bench.effects.free = lambda: next(figures)
    assert bench.run(bench.unload("old")).text == "Old is unloaded"


def test_cancel_ends_the_waiting_after_an_unload_not_the_success(bench: Bench) -> None:
    bench.effects.free = lambda: 4 * GB
    bench.cancel_at("Waiting for the memory")
    outcome = bench.run(bench.unload("old"))
    assert (outcome.state, outcome.text) == (JobState.SUCCEEDED, "Old is unloaded")


def test_memory_of_the_former_model_is_waited_for_after_a_load_first(bench: Bench) -> None:
    memory = Memory(bench, total=20 * GB, old=3.0)
    assert bench.run(bench.switch(order=LoadOrder.LOAD_FIRST)).text == "New is active"
    assert memory.figures[-1] == 14 * GB


def test_unload_does_not_fail_where_the_memory_cannot_be_read(bench: Bench) -> None:
    def unreadable() -> int:
        raise RuntimeFault("The driver does not answer.", code=ErrorCode.MEMORY_UNREADABLE)

    bench.effects.free = unreadable
    assert bench.run(bench.unload("old")).text == "Old is unloaded"
    assert "The driver does not answer." in bench.effects.texts


def test_way_back_waits_for_the_memory_of_the_model_that_failed(bench: Bench) -> None:
    memory = Memory(bench, new=2.0)
    bench.world.silent.add("new")
    outcome = bench.run()
    assert (outcome.error_code, outcome.aftermath) == (ErrorCode.VERIFY_FAILED, "Old was put back.")
    assert "add free" in bench.calls
    assert bench.calls.index("gone new") < bench.calls.index("add free") < bench.calls.index("loading old")
    assert memory.figures[-1] >= HELD  # the last look before it was loaded


def test_way_back_tries_also_when_the_memory_does_not_come_back(bench: Bench) -> None:
    bench.world.failures["new"] = Failure(ErrorCode.OUT_OF_MEMORY)
    bench.limits = Limits(free_seconds=1.0)
    bench.effects.free = lambda: 10 * GB if "loading new" not in bench.calls else GB
    assert bench.run().aftermath == "Old was put back."


@pytest.mark.parametrize("late_seconds", [0.5, 50.0])
def test_superseded_job_lets_the_memory_come_back_but_not_for_long(bench: Bench, late_seconds: float) -> None:
    memory = Memory(bench, new=late_seconds)
    bench.world.stalls["new"] = 0.5
    bench.world.load_seconds = 0.05
    is_half_loaded = lambda: any(0 < report.fraction < 1 for report in bench.effects.reports)  # noqa: E731
    bench.effects.cancel_when = bench.effects.superseded_when = is_half_loaded
    assert bench.run().state == JobState.SUPERSEDED
    assert (memory.figures[-1] == 10 * GB) is (late_seconds < 1)
    assert bench.effects.monotonic() < 3
