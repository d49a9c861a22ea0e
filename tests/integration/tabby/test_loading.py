"""Loads through the adapter: progress, parameters, failures, cancel, crossing others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadStage
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeAway, RuntimeRefused, UnloadFailed
from gantry.runtimes.tabby import TabbyRuntime
from gantry.runtimes.tabby_progress import CANCEL_WORDS
from tests.fakes.tabby import TabbyDouble
from tests.fakes.tabby.talk import chat
from tests.fakes.tabby.talk import load as load_raw
from tests.fakes.tabby.talk import request as request_raw
from tests.integration.tabby.helpers import ALPHA, BETA, SLOW, ask, load, never, run, runtime_for, wait_for


def test_a_load_shows_module_k_of_n_and_ends_ready(runtime: TabbyRuntime) -> None:
    signs = run(runtime, ask(ALPHA))
    details = [sign.detail for sign in signs]
    assert [f"Module {number} of 8" for number in range(1, 9)] == [
        text for text in details if text.startswith("Module")
    ]
    assert (signs[0].stage, signs[-1].stage, signs[-1].fraction) == (LoadStage.STARTING, LoadStage.READY, 1.0)


@pytest.mark.parametrize(
    ("model_id", "parameters", "words"),
    [
        (ALPHA, {"draft_model": "draft-1b"}, "Draft model: module 3 of 3"),
        ("vision-9b", {"vision": True}, "Vision part: module 4 of 4"),
        ("vision-9b", {"vision": True, "draft_model": "draft-1b"}, "Draft model: module 1 of 3"),
    ],
)
def test_parts_are_named_and_the_fraction_never_falls(
    runtime: TabbyRuntime, model_id: str, parameters: dict[str, Any], words: str
) -> None:
    signs = run(runtime, ask(model_id, **parameters))
    fractions = [sign.fraction or 0.0 for sign in signs]
    assert words in [sign.detail for sign in signs]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_load_that_does_not_move_repeats_its_last_figures(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    signs = followed.load(ask(ALPHA), never)
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    manual.advance(3)
    third = wait_for(signs, "Module 3 of 8")
    assert [next(signs), next(signs)] == [third, third]  # the double's time stands still
    manual.advance(60)
    assert [*signs][-1].stage == LoadStage.READY


def test_parameters_are_passed_on_under_their_names(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    parameters: dict[str, Any] = {
        "max_seq_len": 8192,
        "cache_size": 16384,
        "cache_mode": "6,4",
        "gpu_split": [20.5, 24],
        "gpu_split_auto": False,
        "autosplit_reserve": [96],
        "tensor_parallel": True,
        "rope_alpha": 2.5,
        "chunk_size": 1024,
        "prompt_template": "chatml",
        "vision": False,
    }
    run(runtime, ask(ALPHA, draft_model="draft-1b", **parameters))
    (request,) = [request for request in double.requests if request.path == "/v1/model/load"]
    draft = {"draft_model": {"draft_model_name": "draft-1b"}}
    assert json.loads(request.body) == {"model_name": ALPHA, **parameters, **draft}


def test_finished_is_not_success(runtime: TabbyRuntime) -> None:
    with pytest.raises(LoadFailed, match="CUDA out of memory") as caught:
        run(runtime, ask("lateoom-30b"))
    assert caught.value.code == ErrorCode.OUT_OF_MEMORY
    assert list(runtime.running()) == []


@pytest.mark.parametrize(
    ("model_id", "code", "words"),
    [
        ("broken-8b", ErrorCode.LOAD_FAILED, "tensor data is damaged"),
        ("toolarge-70b", ErrorCode.OUT_OF_MEMORY, "Insufficient VRAM"),
        ("not-a-model", ErrorCode.LOAD_FAILED, "no model that TabbyAPI can read"),
        ("oldquant-7b", ErrorCode.LOAD_FAILED, "cannot read the way in which the model is quantised"),
        ("no-such-model", ErrorCode.NOT_DOWNLOADED, "no such model"),
    ],
)
def test_a_load_that_fails_is_told_with_its_cause(
    runtime: TabbyRuntime, model_id: str, code: ErrorCode, words: str
) -> None:
    with pytest.raises(LoadFailed, match=words) as caught:
        run(runtime, ask(model_id))
    assert caught.value.code == code
    assert list(runtime.running()) == []


def test_a_failing_load_costs_the_model_before_it(runtime: TabbyRuntime) -> None:
    load(runtime, ALPHA)
    with pytest.raises(LoadFailed):
        run(runtime, ask("broken-8b"))
    assert list(runtime.running()) == []
    load(runtime, ALPHA)
    assert [instance.model_id for instance in runtime.running()] == [ALPHA]


# Refused before anything happens


@pytest.mark.parametrize(
    ("model_id", "parameters", "words"),
    [
        ("gone-7b", {}, "no model gone-7b"),
        ("README.txt", {}, "no model README.txt"),
        (ALPHA, {"draft_model": "gone-1b"}, "no draft model gone-1b"),
    ],
)
def test_a_check_finds_what_would_cost_the_loaded_model(
    runtime: TabbyRuntime, double: TabbyDouble, model_id: str, parameters: dict[str, Any], words: str
) -> None:
    load(runtime, BETA)
    with pytest.raises(LoadFailed, match=words) as caught:
        runtime.check_load(ask(model_id, **parameters))
    assert caught.value.code == ErrorCode.NOT_DOWNLOADED
    assert double.loaded == BETA


@pytest.mark.parametrize("model_id", [".", "..", "/etc", "alpha-7b/..", "a//b", "", "a\nb", "a\\b"])
def test_names_that_lead_elsewhere_are_never_sent(runtime: TabbyRuntime, double: TabbyDouble, model_id: str) -> None:
    for attempt in (lambda: runtime.check_load(ask(model_id)), lambda: run(runtime, ask(model_id))):
        with pytest.raises(RuntimeRefused):
            attempt()
    assert double.count("/v1/model/load") == 0


def test_bad_parameters_are_refused_before_anything_is_sent(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    with pytest.raises(RuntimeRefused, match="cache_mode: must be FP16") as caught:
        run(runtime, ask(ALPHA, cache_mode="Q5"))
    assert caught.value.code == ErrorCode.BAD_PARAMETER
    assert double.requests == []


# Loaded already


def test_loading_the_loaded_with_the_same_parameters_keeps_it(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    load(runtime, ALPHA, max_seq_len=8192)
    again = load(runtime, ALPHA, max_seq_len=8192)
    assert double.engine.history == [f"load {ALPHA}"]
    assert [instance.instance_id for instance in runtime.running()] == [again]


def test_loading_the_loaded_with_other_parameters_unloads_it_first(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    load(runtime, ALPHA, max_seq_len=8192)
    signs = run(runtime, ask(ALPHA, max_seq_len=4096))
    assert f"Unloading {ALPHA}: its parameters change" in [sign.detail for sign in signs]
    assert double.engine.history == [f"load {ALPHA}", f"unload {ALPHA}", f"load {ALPHA}"]
    current = runtime.current()
    assert current is not None
    assert current.parameters["max_seq_len"] == 4096


# Waiting for others


def test_a_load_waits_for_running_answers_and_says_so(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    manual.put(ALPHA)
    answer = chat(manual, "[[stub tokens=10 delay=1]]", stream=True)
    signs = followed.load(ask(BETA), never)
    wait_for(signs, f"Waiting until {ALPHA} is unloaded")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    manual.advance(5)
    assert next(signs).stage == LoadStage.STARTING
    assert [instance.model_id for instance in followed.running()] == [ALPHA, BETA]
    manual.advance(60)
    assert [*signs][-1].stage == LoadStage.READY
    assert answer.read().is_complete


def test_loads_queue_behind_a_load_of_somebody_else(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    other = load_raw(manual, SLOW)
    signs = followed.load(ask(BETA), never)
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 2)
    manual.advance(30)
    assert next(signs).stage == LoadStage.STARTING  # nothing on the wire tells that another one loads
    manual.advance(60)
    assert [*signs][-1].stage == LoadStage.READY
    assert manual.loaded == BETA
    other.close()


def test_two_loads_of_gantry_go_one_after_the_other(
    followed: TabbyRuntime, manual: TabbyDouble, open_runtime: Callable[[TabbyDouble], TabbyRuntime]
) -> None:
    first = followed.load(ask(ALPHA), never)
    wait_for(first, "Asking")
    second = open_runtime(manual).load(ask(BETA), never)
    wait_for(second, "Waiting for another load or unload on this TabbyAPI")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    manual.advance(20)
    assert [*first][-1].stage == LoadStage.READY
    wait_for(second, f"Waiting until {ALPHA} is unloaded")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 2)
    manual.advance(20)
    assert [*second][-1].stage == LoadStage.READY


def test_no_unload_is_sent_while_gantry_loads(
    followed: TabbyRuntime, manual: TabbyDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gantry.runtimes.tabby.TURN_SECONDS", 0.0)
    request = ask(ALPHA)
    signs = followed.load(request, never)
    wait_for(signs, "Asking")
    with pytest.raises(UnloadFailed, match="is loading another model"):
        followed.unload(request.instance_id)
    assert manual.count("/v1/model/unload") == 0
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    manual.advance(20)
    assert [*signs][-1].stage == LoadStage.READY


# Cancel


def test_a_cancel_waits_for_the_end_of_the_load_says_so_and_unloads(
    followed: TabbyRuntime, manual: TabbyDouble
) -> None:
    wishes: list[str] = []
    signs = followed.load(ask(ALPHA), lambda: bool(wishes))
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    manual.advance(2)
    wait_for(signs, "Module 2 of 8")
    wishes.append("cancel")
    before = wait_for(signs, CANCEL_WORDS)
    manual.advance(3)
    after = next(sign for sign in signs if sign.fraction != before.fraction)
    assert after.detail == CANCEL_WORDS  # it goes on: the figures move, the words tell the truth
    manual.advance(20)
    manual.wait_for(lambda: manual.count("/v1/model/unload") == 1)
    manual.advance(20)
    with pytest.raises(LoadCancelled):
        list(signs)
    assert manual.engine.history == [f"load {ALPHA}", f"unload {ALPHA}"]
    assert list(followed.running()) == []


def test_a_cancel_before_tabbyapi_was_asked_ends_at_once(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    with pytest.raises(LoadCancelled):
        run(runtime, ask(ALPHA), lambda: True)
    assert double.count("/v1/model/load") == 0


def test_a_cancelled_load_that_fails_is_cancelled(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    wishes: list[str] = []
    signs = followed.load(ask("broken-8b"), lambda: bool(wishes))
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    wishes.append("cancel")
    wait_for(signs, CANCEL_WORDS)
    manual.advance(60)
    with pytest.raises(LoadCancelled):
        list(signs)


def test_a_cancelled_load_that_stands_still_is_given_up(manual: TabbyDouble, tmp_path: Path) -> None:
    runtime = runtime_for(manual, tmp_path, options={"cancel_seconds": 0})
    wishes: list[str] = []
    signs = runtime.load(ask(ALPHA), lambda: bool(wishes))
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    wishes.append("cancel")
    with pytest.raises(LoadFailed, match="may still be loaded later") as caught:
        list(signs)
    assert caught.value.code == ErrorCode.LOAD_STALLED


# Broken connections


def test_a_broken_stream_is_joined_again_and_the_model_loaded_once(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    manual.api.drops_load_after = 3
    signs = followed.load(ask(ALPHA), never)
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    manual.advance(5)
    wait_for(signs, "The connection broke; TabbyAPI goes on loading")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 2)
    manual.advance(60)
    assert [*signs][-1].stage == LoadStage.READY
    assert manual.engine.history == [f"load {ALPHA}"]
    assert [instance.model_id for instance in followed.running()] == [ALPHA]


def test_a_load_whose_follower_left_goes_on_and_is_known_afterwards(
    followed: TabbyRuntime, manual: TabbyDouble, open_runtime: Callable[[TabbyDouble], TabbyRuntime]
) -> None:
    request = ask(ALPHA)
    signs = followed.load(request, never)
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    signs.close()  # type: ignore[attr-defined] # a generator, by which the worker is gone
    manual.advance(60)
    (instance,) = open_runtime(manual).running()
    assert (instance.instance_id, instance.is_ready, instance.is_external) == (request.instance_id, True, False)


def test_a_server_that_dies_in_mid_load_is_away(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    signs = followed.load(ask(ALPHA), never)
    wait_for(signs, "Asking")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    manual.advance(2)
    wait_for(signs, "Module 2 of 8")
    manual.cut()
    with pytest.raises(RuntimeAway):
        list(signs)


def test_a_load_that_crosses_somebodys_unload_is_sent_again(followed: TabbyRuntime, manual: TabbyDouble) -> None:
    manual.put(ALPHA)
    other = request_raw(manual, "POST", "/v1/model/unload")
    signs = followed.load(ask(BETA), never)
    wait_for(signs, f"Waiting until {ALPHA} is unloaded")
    manual.wait_for(lambda: manual.count("/v1/model/load") == 1)
    manual.advance(1.5)
    assert other.read().status == 200
    manual.wait_for(lambda: manual.count("/v1/model/load") == 2)
    manual.advance(60)
    assert [*signs][-1].stage == LoadStage.READY
    assert manual.loaded == BETA
