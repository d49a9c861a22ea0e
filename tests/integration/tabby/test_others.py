"""Other people's clients on the same TabbyAPI, and unloading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.exceptions import LoadFailed, RuntimeRefused, UnloadFailed, VerifyFailed
from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby import Canned, TabbyDouble
from tests.fakes.tabby.talk import chat
from tests.fakes.tabby.talk import load as load_raw
from tests.integration.tabby.helpers import ALPHA, BETA, SLOW, ask, load, never, runtime_for, wait_for

Second = Callable[[TabbyDouble], TabbyRuntime]


def test_what_somebody_else_loaded_is_shown_as_external_under_a_stable_id(
    runtime: TabbyRuntime, double: TabbyDouble, open_runtime: Second
) -> None:
    double.put(BETA)
    (instance,) = runtime.running()
    assert (instance.model_id, instance.is_external, instance.is_ready, instance.is_alive) == (BETA, True, True, True)
    assert [instance] == list(open_runtime(double).running())
    assert runtime.verify(instance.instance_id).text


def test_what_gantry_loaded_is_its_own_in_every_process(
    runtime: TabbyRuntime, double: TabbyDouble, open_runtime: Second
) -> None:
    instance_id = load(runtime, ALPHA)
    (instance,) = open_runtime(double).running()
    assert (instance.instance_id, instance.is_external) == (instance_id, False)


def test_an_outside_switch_wins(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    instance_id = load(runtime, ALPHA)
    load_raw(double, BETA).read()
    (instance,) = runtime.running()
    assert (instance.model_id, instance.is_external) == (BETA, True)
    assert instance.instance_id != instance_id
    with pytest.raises(VerifyFailed, match="not loaded any more"):
        runtime.verify(instance_id)


def test_an_outside_unload_leaves_nothing_running(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    load(runtime, ALPHA)
    double.drop()
    assert list(runtime.running()) == []


def test_the_same_model_loaded_again_by_somebody_else_is_theirs(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    load(runtime, ALPHA)
    double.drop()
    assert list(runtime.running()) == []
    double.put(ALPHA)
    assert [instance.is_external for instance in runtime.running()] == [True]


def test_the_same_model_with_other_parameters_is_somebody_elses(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    load(runtime, ALPHA)
    double.put(ALPHA, max_seq_len=16384)
    assert [instance.is_external for instance in runtime.running()] == [True]


def test_an_outside_load_that_swaps_ours_away_at_the_end_is_told(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    signs = followed.load(ask(ALPHA), never)
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    other = load_raw(manual, BETA)  # queues behind ours
    manual.slow_seconds = 30  # so that the proof comes late
    manual.advance(15)
    manual.wait_for(lambda: manual.count("/v1/model") == 2)
    manual.advance(60)
    manual.slow_seconds = 0
    other.close()
    with pytest.raises(LoadFailed, match="somebody else"):
        list(signs)
    assert [instance.model_id for instance in followed.running()] == [BETA]


def test_an_outside_load_in_progress_looks_like_nothing_loaded(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    other = load_raw(manual, SLOW)
    assert list(followed.running()) == []
    manual.advance(120)
    assert [instance.model_id for instance in followed.running()] == [SLOW]
    other.close()


def test_an_own_load_in_progress_is_shown_as_not_ready(
    followed: TabbyRuntime, manual: TabbyDouble, open_runtime: Second
) -> None:
    request = ask(ALPHA)
    signs = followed.load(request, never)
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    (instance,) = open_runtime(manual).running()
    assert (instance.instance_id, instance.is_ready, instance.is_alive) == (request.instance_id, False, True)
    manual.advance(60)
    list(signs)
    assert [instance.is_ready for instance in followed.running()] == [True]


def test_an_answer_by_another_model_is_no_proof(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    instance_id = load(runtime, ALPHA)
    reply = b'{"model": "beta-13b", "choices": [{"message": {"content": "hi"}}], "usage": null}'
    double.canned["/v1/chat/completions"] = Canned(reply)
    with pytest.raises(VerifyFailed, match="beta-13b answered"):
        runtime.verify(instance_id)


@pytest.mark.parametrize(
    "reply",
    [
        b'{"model": "alpha-7b", "choices": [], "usage": null}',
        b'{"model": "alpha-7b", "choices": [{"message": {"content": ""}, "finish_reason": "stop", "eos_reason": null}]}',
        b'{"model": "alpha-7b", "choices": [{"message": null}], "usage": {"completion_tokens": 0}}',
    ],
)
def test_an_answer_without_a_token_is_no_proof(runtime: TabbyRuntime, double: TabbyDouble, reply: bytes) -> None:
    instance_id = load(runtime, ALPHA)
    double.canned["/v1/chat/completions"] = Canned(reply)
    with pytest.raises(VerifyFailed, match="without a token"):
        runtime.verify(instance_id)


def test_a_wrong_api_key_shows_when_the_first_token_is_asked_for(double: TabbyDouble, tmp_path: Path) -> None:
    double.put(ALPHA)
    runtime = runtime_for(double, tmp_path)
    (instance,) = runtime.running()
    double.canned["/v1/chat/completions"] = Canned(b'{"detail": "Invalid API key"}', status=401)
    with pytest.raises(VerifyFailed, match="refused the API key") as caught:
        runtime.verify(instance.instance_id)
    assert caught.value.code == ErrorCode.UNAUTHORISED


# Unloading


def test_unload_ends_it_and_returns_when_it_is_gone(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    instance_id = load(runtime, ALPHA)
    runtime.unload(instance_id)
    assert double.loaded is None
    assert list(runtime.running()) == []


def test_unload_of_what_is_not_there_is_no_error(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    runtime.unload("5b9c0b0e-0000-4000-8000-000000000000")
    instance_id = load(runtime, ALPHA)
    runtime.unload(instance_id)
    runtime.unload(instance_id)
    assert double.count("/v1/model/unload") == 1


def test_unload_never_takes_somebody_elses_model_for_ours(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    instance_id = load(runtime, ALPHA)
    double.put(BETA)
    runtime.unload(instance_id)
    assert double.loaded == BETA


def test_an_external_model_is_unloaded_when_asked_for_by_its_own_id(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    double.put(BETA)
    (instance,) = runtime.running()
    runtime.forget(instance.instance_id)
    assert double.loaded == BETA
    runtime.unload(instance.instance_id)
    assert double.loaded is None


def test_unload_cuts_running_answers_and_does_not_wait_for_them(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    instance_id = load(runtime, ALPHA)
    stream = chat(double, "[[stub tokens=1000 delay=60]]", stream=True)
    runtime.unload(instance_id)
    answer = stream.look()
    assert (answer.status, answer.is_complete) == (200, False)  # and stays open for ever
    stream.leave()


def test_an_unload_that_was_overtaken_by_another_is_done(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    instance_id = load(runtime, ALPHA)
    double.canned["/v1/model/unload"] = Canned(b"Internal Server Error", status=500, content_type="text/plain")
    with pytest.raises(UnloadFailed):
        runtime.unload(instance_id)
    double.put(BETA)
    runtime.unload(instance_id)


def test_an_unload_with_a_wrong_admin_key_is_refused(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    instance_id = load(runtime, ALPHA)
    double.keys.admin_key = "changed-meanwhile"
    with pytest.raises(RuntimeRefused, match="refused the admin key"):
        runtime.unload(instance_id)
    assert double.loaded == ALPHA
