"""Somebody else's router: attached to by its address, asked to load and unload, never fought over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadStage
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeRefused
from gantry.runtimes.llama_router import LlamaRouterRuntime
from gantry.runtimes.llama_server import LlamaServerRuntime
from gantry.runtimes.registry import RuntimeConfig
from tests.fakes.unreliable import UnreliableProxy
from tests.integration.llama_router.conftest import GEMMA, LINES, SMOLLM2, sections_of
from tests.integration.llama_router.helpers import KEY, RealRouter, attach, load, only, request_for, wait_for

pytestmark = pytest.mark.llama
THERE = Path()  # the file is the router's business


def request(name: str, **changes: Any) -> Any:
    return request_for(THERE, model_id=name, **{"parameters": {}, "file_bytes": 0, **changes})


def test_attach_by_address_and_key(attached: LlamaRouterRuntime) -> None:
    health = attached.check()
    assert health.is_ok
    assert health.version.startswith("llama-server router ")
    can = attached.capabilities
    assert (can.owns_processes, can.reports_memory, can.holds_many, can.can_cancel_load) == (False, False, True, True)


def test_wrong_key_is_told_although_the_list_is_open_to_everybody(tmp_path: Path, router: RealRouter) -> None:
    stranger = attach(tmp_path, router.url, api_key="wrong")
    assert stranger.models()
    health = stranger.check()
    assert (health.is_ok, health.code) == (False, ErrorCode.UNAUTHORISED)
    assert "API key" in health.detail
    with pytest.raises(RuntimeRefused) as refusal:
        load(stranger, request("tiny"))
    assert refusal.value.code == ErrorCode.UNAUTHORISED
    assert router.status("tiny")["value"] == "unloaded"


def test_key_is_sent_and_shown_nowhere(tmp_path: Path, attached: LlamaRouterRuntime) -> None:
    load(attached, request("tiny"))
    assert only(attached).api_key == KEY
    assert KEY not in repr(only(attached))
    assert not any(KEY in path.read_text() for path in (tmp_path / "state").rglob("*") if path.is_file())


def test_server_of_a_single_model_is_told_to_be_no_router(tmp_path: Path, models: Path) -> None:
    single = LlamaServerRuntime(RuntimeConfig("local", "llama_server", state_dir=tmp_path / "single"))
    wanted = request_for(models / "tiny.gguf")
    load(single, wanted)
    instance = only(single)
    health = attach(tmp_path, instance.base_url, api_key=instance.api_key).check()
    single.unload(wanted.instance_id)
    assert not health.is_ok
    assert "no router" in health.detail


def test_list_tells_what_the_router_offers(attached: LlamaRouterRuntime, models: Path) -> None:
    offers = {model.model_id: model for model in attached.models()}
    assert {SMOLLM2, GEMMA, "tiny"} <= set(offers)
    tiny = offers["tiny"]
    assert tiny.size_bytes == (models / "tiny.gguf").stat().st_size
    assert tiny.facts["status"] == "unloaded"
    assert tiny.facts["parameters"] == {"ctx_size": 256, "threads": 1}
    load(attached, request("tiny"))
    (tiny,) = (model for model in attached.models() if model.model_id == "tiny")
    assert (tiny.facts["status"], tiny.facts["context_length"]) == ("loaded", 2048)


def test_list_is_read_anew_where_that_is_wanted(
    tmp_path: Path, router: RealRouter, attached: LlamaRouterRuntime, models: Path
) -> None:
    load(attached, request("tiny"))
    router.write({**sections_of(models), "newcomer": {"model": models / "tiny.gguf", **LINES}})
    assert "newcomer" not in {model.model_id for model in attached.models()}
    curious = attach(tmp_path, router.url, options={"reload": True})
    assert "newcomer" in {model.model_id for model in curious.models()}
    assert only(attached).is_ready  # nothing about it has changed


@pytest.mark.real_models
def test_load_and_unload_of_the_two_real_models(attached: LlamaRouterRuntime, router: RealRouter) -> None:
    for name in (SMOLLM2, GEMMA):
        wanted = request(name)
        signs = load(attached, wanted)
        assert signs[-1].stage == LoadStage.READY
        assert {LoadStage.READING, LoadStage.READY} <= {sign.stage for sign in signs}
        assert attached.verify(wanted.instance_id).text
    assert {instance.model_id for instance in attached.running()} == {SMOLLM2, GEMMA}
    for instance in attached.running():
        attached.unload(instance.instance_id)
    assert router.status(SMOLLM2)["value"] == router.status(GEMMA)["value"] == "unloaded"


def test_alias_loads_the_model_behind_it(tmp_path: Path, models: Path) -> None:
    sections = {"long-name": {"model": models / "tiny.gguf", "alias": "short", **LINES}}
    with RealRouter(tmp_path, sections) as router:
        runtime, wanted = attach(tmp_path, router.url), request("short")
        load(runtime, wanted)
        assert only(runtime).model_id == "short"
        assert runtime.verify(wanted.instance_id).seconds >= 0
        runtime.unload(wanted.instance_id)
        assert router.status("long-name")["value"] == "unloaded"


def test_sleeping_model_is_shown_asleep_and_not_kept_awake(tmp_path: Path, models: Path) -> None:
    with RealRouter(tmp_path, sections_of(models), "--sleep-idle-seconds", "1") as router:
        runtime, wanted = attach(tmp_path, router.url), request("tiny")
        load(runtime, wanted)

        def is_asleep() -> bool:
            assert runtime.busy_count(wanted.instance_id) == 0  # a look as often as this would wake it
            return only(runtime).is_asleep

        wait_for(is_asleep)
        assert only(runtime).is_ready
        assert runtime.verify(wanted.instance_id).seconds >= 0
        assert not only(runtime).is_asleep


def test_failed_load_tells_its_exit_code_in_words(attached: LlamaRouterRuntime, router: RealRouter) -> None:
    with pytest.raises(LoadFailed) as failure:
        load(attached, request("page"))
    assert failure.value.code == ErrorCode.FILE_DAMAGED  # seen from its file, which is on this machine
    assert failure.value.exit_text == "exited with 1"
    assert failure.value.detail
    assert router.status("page")["failed"]
    (page,) = (model for model in attached.models() if model.model_id == "page")
    assert page.facts["failure"] == "Its last load ended: its process exited with 1."


def test_failed_load_without_a_cause_names_where_to_look(tmp_path: Path, models: Path) -> None:
    sections = {"odd": {"model": models / "tiny.gguf", "lora": models / "page.gguf", **LINES}}
    with RealRouter(tmp_path, sections) as router:
        with pytest.raises(LoadFailed) as failure:
            load(attach(tmp_path, router.url), request("odd"))
        assert failure.value.code == ErrorCode.LOAD_FAILED
        assert failure.value.detail == "Its process exited with 1; the router's own log says why."


def test_process_that_dies_is_told_of_with_its_exit(attached: LlamaRouterRuntime, router: RealRouter) -> None:
    wanted = request("tiny")
    load(attached, wanted)
    router.kill_model("tiny")
    dead = only(attached)
    assert (dead.is_alive, dead.exit_text, dead.exit_code) == (False, "exited with 1", ErrorCode.CRASHED)
    attached.forget(wanted.instance_id)
    assert list(attached.running()) == []


def call_off_while_it_reads(runtime: LlamaRouterRuntime, wanted: Any) -> None:
    looks = iter([False])  # then it is called off
    with pytest.raises(LoadCancelled):
        list(runtime.load(wanted, lambda: next(looks, True)))


def test_called_off_load_is_not_shown_as_failed(attached: LlamaRouterRuntime, router: RealRouter) -> None:
    call_off_while_it_reads(attached, request("slow"))
    assert router.status("slow") | {"args": [], "preset": ""} == {
        "value": "unloaded",
        "failed": True,  # in the router's words
        "exit_code": 1,
        "args": [],
        "preset": "",
    }
    assert list(attached.running()) == []
    (slow,) = (model for model in attached.models() if model.model_id == "slow")
    assert "failure" not in slow.facts


def test_load_that_stands_still_is_given_up(tmp_path: Path) -> None:
    # Without a model its process is itself a router, and "loads" for ever.
    with RealRouter(tmp_path, {"hollow": {"ctx-size": 256}}) as router:
        runtime = attach(tmp_path, router.url, options={"stall_seconds": 0.3})
        with pytest.raises(LoadFailed) as failure:
            load(runtime, request("hollow"))
        assert failure.value.code == ErrorCode.LOAD_STALLED
        assert router.status("hollow")["value"] == "unloaded"
        assert list(runtime.running()) == []


def test_broken_stream_is_joined_again_after_a_look_at_the_list(tmp_path: Path, proxy: UnreliableProxy) -> None:
    runtime, wanted = attach(tmp_path, proxy.url), request("slow")
    signs = runtime.load(wanted, lambda: False)
    while not any(head.startswith(b"GET /models/sse") for head in proxy.heads):
        next(signs)
    seen = len(proxy.heads)
    proxy.cut()
    assert list(signs)[-1].stage == LoadStage.READY
    assert runtime.verify(wanted.instance_id).seconds >= 0
    after = [head.split(b" ")[1] for head in proxy.heads[seen:]]
    assert after.index(b"/models") < after.index(b"/models/sse")


def test_model_that_others_have_loaded_by_chatting_is_theirs(attached: LlamaRouterRuntime, router: RealRouter) -> None:
    assert router.chat("tiny")["usage"]["completion_tokens"] == 1
    seen = only(attached)
    assert (seen.model_id, seen.is_external, seen.is_ready) == ("tiny", True, True)
    own = request(GEMMA)
    load(attached, own)
    assert {instance.model_id: instance.is_external for instance in attached.running()} == {"tiny": True, GEMMA: False}
    attached.unload(own.instance_id)
    assert only(attached) == seen


def test_answers_that_are_being_given_are_counted(attached: LlamaRouterRuntime) -> None:
    wanted = request("slow")  # its tokens take their time
    load(attached, wanted)
    instance = only(attached)
    body = {"model": "slow", "prompt": "Hello", "max_tokens": 100, "stream": True}
    headers = {"Authorization": f"Bearer {instance.api_key}"}
    url = f"{instance.base_url}/v1/completions"
    with httpx.stream("POST", url, json=body, headers=headers, trust_env=False, timeout=30) as answer:
        next(answer.iter_lines())
        assert attached.busy_count(wanted.instance_id) == 1
    attached.unload(wanted.instance_id)


def test_looking_at_a_model_does_not_load_it(attached: LlamaRouterRuntime, router: RealRouter) -> None:
    wanted = request("tiny")
    load(attached, wanted)
    router.unload("tiny")
    assert attached.busy_count(wanted.instance_id) == 0
    with pytest.raises(Exception, match="not loaded"):
        attached.verify(wanted.instance_id)
    assert router.status("tiny")["value"] == "unloaded"


def test_load_beyond_the_limit_of_the_router_evicts_nobody(tmp_path: Path, models: Path) -> None:
    with RealRouter(tmp_path, sections_of(models), "--models-max", "1") as router:
        runtime, first = attach(tmp_path, router.url), request("tiny")
        assert runtime.check().is_ok
        assert not runtime.capabilities.holds_many
        load(runtime, first)
        with pytest.raises(LoadFailed, match=r"holds one model at once .*unload tiny first"):
            load(runtime, request(GEMMA))
        assert only(runtime).instance_id == first.instance_id


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parameters": {"ctx_size": 512}}, "ctx_size is 256 there, not 512"),
        ({"parameters": {"ctx_size": 256, "parallel": 2}}, "parallel is not set there"),
        ({"parameters": {"ctx_sise": 1}}, "did you mean ctx_size"),
        ({"extra_args": ("--top-k", "4")}, "arguments of its own"),
        ({"chat_template": "{{ x }}"}, "chat-template-file"),
        ({"is_embedding": True}, "embeddings = true"),
    ],
)
def test_what_its_router_would_do_otherwise_is_refused(
    attached: LlamaRouterRuntime, changes: dict[str, Any], words: str
) -> None:
    attached.check_load(request("tiny", parameters={"ctx_size": 256, "threads": 1}))
    with pytest.raises(RuntimeRefused, match=words):
        attached.check_load(request("tiny", **changes))


def test_embedding_model_gives_vectors(tmp_path: Path, models: Path) -> None:
    lines = {"model": models / "tiny.gguf", "embeddings": "true", "pooling": "mean", **LINES}
    with RealRouter(tmp_path, {"vectors": lines}) as router:
        runtime, wanted = attach(tmp_path, router.url), request("vectors", is_embedding=True)
        load(runtime, wanted)
        assert runtime.verify(wanted.instance_id).text == "64 numbers"
