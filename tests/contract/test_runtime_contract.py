"""What every runtime promises (gantry/runtimes/base.py), put to each of them: the real servers, and doubles of what cannot run here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import psutil
import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import (
    AvailableModel,
    LoadProgress,
    LoadRequest,
    LoadStage,
    ProgressKind,
    RunningInstance,
    Runtime,
)
from gantry.runtimes.exceptions import (
    LoadCancelled,
    LoadFailed,
    RuntimeAway,
    RuntimeFault,
    RuntimeRefused,
    VerifyFailed,
)
from tests.contract.cases import Bench
from tests.fakes.unreliable import Trouble

PATIENCE_SECONDS = 20.0
NOBODY = "00000000-0000-4000-8000-000000000000"


def load(runtime: Runtime, request: LoadRequest) -> list[LoadProgress]:
    return list(runtime.load(request, lambda: False))


def only(runtime: Runtime) -> RunningInstance:
    (instance,) = runtime.running()
    return instance


def fault_of(call: Callable[[], object]) -> RuntimeFault | None:
    try:
        call()
    except RuntimeFault as fault:
        return fault
    return None


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# What is there


def test_healthy_runtime_says_what_it_is(bench: Bench) -> None:
    health = bench.build().check()
    assert health.is_ok, health.detail
    assert health.version


def test_nothing_runs_at_first(bench: Bench) -> None:
    assert list(bench.build().running()) == []


def test_models_are_those_that_the_server_offers_by_itself(bench: Bench) -> None:
    found = bench.build().models()
    assert all(isinstance(model, AvailableModel) for model in found)
    assert bool(found) == (bench.proxy is not None)  # one that is given files offers none
    names = [model.model_id for model in found]
    assert not names or bench.request("small").model_id in names


def test_one_that_is_not_there_is_no_error(bench: Bench) -> None:
    runtime = bench.build()
    runtime.unload(NOBODY)
    runtime.forget(NOBODY)
    assert runtime.busy_count(NOBODY) == 0
    assert tuple(runtime.log_tail(NOBODY)) == ()
    with pytest.raises(VerifyFailed):
        runtime.verify(NOBODY)


# Loading


def test_load_tells_of_progress_that_never_falls_and_ends_ready(bench: Bench) -> None:
    runtime = bench.build()
    signs = load(runtime, bench.request("slow"))
    assert signs[-1].stage == LoadStage.READY
    stages = [sign.stage for sign in signs]
    assert stages == sorted(stages, key=list(LoadStage).index)
    assert LoadStage.READY not in stages[:-1]
    assert_real_progress(runtime, signs)


def assert_real_progress(runtime: Runtime, signs: Sequence[LoadProgress]) -> None:
    fractions = [sign.fraction for sign in signs if sign.fraction is not None]
    assert bool(fractions) == (runtime.capabilities.progress != ProgressKind.NONE)
    assert fractions == sorted(fractions)
    assert all(0 <= fraction < 1 for fraction in fractions[:-1])
    assert fractions[-1] == 1
    assert any(fraction > 0 for fraction in fractions[:-1]), fractions
    done = [sign.bytes_done for sign in signs if sign.bytes_done is not None]
    assert done == sorted(done)
    if runtime.capabilities.progress == ProgressKind.STEPS:
        assert any(" of " in sign.detail for sign in signs)


def test_loaded_model_is_found_verified_and_not_busy(bench: Bench) -> None:
    runtime, request = bench.build(), bench.request("small")
    runtime.check_load(request)
    load(runtime, request)
    instance = only(runtime)
    assert (instance.instance_id, instance.model_id) == (request.instance_id, request.model_id)
    assert instance.is_alive
    assert instance.is_ready
    assert not instance.is_external
    assert not instance.is_asleep
    assert instance.started_at == pytest.approx(time.time(), abs=60)
    assert runtime.verify(request.instance_id).seconds >= 0
    assert runtime.busy_count(request.instance_id) == 0
    assert all(isinstance(line, str) for line in runtime.log_tail(request.instance_id))
    assert len(runtime.log_tail(request.instance_id, 1)) <= 1
    if instance.api_key:
        assert instance.api_key not in repr(instance)


def test_flags_say_what_is_seen_of_a_loaded_model(bench: Bench) -> None:
    runtime = bench.build()
    load(runtime, bench.request("small"))
    instance, can = only(runtime), runtime.capabilities
    assert (instance.memory_bytes is not None) == can.reports_memory
    assert (instance.pid is not None) == can.owns_processes
    assert instance.pid is None or psutil.pid_exists(instance.pid)


def test_another_process_finds_the_same(bench: Bench) -> None:
    request = bench.request("small")
    load(bench.build(), request)
    other = bench.build()
    assert only(other).instance_id == request.instance_id
    other.unload(request.instance_id)
    assert list(bench.build().running()) == []


def test_load_of_the_loaded_leaves_it_loaded(bench: Bench) -> None:
    runtime, request = bench.build(), bench.request("small")
    load(runtime, request)
    refusal = fault_of(lambda: load(runtime, request))
    assert refusal is None or (isinstance(refusal, RuntimeRefused) and refusal.detail)
    assert only(runtime).instance_id == request.instance_id
    runtime.verify(request.instance_id)


def test_load_of_an_unknown_model_is_refused_before_anything_is_touched(bench: Bench) -> None:
    runtime, kept, request = bench.build(), bench.request("small"), bench.request("absent")
    load(runtime, kept)
    fault = fault_of(lambda: runtime.check_load(request))
    assert isinstance(fault, LoadFailed | RuntimeRefused)
    assert fault.code == ErrorCode.NOT_DOWNLOADED
    assert isinstance(fault_of(lambda: load(runtime, request)), LoadFailed | RuntimeRefused)
    assert only(runtime).instance_id == kept.instance_id
    runtime.verify(kept.instance_id)


def test_load_that_fails_names_a_cause_and_leaves_nothing(bench: Bench) -> None:
    runtime, request = bench.build(), bench.request("broken")
    with pytest.raises(LoadFailed) as failure:
        load(runtime, request)
    assert isinstance(failure.value.code, ErrorCode)
    assert failure.value.detail or failure.value.code != ErrorCode.LOAD_FAILED or runtime.kind == "null"
    assert list(runtime.running()) == []
    after = bench.request("small")
    load(runtime, after)
    runtime.verify(after.instance_id)


def test_load_that_is_called_off_leaves_nothing(bench: Bench) -> None:
    runtime, request = bench.build(), bench.request("slow")
    is_cancelled = threading.Event()
    signs: list[LoadProgress] = []

    def carry_out() -> None:
        for sign in runtime.load(request, is_cancelled.is_set):
            signs.append(sign)
            if sign.stage == LoadStage.READING:
                is_cancelled.set()

    with pytest.raises(LoadCancelled):
        carry_out()
    assert list(runtime.running()) == []
    assert all(sign.stage != LoadStage.READY for sign in signs)
    if not runtime.capabilities.can_cancel_load:
        assert any("cannot stop" in sign.detail for sign in signs)  # the truth is told while it goes on
    assert not any("failure" in model.facts for model in runtime.models())
    load(runtime, request)
    assert only(runtime).is_ready


def test_load_called_off_before_it_began_changes_nothing(bench: Bench) -> None:
    runtime, kept = bench.build(), bench.request("small")
    load(runtime, kept)
    with pytest.raises(LoadCancelled):
        list(runtime.load(bench.request("other"), lambda: True))
    assert only(runtime).instance_id == kept.instance_id


def test_two_loads_at_once_both_end_and_the_flag_says_what_stays(bench: Bench) -> None:
    runtime = bench.build()
    requests = [bench.request("small"), bench.request("other")]
    faults: list[RuntimeFault | None] = []

    def carry_out(request: LoadRequest) -> None:
        faults.append(fault_of(lambda: load(bench.build(), request)))

    threads = [threading.Thread(target=carry_out, args=[request]) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert faults == [None, None]
    running = {instance.instance_id for instance in runtime.running()}
    assert running <= {request.instance_id for request in requests}
    assert len(running) == (2 if runtime.capabilities.holds_many else 1)
    for instance_id in running:
        runtime.verify(instance_id)


def test_what_is_done_ahead_of_a_load_that_does_not_come_is_harmless(bench: Bench) -> None:
    runtime, kept = bench.build(), bench.request("small")
    load(runtime, kept)
    for role in ("other", "absent", "broken"):
        request = bench.request(role)
        for is_cancelled in (False, True):
            assert 0 <= runtime.prefetch(request, lambda: is_cancelled) <= request.file_bytes  # noqa: B023 # called at once
        runtime.prepare(request)
        runtime.drop_prepared()
    assert only(runtime).instance_id == kept.instance_id
    runtime.verify(kept.instance_id)


def test_prepared_load_is_no_instance_until_it_is_loaded(bench: Bench) -> None:
    runtime, request = bench.build(), bench.request("small")
    runtime.prepare(request)
    assert list(runtime.running()) == []
    assert load(runtime, request)[-1].stage == LoadStage.READY
    runtime.drop_prepared()
    assert only(runtime).instance_id == request.instance_id
    runtime.verify(request.instance_id)


# Ending


def test_unload_ends_it_and_a_second_one_is_no_error(bench: Bench) -> None:
    runtime, request = bench.build(), bench.request("small")
    load(runtime, request)
    pid = only(runtime).pid
    runtime.unload(request.instance_id)
    assert list(runtime.running()) == []
    assert pid is None or not psutil.pid_exists(pid)
    runtime.unload(request.instance_id)
    with pytest.raises(VerifyFailed):
        runtime.verify(request.instance_id)
    again = bench.request("small")
    load(runtime, again)
    assert only(runtime).instance_id == again.instance_id


def test_unload_leaves_others_alone(bench: Bench) -> None:
    runtime, first, second = bench.build(), bench.request("small"), bench.request("other")
    load(runtime, first)
    load(runtime, second)
    runtime.unload(first.instance_id)
    assert only(runtime).instance_id == second.instance_id
    runtime.verify(second.instance_id)


def test_living_one_is_not_forgotten(bench: Bench) -> None:
    runtime, request = bench.build(), bench.request("small")
    load(runtime, request)
    runtime.forget(request.instance_id)
    assert only(runtime).is_ready


def test_dead_one_is_told_of_until_it_is_forgotten(bench: Bench) -> None:
    runtime, request = bench.build(), bench.request("small")
    load(runtime, request)
    if bench.crash is None:
        assert not runtime.capabilities.owns_processes  # nobody but the owner of a process can tell that it died
        return
    bench.crash(request.instance_id)
    wait_for(lambda: not only(runtime).is_alive and only(runtime).exit_text != "gone without a trace")
    dead = only(bench.build())
    assert not dead.is_ready
    assert dead.exit_text
    assert dead.exit_code is not None
    with pytest.raises(VerifyFailed):
        runtime.verify(request.instance_id)
    assert runtime.busy_count(request.instance_id) == 0
    runtime.forget(request.instance_id)
    assert list(runtime.running()) == []


# Other people's clients


def test_what_somebody_else_loads_is_shown_as_theirs_and_ends_only_when_asked(remote: Bench) -> None:
    assert remote.load_elsewhere is not None
    runtime = remote.build()
    remote.load_elsewhere("small")
    seen = only(runtime)
    assert seen.is_external
    assert seen.is_ready
    assert seen.model_id == remote.request("small").model_id
    assert only(remote.build()).instance_id == seen.instance_id  # in every process and at every look
    runtime.verify(seen.instance_id)
    runtime.forget(seen.instance_id)
    assert only(runtime).is_alive
    runtime.unload(seen.instance_id)
    assert list(runtime.running()) == []


def test_what_somebody_else_unloads_is_gone_without_a_complaint(remote: Bench) -> None:
    assert remote.unload_elsewhere is not None
    runtime, request = remote.build(), remote.request("small")
    load(runtime, request)
    remote.unload_elsewhere("small")
    assert list(runtime.running()) == []
    assert not any("failure" in model.facts for model in runtime.models())


def test_what_somebody_else_loaded_is_taken_over_by_a_load_of_it(remote: Bench) -> None:
    assert remote.load_elsewhere is not None
    runtime, request = remote.build(), remote.request("small")
    remote.load_elsewhere("small")
    load(runtime, request)
    assert (only(runtime).instance_id, only(runtime).is_external) == (request.instance_id, False)


# A runtime that is away, and back


@pytest.mark.parametrize("trouble", Trouble, ids=lambda trouble: trouble.name.lower())
def test_trouble_on_the_way_is_told_as_a_fault_and_passes(remote: Bench, trouble: Trouble) -> None:
    assert remote.proxy is not None
    runtime, request = remote.build(), remote.request("small")
    load(runtime, request)
    remote.proxy.trouble = trouble
    with pytest.MonkeyPatch.context() as patch:
        remote.hurry(patch)
        assert_away(remote.build(), request.instance_id, remote.request("other"))
    remote.proxy.trouble = None
    assert runtime.check().is_ok
    assert only(runtime).instance_id == request.instance_id
    runtime.verify(request.instance_id)


def test_address_that_does_not_exist_is_told_as_away(remote: Bench) -> None:
    assert remote.build_at is not None
    with pytest.MonkeyPatch.context() as patch:
        remote.hurry(patch)
        runtime = remote.build_at("http://gantry-test.invalid:1")
        assert_away(runtime, NOBODY, remote.request("small"))


def assert_away(runtime: Runtime, instance_id: str, request: LoadRequest) -> None:
    """Every call ends, and with the adapter's own errors only."""
    health = runtime.check()
    assert not health.is_ok
    assert health.detail
    assert health.code == ErrorCode.RUNTIME_UNREACHABLE
    for call in (runtime.running, runtime.models):
        with pytest.raises(RuntimeAway) as fault:
            call()
        assert fault.value.detail
    with pytest.raises(RuntimeAway):
        runtime.check_load(request)
    with pytest.raises(RuntimeFault):
        load(runtime, request)
    with pytest.raises(RuntimeFault):
        runtime.unload(instance_id)
    with pytest.raises((VerifyFailed, RuntimeAway)):
        runtime.verify(instance_id)
    assert runtime.prefetch(request, lambda: False) == 0
    runtime.prepare(request)
    runtime.drop_prepared()
    assert tuple(runtime.log_tail(instance_id)) == ()
