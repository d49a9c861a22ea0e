"""The null runtime keeps the contract, and does what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadProgress, LoadRequest, LoadStage, RunningInstance, Runtime
from gantry.runtimes.exceptions import (
    LoadCancelled,
    LoadFailed,
    RuntimeAway,
    RuntimeRefused,
    UnloadFailed,
    VerifyFailed,
)
from gantry.runtimes.null import Failure, NullRuntime, NullWorld, null_world, reset_null_worlds
from gantry.runtimes.registry import RuntimeConfig

REQUEST = LoadRequest("one", "model-a", Path("/m.gguf"), file_bytes=1000)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[NullRuntime]:
    yield NullRuntime(RuntimeConfig("null", "null", state_dir=tmp_path))
    reset_null_worlds()


@pytest.fixture
def world(runtime: NullRuntime) -> NullWorld:
    return runtime.world


def load(runtime: Runtime, request: LoadRequest = REQUEST) -> list[LoadProgress]:
    return list(runtime.load(request, lambda: False))


def only(runtime: Runtime) -> RunningInstance:
    (instance,) = runtime.running()
    return instance


def test_load_goes_through_the_stages_and_never_falls(runtime: NullRuntime, world: NullWorld) -> None:
    world.load_seconds = 0.1
    signs = load(runtime)
    fractions = [sign.fraction or 0.0 for sign in signs]
    assert fractions == sorted(fractions)
    assert signs[0].stage == LoadStage.STARTING
    assert LoadStage.READING in {sign.stage for sign in signs}
    assert (signs[-1].stage, fractions[-1]) == (LoadStage.READY, 1.0)
    assert all(fraction < 1 for fraction in fractions[:-1])
    assert signs[-1].bytes_done == 1000


def test_loaded_model_is_ready_holds_memory_and_answers(runtime: NullRuntime, world: NullWorld) -> None:
    world.memory["model-a"] = 4096
    world.busy["model-a"] = 2
    load(runtime)
    assert (only(runtime).is_ready, only(runtime).memory_bytes) == (True, 4096)
    assert runtime.busy_count("one") == 2
    assert runtime.verify("one").text
    assert runtime.log_tail("one")
    assert world.loads == [REQUEST]


def test_two_runtimes_with_one_folder_share_a_world(runtime: NullRuntime, tmp_path: Path) -> None:
    load(runtime)
    assert only(NullRuntime(RuntimeConfig("again", "null", state_dir=tmp_path))).instance_id == "one"
    assert null_world(tmp_path / "elsewhere").instances == {}


def test_cancelled_load_leaves_nothing(runtime: NullRuntime, world: NullWorld) -> None:
    world.load_seconds = 60
    looks = iter([False, False])
    with pytest.raises(LoadCancelled):
        list(runtime.load(REQUEST, lambda: next(looks, True)))
    assert runtime.running() == ()


def test_failing_load_comes_as_far_as_told(runtime: NullRuntime, world: NullWorld) -> None:
    world.load_seconds = 0.1
    world.failures["model-a"] = Failure(ErrorCode.OUT_OF_MEMORY, fraction=0.5)
    signs: list[LoadProgress] = []
    with pytest.raises(LoadFailed) as failure:
        signs.extend(runtime.load(REQUEST, lambda: False))
    assert failure.value.code == ErrorCode.OUT_OF_MEMORY
    assert runtime.running() == ()


def test_stalled_load_gives_the_same_figure_until_cancelled(runtime: NullRuntime, world: NullWorld) -> None:
    world.load_seconds = 0.02
    world.stalls["model-a"] = 0.3
    signs = runtime.load(REQUEST, lambda: False)
    fractions = [next(signs).fraction for _ in range(6)]
    assert fractions[-3:] == [0.3, 0.3, 0.3]
    assert not only(runtime).is_ready
    signs.close()  # type: ignore[attr-defined] # it is a generator
    assert runtime.running() == ()


def test_crashed_instance_is_told_of_until_forgotten(runtime: NullRuntime, world: NullWorld) -> None:
    load(runtime)
    runtime.forget("one")
    assert only(runtime).is_alive  # a living one is not forgotten
    world.crash("one")
    assert (only(runtime).is_alive, only(runtime).exit_code) == (False, ErrorCode.KILLED)
    with pytest.raises(VerifyFailed):
        runtime.verify("one")
    assert runtime.busy_count("one") == 0
    runtime.forget("one")
    assert runtime.running() == ()


def test_crash_during_a_load_fails_it(runtime: NullRuntime, world: NullWorld) -> None:
    world.load_seconds = 60
    signs = runtime.load(REQUEST, lambda: False)
    next(signs)
    world.crash("one")
    with pytest.raises(LoadFailed) as failure:
        list(signs)
    assert failure.value.code == ErrorCode.KILLED


def test_unload_takes_it_out_and_knows_no_absent_ones(runtime: NullRuntime, world: NullWorld) -> None:
    load(runtime)
    world.stuck_unloads.add("model-a")
    with pytest.raises(UnloadFailed):
        runtime.unload("one")
    world.stuck_unloads.clear()
    runtime.unload("one")
    runtime.unload("one")
    assert runtime.running() == ()


def test_silent_model_fails_verification(runtime: NullRuntime, world: NullWorld) -> None:
    load(runtime)
    world.silent.add("model-a")
    with pytest.raises(VerifyFailed):
        runtime.verify("one")


def test_hanging_model_lets_a_verification_wait_until_it_is_gone(runtime: NullRuntime, world: NullWorld) -> None:
    load(runtime)
    world.hanging.add("model-a")
    with ThreadPoolExecutor(1) as thread:
        trial = thread.submit(runtime.verify, "one")
        assert not wait([trial], timeout=0.1).done
        runtime.unload("one")
        with pytest.raises(VerifyFailed):
            trial.result(timeout=5)


def test_busy_counts_come_one_after_the_other_then_the_standing_one(runtime: NullRuntime, world: NullWorld) -> None:
    load(runtime)
    world.busy["model-a"] = 1
    world.busy_next["model-a"] = [3, 2]
    assert [runtime.busy_count("one") for _ in range(4)] == [3, 2, 1, 1]


def test_read_ahead_lasts_as_long_as_told_or_until_cancelled(runtime: NullRuntime, world: NullWorld) -> None:
    assert runtime.prefetch(REQUEST, lambda: True) == 1000
    world.prefetch_seconds = 60
    assert runtime.prefetch(REQUEST, lambda: True) == 0
    assert (world.prefetched, world.prefetches_ended) == (["model-a", "model-a"], ["done", "cancelled"])


def test_second_load_of_an_instance_is_refused(runtime: NullRuntime) -> None:
    load(runtime)
    with pytest.raises(RuntimeRefused):
        load(runtime)
    assert only(runtime).is_ready


def test_runtime_that_is_away_says_so_everywhere(runtime: NullRuntime, world: NullWorld) -> None:
    world.is_away = True
    assert runtime.check().code == ErrorCode.RUNTIME_UNREACHABLE
    for call in (
        runtime.running,
        lambda: load(runtime),
        lambda: runtime.unload("one"),
        lambda: runtime.busy_count("one"),
    ):
        with pytest.raises(RuntimeAway):
            call()


def test_options_set_the_pace(tmp_path: Path) -> None:
    runtime = NullRuntime(RuntimeConfig("slow", "null", {"load_seconds": 3, "unknown": 1}, state_dir=tmp_path))
    assert runtime.world.load_seconds == 3
    reset_null_worlds()


def test_what_is_prepared_is_loaded_or_dropped(runtime: NullRuntime, world: NullWorld) -> None:
    runtime.prepare(REQUEST)
    assert (world.prepared, list(runtime.running())) == ({REQUEST.instance_id: "model-a"}, [])
    load(runtime)
    runtime.drop_prepared()
    assert (world.prepared, world.drops) == ({}, [])
    runtime.prepare(REQUEST)
    runtime.drop_prepared()
    assert (world.prepared, world.drops) == ({}, ["model-a"])
