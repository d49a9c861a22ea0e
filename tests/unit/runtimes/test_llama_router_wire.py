"""What a router says, read: the list, the events, the arguments; and what it is told: the preset."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes import llama_router_events
from gantry.runtimes.bounded_reading import UnreadableError
from gantry.runtimes.exceptions import LoadFailed, RuntimeAway, RuntimeRefused
from gantry.runtimes.llama_devices import device_arguments
from gantry.runtimes.llama_preset import preset_text, section_lines, section_name
from gantry.runtimes.llama_router_attached import differences
from gantry.runtimes.llama_router_client import RouterClient
from gantry.runtimes.llama_router_events import EventFeed, ModelEvent, read_event
from gantry.runtimes.llama_router_log import lines_of
from gantry.runtimes.llama_router_models import parameters_in, read_models
from tests.unit.runtimes import router_answers as answers

URL = "http://127.0.0.1:1"


def client(status: int, body: bytes, seen: list[httpx.Request] | None = None) -> RouterClient:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        return answers.reply(status, body)

    return RouterClient(URL, "key-123", httpx.MockTransport(answer))


# The list


def test_list_is_read_with_states_and_failures() -> None:
    tiny, gemma, smol, large, page = read_models(answers.MODELS)
    assert (tiny.is_running, tiny.is_ready, tiny.is_asleep, tiny.aliases) == (True, True, False, ("t1",))
    assert (gemma.is_running, gemma.is_ready) == (True, False)
    assert (smol.is_ready, smol.is_asleep) == (True, True)
    assert (large.is_running, large.has_failed, large.exit_code) == (False, False, None)
    assert (page.is_running, page.has_failed, page.exit_code) == (False, True, 1)
    assert tiny.answers_to("t1")
    assert tiny.option("--model", "-m") == "/models/tiny.gguf"
    assert tiny.option("--nothing") == ""
    assert not tiny.falls_asleep


@pytest.mark.parametrize("data", [None, [], {}, {"data": {}}, {"data": "x"}, "x", 3])
def test_what_is_no_list_is_refused(data: Any) -> None:
    with pytest.raises(UnreadableError):
        read_models(data)


@pytest.mark.parametrize(
    "row",
    [None, 3, [], {}, {"id": ""}, {"id": 3}, {"id": "x" * 501}, {"id": "a\nb"}],
)
def test_row_without_a_usable_name_is_left_out(row: Any) -> None:
    assert read_models({"data": [row]}) == []


def test_odd_values_in_a_row_are_taken_for_nothing() -> None:
    row = {
        "id": "m",
        "status": {"value": 7, "failed": True, "exit_code": 10**30, "args": "x"},
        "aliases": [3, "a"],
        "meta": [],
    }
    (model,) = read_models({"data": [row]})
    assert (model.status, model.exit_code, model.arguments, model.aliases, model.meta) == ("", 1, (), ("a",), {})


@pytest.mark.parametrize(
    ("line", "parameters"),
    [
        ("srv --ctx-size 2048 --threads 4", {"ctx_size": 2048, "threads": 4}),
        ("srv -c 2048 -ngl all", {"ctx_size": 2048, "n_gpu_layers": -1}),
        ("srv --n-gpu-layers 999", {"n_gpu_layers": -1}),
        ("srv --n-gpu-layers 12 --flash-attn on", {"n_gpu_layers": 12, "flash_attn": True}),
        ("srv --flash-attn auto", {"flash_attn": None}),
        ("srv --flash-attn off --no-cont-batching", {"flash_attn": False, "cont_batching": False}),
        ("srv --cont-batching --embeddings", {"cont_batching": True, "embeddings": True}),
        ("srv --mlock --no-mmap", {"mlock": True, "no_mmap": True}),
        ("srv --mmap", {"no_mmap": False}),
        ("srv --load-mode none", {"mlock": False, "no_mmap": True}),
        ("srv --load-mode mmap+mlock", {"mlock": True, "no_mmap": False}),
        ("srv --cache-type-k q8_0 --numa distribute", {"cache_type_k": "q8_0", "numa": "distribute"}),
        ("srv --model m.gguf --port 0", {}),
    ],
)
def test_parameters_are_read_from_a_command_line(line: str, parameters: dict[str, Any]) -> None:
    assert parameters_in(line.split()) == parameters


def test_difference_between_wish_and_preset_is_told_in_words() -> None:
    line = ["srv", "--ctx-size", "256", "--flash-attn", "on"]
    assert differences({"ctx_size": 256, "flash_attn": True}, line) == []
    assert differences({}, line) == []
    assert differences({"ctx_size": 512, "threads": 2}, line) == [
        "ctx_size is 256 there, not 512",
        "threads is not set there",
    ]


# The events


def test_both_names_of_a_status_event_mean_the_same() -> None:
    body = {"status": "loading", "progress": {"stages": ["text_model"], "current": "text_model", "value": 0.5}}
    first, second = (
        read_event({"model": "m", "event": name, "data": body}) for name in ("model_status", "status_change")
    )
    assert first == second == ModelEvent("m", "loading", body["progress"])  # type: ignore[arg-type]


def test_events_tell_when_a_look_at_the_list_is_worth_it() -> None:
    events = [read_event(json.loads(line)) for line in answers.EVENTS]
    assert [event.is_turn for event in events if event] == [False] * 4 + [True] * 4
    assert [event.is_ready for event in events if event] == [False] * 5 + [True, True, False]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"model": 3, "event": "status_change"},
        {"model": "m"},
        {"model": "m", "event": "status_change"},
        {"model": "m", "event": "status_change", "data": []},
        {"model": "m", "event": "model_status", "data": {"status": ["loaded"]}},
    ],
)
def test_event_that_tells_nothing_is_passed_over(data: dict[str, Any]) -> None:
    assert read_event(data) is None


def test_stream_that_breaks_is_opened_again_after_the_list() -> None:
    """And the events of both openings are there, with the list between them."""
    paths: list[str] = []
    opened_again = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        if request.url.path == "/models":
            return answers.reply(200, json.dumps(answers.MODELS).encode())
        if paths.count("/models/sse") >= 2:
            opened_again.set()
        return answers.reply(200, answers.stream_of(answers.EVENTS[:2]))

    feed = EventFeed(RouterClient(URL, "", httpx.MockTransport(answer)))
    feed.start(5)
    assert opened_again.wait(5)
    feed.close()
    assert paths[:3] == ["/models/sse", "/models", "/models/sse"]
    kinds = [type(item).__name__ for item in feed.take()]
    assert kinds[:3] == ["ModelEvent", "ModelEvent", "list"]


def test_feed_of_a_router_without_a_stream_ends_when_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_router_events, "PAUSES", (0.001,))
    feed = EventFeed(client(404, answers.NOT_FOUND))
    feed.start(0.01)
    feed.close()
    assert feed.take() == []


# Questions and answers


def test_key_is_sent_and_not_repeated() -> None:
    seen: list[httpx.Request] = []
    with pytest.raises(RuntimeAway) as fault:
        client(500, b'{"error":{"message":"no key-123 here"}}', seen).models()
    assert seen[0].headers["Authorization"] == "Bearer key-123"
    assert "key-123" not in fault.value.detail


@pytest.mark.parametrize("key", ["with blank ", "new\nline", "ümlaut"])
def test_key_that_cannot_be_sent_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(RuntimeRefused) as fault:
        RouterClient(URL, key).models()
    assert fault.value.code == ErrorCode.UNAUTHORISED
    assert key not in fault.value.detail


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, answers.LOADED, True),
        (400, answers.RUNNING_ALREADY, False),
        (404, answers.NOT_FOUND, ErrorCode.NOT_DOWNLOADED),
        (500, b'{"error":{"message":"model limit reached, try again later"}}', ErrorCode.LOAD_FAILED),
        (500, b"<html>", ErrorCode.LOAD_FAILED),
    ],
)
def test_answer_to_a_load(status: int, body: bytes, outcome: bool | ErrorCode) -> None:
    if isinstance(outcome, bool):
        assert client(status, body).load("m") is outcome
        return
    with pytest.raises(LoadFailed) as failure:
        client(status, body).load("m")
    assert failure.value.code == outcome


def test_unload_of_what_is_not_there_is_no_error() -> None:
    client(400, answers.NOT_RUNNING).unload("m")
    client(404, answers.NOT_FOUND).unload("m")
    with pytest.raises(RuntimeRefused):
        client(500, b"{}").unload("m")


@pytest.mark.parametrize("call", ["facts", "models", "load", "unload"])
def test_refused_key_is_told_as_such(call: str) -> None:
    arguments = ["m"] if call in {"load", "unload"} else []
    with pytest.raises(RuntimeRefused) as fault:
        getattr(client(401, answers.BAD_KEY), call)(*arguments)
    assert fault.value.code == ErrorCode.UNAUTHORISED


@pytest.mark.parametrize("most", [-1, True, "4", None, 1.5, 10**400])
def test_limit_that_makes_no_sense_is_none(most: Any) -> None:
    body = json.dumps({**json.loads(answers.PROPS), "max_instances": most}).encode()
    assert client(200, body).facts().max_models == 0


def test_name_of_a_model_is_sent_whole() -> None:
    seen: list[httpx.Request] = []
    assert client(200, answers.SLOTS, seen).busy_count("org/tiny:Q4_K+x&y") == 1
    assert seen[0].url.params["model"] == "org/tiny:Q4_K+x&y"
    assert seen[0].url.params["autoload"] == "false"  # a question must not load it


def test_slots_that_are_not_shown_mean_nothing() -> None:
    assert client(501, b'{"error":{"message":"not supported"}}').busy_count("m") == 0


# The preset


def test_section_names_are_plain_and_differ() -> None:
    names = [section_name(model_id) for model_id in ("org/m:Q4_K", "org/m-Q4_K", "org/m:q4_k")]
    assert len(set(names)) == 3
    assert all(name.startswith("org-m-") and ":" not in name and "/" not in name for name in names)


@pytest.mark.parametrize("model_id", ["", "two words", "a,b", "a#b", "a;b", "a]b", "a\nb"])
def test_model_id_that_cannot_be_an_alias_is_refused(model_id: str) -> None:
    with pytest.raises(RuntimeRefused, match="cannot name"):
        section_name(model_id)


def test_arguments_become_lines() -> None:
    arguments = ["--model", "/m/a b.gguf", "--no-mmap", "-fa", "on", "--temp", "-1"]
    lines = section_lines(arguments)
    assert lines == ["model = /m/a b.gguf", "no-mmap = true", "fa = on", "temp = -1"]
    assert preset_text([("one", lines)]).endswith("[one]\nmodel = /m/a b.gguf\nno-mmap = true\nfa = on\ntemp = -1\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lora", "a", "--lora", "b"], "takes --lora once"),
        (["--x", "a", "b"], "takes one value for --x"),
        (["a"], "follows no flag"),
        (["--model", "/m/#1.gguf"], "cannot hold this value of --model"),
        (["--x", "a;b"], "cannot hold"),
        (["--x", "a\nb"], "cannot hold"),
        (["--x", " a"], "cannot hold"),
        (["--x", ""], "cannot hold"),
    ],
)
def test_what_a_preset_cannot_say_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(RuntimeRefused, match=words):
        section_lines(arguments)


class NVMLError(Exception):
    """As pynvml has it."""


def fake_nvml() -> Any:
    """Three GPUs, as pynvml tells of them."""
    ids = ["GPU-a", "GPU-b", "GPU-c"]

    def find(uuid: str) -> str:
        if uuid not in ids:
            raise NVMLError
        return uuid

    return SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=find, nvmlDeviceGetIndex=ids.index
    )


def test_devices_are_named_as_llama_server_names_them() -> None:
    assert device_arguments([], fake_nvml()) == []
    assert device_arguments(["GPU-c", "GPU-a"], fake_nvml()) == ["--device", "CUDA2,CUDA0"]
    with pytest.raises(RuntimeRefused, match="GPU-z"):
        device_arguments(["GPU-z"], fake_nvml())


# The log

LOG = """\
0.1 I srv          load: spawning server instance with name=a on port 1111
0.1 I srv          load:   --alias
[1111] 0.00.1 I load_model: loading model
[1111] cmd_child_to_router:state:{"state":"loading"}
0.2 I srv          load: spawning server instance with name=b on port 2222
[2222] 0.00.1 E failed to load model
0.3 I srv    operator(): instance name=b exited with status 1
[1111] 0.00.2 I model loaded""".splitlines()


@pytest.mark.parametrize(
    ("name", "log", "port", "lines"),
    [
        ("a", LOG, None, ["0.00.1 I load_model: loading model", "0.00.2 I model loaded"]),
        ("b", LOG, None, ["0.00.1 E failed to load model", LOG[6]]),
        ("c", LOG, None, []),
        ("a", LOG[2:], None, []),
        ("a", LOG[2:], 1111, ["0.00.1 I load_model: loading model", "0.00.2 I model loaded"]),
        ("a", LOG[2:], 2222, []),  # its number is somebody else's by now
    ],
)
def test_lines_of_a_model(name: str, log: list[str], port: int | None, lines: list[str]) -> None:
    assert lines_of(name, log, port) == lines


def test_latest_process_of_a_model_counts() -> None:
    again = ["0.9 I load: spawning server instance with name=a on port 3333", "[3333] second", "[1111] first"]
    assert lines_of("a", LOG + again) == ["second"]


def test_answers_are_not_changed_by_reading_them() -> None:
    before = copy.deepcopy(answers.MODELS)
    read_models(answers.MODELS)
    assert before == answers.MODELS


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert not any(thread.name == "llama-router-events" for thread in threading.enumerate())
