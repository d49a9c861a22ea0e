"""What cannot be loaded is refused while the former model still serves: it keeps its process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from gantry.planning.states import ErrorCode, JobState
from models_admin.exceptions import ActionRefused, FileDamaged, NotDownloaded
from models_admin.models import ModelDefinition, SwitchJob
from tests.integration.real_switches.host import Host, run
from tests.tiny_gguf import write_not_gguf, write_truncated

pytestmark = [pytest.mark.llama, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def late(host: Host, former: ModelDefinition, folder: Path) -> ModelDefinition:
    """A good model when it was added, for which the former one has to go; what becomes of its file is up to the test."""
    shutil.copy(folder / "third.gguf", folder / "late.gguf")
    model = host.add("late")
    host.leave_room_for_one_of(model, former)
    return model


def write_text(path: Path) -> None:
    path.write_text("a letter to a friend\n" * 1000, encoding="utf-8")


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


WRONG_FILES = [
    pytest.param(Path.unlink, NotDownloaded, "Late is not downloaded", id="missing"),
    pytest.param(write_nothing, FileDamaged, "The file of Late cannot be used: it is empty, as a download", id="empty"),
    pytest.param(write_text, FileDamaged, "The file of Late cannot be used: it ", id="text"),
    pytest.param(write_not_gguf, FileDamaged, "The file of Late cannot be used: it ", id="page"),
    pytest.param(write_truncated, FileDamaged, "The file of Late cannot be used: it is cut off", id="truncated"),
]


@pytest.mark.parametrize(("spoil", "refusal", "words"), WRONG_FILES)
def test_wrong_file_is_refused_at_the_click(
    host: Host,
    former: ModelDefinition,
    late: ModelDefinition,
    folder: Path,
    spoil: Callable[[Path], object],
    refusal: type[ActionRefused],
    words: str,
) -> None:
    spoil(folder / late.path)
    count, pid = SwitchJob.objects.count(), host.pid(former)
    with pytest.raises(refusal, match=words):
        host.ask(late)
    assert SwitchJob.objects.count() == count
    host.assert_serves(former)
    assert host.pid(former) == pid


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        pytest.param(Path.unlink, ErrorCode.NOT_DOWNLOADED, id="missing"),
        pytest.param(write_nothing, ErrorCode.FILE_DAMAGED, id="empty"),
        pytest.param(write_text, ErrorCode.FILE_DAMAGED, id="text"),
        pytest.param(write_truncated, ErrorCode.FILE_DAMAGED, id="truncated"),
    ],
)
def test_file_that_goes_wrong_while_the_job_waits_costs_the_former_model_nothing(
    host: Host,
    former: ModelDefinition,
    late: ModelDefinition,
    folder: Path,
    spoil: Callable[[Path], object],
    code: ErrorCode,
) -> None:
    pid, job = host.pid(former), host.ask(late)
    spoil(folder / late.path)
    run(job)
    assert (job.state, job.error_code, job.unloaded) == (JobState.FAILED, code, [])
    assert not job.downtime_seconds
    host.assert_serves(former)
    assert host.pid(former) == pid


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(None, ErrorCode.RUNTIME_MISSING, id="missing"),
        pytest.param(b"\x7fELF of another machine", ErrorCode.WRONG_CPU, id="other-machine"),
        pytest.param(b"#!/bin/sh\necho cannot open libggml.so >&2\nexit 127\n", ErrorCode.RUNTIME_MISSING, id="broken"),
    ],
)
def test_program_that_cannot_be_used_costs_the_former_model_nothing(
    host: Host,
    former: ModelDefinition,
    tmp_path: Path,
    settings: Settings,
    content: bytes | None,
    code: ErrorCode,
) -> None:
    pid, target = host.pid(former), host.add("third")
    host.leave_room_for_one_of(target, former)
    program = tmp_path / "other-llama-server"
    if content is not None:
        program.write_bytes(content)
        program.chmod(0o755)
    settings.LLAMA_SERVER = program
    job = host.switch(target)
    assert (job.state, job.error_code, job.unloaded) == (JobState.FAILED, code, [])
    assert str(program) in job.error_text
    host.assert_serves(former)
    assert host.pid(former) == pid


def test_flag_that_the_server_does_not_know_costs_the_former_model_nothing(host: Host, former: ModelDefinition) -> None:
    target = host.add("third", extra_args=["--no-such-flag"])
    host.leave_room_for_one_of(target, former)
    pid, job = host.pid(former), host.switch(target)
    assert (job.state, job.error_code, job.unloaded) == (JobState.FAILED, ErrorCode.BAD_PARAMETER, [])
    assert "--no-such-flag" in job.error_text
    host.assert_serves(former)
    assert host.pid(former) == pid
