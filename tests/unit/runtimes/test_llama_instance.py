"""The folder of an instance, also half written and left over."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from gantry.runtimes.exceptions import RuntimeRefused
from gantry.runtimes.llama_instance import KEPT_LOGS, InstanceFolder
from gantry.runtimes.llama_server import LlamaServerRuntime
from gantry.runtimes.llama_shim import read_boot_id
from gantry.runtimes.registry import RuntimeConfig

SPEC = {"instance_id": "one", "model_id": "m", "port": 4321, "is_embedding": False}


def make(state_dir: Path, name: str = "one") -> InstanceFolder:
    folder = InstanceFolder.of(state_dir, name)
    folder.create(dict(SPEC), "secret")
    return InstanceFolder.of(state_dir, name)


def runtime(state_dir: Path) -> LlamaServerRuntime:
    return LlamaServerRuntime(RuntimeConfig("a", "llama_server", state_dir=state_dir))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "x" * 65, "a\n"])
def test_id_that_is_no_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RuntimeRefused):
        InstanceFolder.of(tmp_path, name)


def test_files_are_for_our_own_user(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.path.iterdir())
    assert folder.api_key == "secret"
    assert "secret" not in (folder.path / "instance.json").read_text()


def test_half_written_states_are_passed_over(tmp_path: Path) -> None:
    folder = make(tmp_path)
    assert (folder.states(), folder.last_state) == ([], "")
    folder.write("events.jsonl", '{"state":"loading"}\n{"state":"ready"}\n{"sta')
    assert [state["state"] for state in folder.states()] == ["loading", "ready"]
    assert folder.last_state == "ready"


def test_log_goes_on_behind_its_rotation(tmp_path: Path) -> None:
    folder = make(tmp_path)
    folder.write("server.log.1", "first\nsecond\n")
    folder.write("server.log", "third\n")
    assert folder.log_tail(2) == ("second", "third")
    assert folder.log_tail(0) == ()


def test_only_the_last_logs_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT_LOGS + 3):
        folder = make(tmp_path, f"i{number}")
        log = folder.write("server.log", f"log of {number}\n")
        os.utime(log, (number, number))
        folder.remove()
    assert InstanceFolder.of(tmp_path, "i0").log_tail(9) == ()
    assert InstanceFolder.of(tmp_path, f"i{KEPT_LOGS + 2}").log_tail(9) == (f"log of {KEPT_LOGS + 2}",)
    assert len(list((tmp_path / "logs").iterdir())) == KEPT_LOGS


def test_nothing_is_running_where_no_folder_is(tmp_path: Path) -> None:
    adapter = runtime(tmp_path / "absent")
    assert adapter.running() == []
    assert adapter.log_tail("one") == ()
    adapter.unload("one")
    adapter.forget("one")


def test_instance_that_was_never_started_is_cleaned_away(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (tmp_path / "empty").mkdir()
    assert runtime(tmp_path).running() == []
    assert folder.path.exists()  # it may just be about to start
    (folder.path / "instance.json").write_text(json.dumps({**SPEC, "created_at": time.time() - 60}))
    os.utime(tmp_path / "empty", (1, 1))
    assert runtime(tmp_path).running() == []
    assert list(tmp_path.iterdir()) == []


def test_process_of_another_boot_is_dead(tmp_path: Path) -> None:
    folder = make(tmp_path)
    mark = {"pid": os.getpid(), "start": 1}
    record = {"boot_id": "x" + read_boot_id(), "child": mark, "keeper": mark, "started_at": 5.0}
    folder.write("process.json", json.dumps(record))
    (instance,) = runtime(tmp_path).running()
    assert (instance.is_alive, instance.exit_text) == (False, "gone without a trace")
    runtime(tmp_path).unload("one")
    assert runtime(tmp_path).running() == []
