"""A TabbyAPI that is away, slow, broken, or something else altogether: every call ends, with an error of the adapter's own."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.exceptions import LoadFailed, RuntimeAway, RuntimeFault, RuntimeRefused
from gantry.runtimes.tabby import TabbyRuntime
from tests.fakes.tabby import Canned, TabbyDouble
from tests.integration.tabby.helpers import ALPHA, ask, config_for, load, run, runtime_for

SOME_ID = "5b9c0b0e-0000-4000-8000-000000000000"
Call = Callable[[TabbyRuntime], object]
CALLS: dict[str, Call] = {
    "running": lambda runtime: runtime.running(),
    "models": lambda runtime: runtime.models(),
    "current": lambda runtime: runtime.current(),
    "check_load": lambda runtime: runtime.check_load(ask(ALPHA)),
    "load": lambda runtime: run(runtime, ask(ALPHA)),
    "unload": lambda runtime: runtime.unload(SOME_ID),
    "verify": lambda runtime: runtime.verify(SOME_ID),
}
HTML = b"<html><body>Welcome to nginx!</body></html>"
PATHS = ("/v1/model", "/v1/model/list", "/v1/auth/permission", "/v1/model/load", "/health", "/.well-known/serviceinfo")
TROUBLE = {
    "500": Canned(b"Internal Server Error", status=500, content_type="text/plain; charset=utf-8"),
    "502": Canned(HTML, status=502, content_type="text/html"),
    "503 by a proxy": Canned(HTML, status=503, content_type="text/html"),
    "404": Canned(HTML, status=404, content_type="text/html"),
    "redirect": Canned(b"", status=302),
    "HTML": Canned(HTML, content_type="text/html"),
    "HTML as JSON": Canned(HTML),
    "empty": Canned(b""),
    "wrong JSON": Canned(b"[1, 2, 3]"),
    "truncated JSON": Canned(b'{"id": "alpha', is_truncated=True),
    "endless JSON": Canned(b"[" * 65536, is_endless=True),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
def test_nobody_listens(double: TabbyDouble, tmp_path: Path, call: Call) -> None:
    double.cut()
    with pytest.raises(RuntimeAway, match="could not be reached"):
        call(runtime_for(double, tmp_path))


@calls
def test_there_is_no_such_host(double: TabbyDouble, tmp_path: Path, call: Call) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno -2] Name or service not known", request=request)

    runtime = TabbyRuntime(config_for(double, tmp_path, url="http://nowhere.invalid:5000"), httpx.MockTransport(fail))
    with pytest.raises(RuntimeAway, match="could not be reached"):
        call(runtime)


@pytest.mark.parametrize("url", ["", "localhost:5000", "ftp://host", "http://[::1", "http://user:hunter2@127.0.0.1:1"])
@calls
def test_the_address_is_none(double: TabbyDouble, tmp_path: Path, call: Call, url: str) -> None:
    with pytest.raises(RuntimeFault) as caught:
        call(runtime_for(double, tmp_path, url=url))
    assert "hunter2" not in str(caught.value)
    assert not runtime_for(double, tmp_path, url=url).check().is_ok


@calls
def test_it_never_answers(double: TabbyDouble, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in PATHS:
        double.canned[path] = Canned(is_silent=True)
    monkeypatch.setattr("gantry.runtimes.tabby_client.QUICK_SECONDS", 0.05)
    with pytest.raises(RuntimeAway, match="did not answer in time"):
        call(runtime_for(double, tmp_path))


@pytest.mark.parametrize("trouble", TROUBLE.values(), ids=TROUBLE)
@calls
def test_it_answers_with_something_else(
    runtime: TabbyRuntime, double: TabbyDouble, call: Call, trouble: Canned
) -> None:
    for path in PATHS:
        double.canned[path] = trouble
    with pytest.raises((RuntimeAway, RuntimeRefused)) as caught:
        call(runtime)
    assert caught.value.code in {ErrorCode.RUNTIME_UNREACHABLE, ErrorCode.UNAUTHORISED}
    assert caught.value.detail.startswith(("TabbyAPI", "The admin key"))
    health = runtime.check()
    assert not health.is_ok
    assert health.detail


@pytest.mark.parametrize(
    "trouble",
    [
        *TROUBLE.values(),
        Canned(b"data: x" * 10_000, content_type="text/event-stream", is_endless=True),
        Canned(b'data: {"model_type": "model"}\r\n\r\n', content_type="text/event-stream", is_truncated=True),
        Canned(b"", content_type="text/event-stream"),
        Canned(b'data: {"module": "\xff\xfe"}\n\ndata: [[[[\n\n', content_type="text/event-stream"),
    ],
    ids=[*TROUBLE, "endless stream", "broken stream", "empty stream", "garbage stream"],
)
def test_a_load_whose_stream_is_none_ends(
    runtime: TabbyRuntime, double: TabbyDouble, trouble: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gantry.runtimes.tabby_load.PAUSE_SECONDS", 0.0)
    double.canned["/v1/model/load"] = trouble
    with pytest.raises(RuntimeAway):
        run(runtime, ask(ALPHA))
    assert list(runtime.running()) == []


def test_a_stream_without_a_byte_is_broken_after_its_time_of_silence(
    double: TabbyDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gantry.runtimes.tabby_load.PAUSE_SECONDS", 0.0)
    double.models[ALPHA].module_seconds = 3600
    runtime = runtime_for(double, tmp_path, options={"silence_seconds": 0.5})
    with pytest.raises(RuntimeAway, match="again and again"):
        run(runtime, ask(ALPHA))


def test_pings_keep_a_silent_stream_alive(double: TabbyDouble, tmp_path: Path) -> None:
    double.api.ping_seconds = 0.05
    double.models[ALPHA].module_seconds = 1.5
    double.models[ALPHA].modules = 1
    runtime = runtime_for(double, tmp_path, options={"silence_seconds": 1.0})
    load(runtime, ALPHA)
    assert double.count("/v1/model/load") == 1


def test_it_comes_back(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    load(runtime, ALPHA)
    double.cut()
    with pytest.raises(RuntimeAway):
        runtime.running()
    assert runtime.check().code == ErrorCode.RUNTIME_UNREACHABLE
    double.listen()
    assert runtime.check().is_ok
    assert [instance.model_id for instance in runtime.running()] == [ALPHA]


def test_another_program_is_told_by_its_name(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    double.canned["/.well-known/serviceinfo"] = Canned(b'{"software": {"name": "KoboldCpp"}}')
    assert runtime.check().detail == "KoboldCpp answers at its address, not TabbyAPI."


def test_a_field_that_is_refused_is_named(runtime: TabbyRuntime, double: TabbyDouble) -> None:
    detail = b'{"detail": [{"type": "int_parsing", "loc": ["body", "max_seq_len"], "msg": "Input should be a valid integer"}]}'
    double.canned["/v1/model/load"] = Canned(detail, status=422)
    with pytest.raises(RuntimeRefused, match="max_seq_len: Input should be a valid integer") as caught:
        run(runtime, ask(ALPHA))
    assert caught.value.code == ErrorCode.BAD_PARAMETER


def test_no_key_is_in_any_error_log_or_repr(
    double: TabbyDouble, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    double.keys.admin_key = "another"
    runtime = runtime_for(double, tmp_path, api_key="SECRET-API", admin_key="SECRET-ADMIN")
    echo = b'{"detail": "you sent SECRET-API and SECRET-ADMIN"}'
    texts = [repr(runtime), repr(config_for(double, tmp_path, api_key="SECRET-API", admin_key="SECRET-ADMIN"))]
    for trouble in [None, Canned(echo, status=400), Canned(echo, status=500), *TROUBLE.values()]:
        for path in PATHS if trouble else ():
            double.canned[path] = trouble or Canned()
        texts.append(str(runtime.check()))
        for call in CALLS.values():
            try:
                call(runtime)
            except RuntimeFault as fault:
                texts += [str(fault), repr(fault), fault.detail, "".join(traceback.format_exception(fault))]
    double.canned["/v1/model/load"] = Canned(
        b'data: {"error": {"message": "SECRET-ADMIN is wrong"}}\r\n\r\n', content_type="text/event-stream"
    )
    double.canned["/v1/model"] = Canned(b'{"detail": "none"}', status=503)
    with pytest.raises(LoadFailed) as caught:
        run(runtime, ask(ALPHA))
    texts += [caught.value.detail, *caught.value.log_tail, caplog.text]
    assert not [text for text in texts if "SECRET" in text]
