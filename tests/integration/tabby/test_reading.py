"""What the adapter tells of a TabbyAPI: whether it can be used, what it has, what it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import ProgressKind
from gantry.runtimes.exceptions import RuntimeRefused
from gantry.runtimes.registry import build_runtime
from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby import FakeModel, TabbyDouble
from tests.fakes.tabby.talk import chat
from tests.integration.tabby.helpers import ALPHA, BETA, ask, config_for, load, run, runtime_for


def test_the_registry_builds_it(double: TabbyDouble, tmp_path: Path) -> None:
    assert isinstance(build_runtime(config_for(double, tmp_path)), TabbyRuntime)


def test_it_says_what_it_can_do(runtime: TabbyRuntime) -> None:
    capabilities = runtime.capabilities
    assert capabilities.progress == ProgressKind.STEPS
    assert not capabilities.can_cancel_load
    assert not capabilities.holds_many
    assert not capabilities.owns_processes


def test_a_server_with_both_keys_right_is_healthy(runtime: TabbyRuntime) -> None:
    health = runtime.check()
    assert (health.is_ok, health.version, health.detail) == (True, "TabbyAPI", "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"api_key": "wrong"}, "TabbyAPI refused the API key."),
        ({"admin_key": "wrong"}, "TabbyAPI refused the admin key."),
        ({"api_key": ""}, "TabbyAPI asks for a key, and no API key is set."),
        ({"admin_key": ""}, "TabbyAPI asks for a key, and no admin key is set."),
        ({"api_key": "käse"}, "The API key has characters that no key has."),
        ({"admin_key": "a\r\nb: c"}, "The admin key has characters that no key has."),
    ],
)
def test_a_wrong_key_is_named(double: TabbyDouble, tmp_path: Path, changes: dict[str, str], words: str) -> None:
    health = runtime_for(double, tmp_path, **changes).check()
    assert (health.is_ok, health.detail, health.code) == (False, words, ErrorCode.UNAUTHORISED)


def test_an_api_key_in_place_of_the_admin_key_is_noticed(double: TabbyDouble, tmp_path: Path) -> None:
    runtime = runtime_for(double, tmp_path, admin_key=double.api_key)
    assert "it may not load models" in runtime.check().detail
    with pytest.raises(RuntimeRefused):  # TabbyAPI would answer, with a list of the loaded model only
        runtime.models()


def test_a_server_without_keys_needs_none(double: TabbyDouble, tmp_path: Path) -> None:
    double.keys.is_open = True
    runtime = runtime_for(double, tmp_path, api_key="", admin_key="")
    assert runtime.check().is_ok
    load(runtime, ALPHA)
    assert double.loaded == ALPHA


def test_an_engine_error_in_its_health_is_told_and_does_not_count(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    double.put(ALPHA)
    chat(double, "[[stub crash=1]]").read()
    health = runtime.check()
    assert health.is_ok
    assert "illegal memory access" in health.detail
    load(runtime, BETA)
    assert runtime.check().is_ok


def test_the_list_has_directory_names_as_model_ids(runtime: TabbyRuntime) -> None:
    names = [model.model_id for model in runtime.models()]
    assert {ALPHA, BETA, "family", "not-a-model"} <= set(names)
    assert "README.txt" not in names


def test_new_directories_appear_and_vanished_ones_go(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    double.models["fresh-3b"] = FakeModel()
    del double.models[BETA]
    names = [model.model_id for model in runtime.models()]
    assert "fresh-3b" in names
    assert BETA not in names


def test_the_loaded_model_carries_its_parameters(runtime: TabbyRuntime) -> None:
    load(runtime, ALPHA, max_seq_len=8192, cache_mode="Q8")
    facts = {model.model_id: model.facts for model in runtime.models()}
    assert facts[ALPHA]["is_loaded"] is True
    assert (facts[ALPHA]["max_seq_len"], facts[ALPHA]["cache_mode"]) == (8192, "Q8")
    assert facts[BETA] == {}
    current = runtime.current()
    assert current is not None
    assert current.parameters["max_seq_len"] == 8192


def test_nothing_loaded_is_nothing_running(runtime: TabbyRuntime) -> None:
    assert runtime.current() is None
    assert list(runtime.running()) == []


def test_an_instance_is_chatted_with_by_the_api_key_never_the_admin_key(
    runtime: TabbyRuntime, double: TabbyDouble
) -> None:
    load(runtime, ALPHA)
    (instance,) = runtime.running()
    assert (instance.base_url, instance.api_key) == (double.url, double.api_key)
    assert double.api_key not in repr(instance)


def test_the_first_token_is_asked_for_with_the_api_key_and_without_a_name(
    runtime: TabbyRuntime, double: TabbyDouble
) -> None:
    instance_id = load(runtime, ALPHA)
    assert runtime.verify(instance_id).text
    request = [request for request in double.requests if request.path == "/v1/chat/completions"][-1]
    assert request.headers["authorization"] == f"Bearer {double.api_key}"
    assert b'"model"' not in request.body


def test_a_model_without_a_chat_template_is_tried_by_a_continuation(runtime: TabbyRuntime) -> None:
    assert runtime.verify(load(runtime, "notemplate-7b")).text


def test_admin_calls_carry_the_admin_key_and_no_other(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    runtime.unload(load(runtime, ALPHA))
    for path in ("/v1/model/load", "/v1/model/unload", "/v1/model/list"):
        for request in double.requests:
            if request.path == path:
                assert request.headers["authorization"] == f"Bearer {double.admin_key}"
                assert not {"x-api-key", "x-admin-key"} & set(request.headers)


def test_busy_log_and_prefetch_tell_nothing(runtime: TabbyRuntime) -> None:
    instance_id = load(runtime, ALPHA)
    assert runtime.busy_count(instance_id) == 0
    assert runtime.log_tail(instance_id) == ()
    assert runtime.prefetch(ask(ALPHA), lambda: False) == 0


def test_nested_models_load_by_path_and_are_found_again(runtime: TabbyRuntime) -> None:
    request = ask("family/4.0bpw")
    runtime.check_load(request)
    run(runtime, request)
    (instance,) = runtime.running()
    assert (instance.instance_id, instance.model_id) == (request.instance_id, "family/4.0bpw")
    assert runtime.verify(request.instance_id).text
