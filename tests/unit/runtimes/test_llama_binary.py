"""Finding llama-server, and what is said when it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes import llama_binary
from gantry.runtimes.llama_binary import BinaryUnusableError, Build, ask_build, find_binary
from gantry.runtimes.llama_server import LlamaServerRuntime
from gantry.runtimes.registry import RuntimeConfig


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def check(binary: Path, tmp_path: Path) -> tuple[ErrorCode | None, str]:
    health = LlamaServerRuntime(RuntimeConfig("a", "llama_server", state_dir=tmp_path, binary=binary)).check()
    assert not health.is_ok
    return health.code, health.detail


def test_configured_program_that_is_absent_names_the_setting(tmp_path: Path) -> None:
    code, detail = check(tmp_path / "llama-server", tmp_path)
    assert code == ErrorCode.RUNTIME_MISSING
    assert "GANTRY_LLAMA_SERVER" in detail


def test_file_that_may_not_be_run_names_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "llama-server"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)
    assert "chmod +x" in check(path, tmp_path)[1]


def test_program_for_another_machine_is_told_as_such(tmp_path: Path) -> None:
    foreign = program(tmp_path / "llama-server", "\x7fELF not really")
    assert check(foreign, tmp_path)[0] == ErrorCode.WRONG_CPU


def test_program_with_instructions_this_processor_lacks_is_told_as_such(tmp_path: Path) -> None:
    assert check(program(tmp_path / "llama-server", "#!/bin/sh\nkill -ILL $$\n"), tmp_path)[0] == ErrorCode.WRONG_CPU


def test_program_without_its_libraries_says_what_is_missing(tmp_path: Path) -> None:
    words = "error while loading shared libraries: libggml.so"
    broken = program(tmp_path / "llama-server", f"#!/bin/sh\necho '{words}' >&2\nexit 127\n")
    code, detail = check(broken, tmp_path)
    assert code == ErrorCode.RUNTIME_MISSING
    assert words in detail


def test_program_that_is_no_llama_server_is_refused_before_anything_is_unloaded_for_it() -> None:
    with pytest.raises(BinaryUnusableError, match="/bin/true runs, but is no llama-server"):
        ask_build(Path("/bin/true"))


def test_program_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_binary, "_ASK_SECONDS", 0.1)
    assert "did not answer" in check(program(tmp_path / "llama-server", "#!/bin/sh\nexec sleep 5\n"), tmp_path)[1]


def test_program_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "llama-server", "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary(None) == path


def test_nothing_anywhere_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(llama_binary, "_PACKAGE", "no_such_package_here")
    with pytest.raises(BinaryUnusableError, match="Install llama-server, or set GANTRY_LLAMA_SERVER"):
        find_binary(None)


def test_program_is_asked_once_until_it_changes(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    script = f'#!/bin/sh\necho "$1" >> {asked}\necho "version: 7 (abc)"\n'
    path = program(tmp_path / "llama-server", script)
    assert ask_build(path).version == "7 (abc)"
    ask_build(path)
    assert asked.read_text().split() == ["--version", "--help"]
    program(path, script + "# a newer one\n")
    ask_build(path)
    assert len(asked.read_text().split()) == 4


def test_environment_carries_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_KEY", "DATABASE_URL", "LLAMA_ARG_PORT", "LLAMA_API_KEY", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "x")
    path = program(tmp_path / "llama-server", '#!/bin/sh\necho "version: 7 (abc)"\n')
    environment = ask_build(path).environment()
    assert environment["CUDA_VISIBLE_DEVICES"] == "x"
    assert not {"SECRET_KEY", "DATABASE_URL", "LLAMA_ARG_PORT", "LLAMA_API_KEY"} & environment.keys()


def test_devices_are_named_in_the_environment_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    build = Build(tmp_path / "llama-server", "1")
    environment = build.environment(["GPU-1b2c", "GPU-3d4e"])
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-1b2c,GPU-3d4e"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "CUDA_VISIBLE_DEVICES" not in build.environment()
