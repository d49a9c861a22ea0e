"""A load that is prepared while what makes room for it goes."""

from __future__ import annotations

from gantry.engine.runner import Limits
from gantry.planning.states import ErrorCode, JobState, LoadOrder
from gantry.runtimes.base import LoadRequest
from tests.unit.engine.bench import GB, Bench


def prepared_at_unload(bench: Bench) -> list[list[str]]:
    """What stood by at the end of each unload."""
    seen: list[list[str]] = []
    gone = bench.effects.instance_gone

    def instance_gone(instance_id: str) -> None:
        seen.append(list(bench.world.prepared.values()))
        gone(instance_id)

    bench.effects.instance_gone = instance_gone  # type: ignore[method-assign]
    return seen


def test_target_stands_by_while_the_former_model_goes_and_is_loaded_from_there(bench: Bench) -> None:
    bench.world.unload_seconds = 0.05
    seen = prepared_at_unload(bench)
    assert bench.run().state == JobState.SUCCEEDED
    assert seen == [["new"]]
    assert (bench.world.prepared, bench.world.drops) == ({}, [])


def test_nothing_stands_by_where_nothing_has_to_go_first(bench: Bench) -> None:
    asked: list[LoadRequest] = []
    bench.null.prepare = asked.append  # type: ignore[method-assign,assignment]
    bench.run(bench.switch(order=LoadOrder.LOAD_FIRST))
    bench.run(bench.unload("new"))
    assert asked == []


def test_it_is_dropped_while_the_memory_stays_taken_for_it_may_be_what_takes_it(bench: Bench) -> None:
    bench.effects.free = lambda: 5 * GB if bench.world.prepared else 10 * GB
    assert bench.run().state == JobState.SUCCEEDED
    assert (bench.held, bench.world.drops) == (["new"], ["new"])


def test_it_is_dropped_before_anything_is_put_back(bench: Bench) -> None:
    bench.effects.free = lambda: 4 * GB
    bench.limits = Limits(free_seconds=0.2)
    seen: list[list[str]] = []
    bench.effects.instance_loading = lambda _: seen.append(list(bench.world.prepared))  # type: ignore[method-assign,assignment]
    assert bench.run().error_code == ErrorCode.MEMORY_NOT_FREED
    assert (bench.held, bench.world.drops, seen) == (["old"], ["new"], [[]])


def test_it_is_dropped_when_the_job_is_cancelled(bench: Bench) -> None:
    bench.cancel_at("Old is unloaded")
    assert bench.run().state == JobState.CANCELLED
    assert (bench.held, bench.world.drops) == (["old"], ["new"])


def test_one_that_cannot_be_prepared_is_loaded_all_the_same(bench: Bench) -> None:
    def broken(_request: LoadRequest) -> None:
        raise OSError("no more processes")

    bench.null.prepare = broken  # type: ignore[method-assign,assignment]
    assert bench.run().state == JobState.SUCCEEDED
    assert bench.held == ["new"]
