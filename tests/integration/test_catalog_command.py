from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django.fixtures import Settings

from models_admin.models import MemoryPool, ModelDefinition, Runtime
from tests.unit.modelfiles.files import write_gguf


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path, pool: MemoryPool) -> Path:
    """A folder for models, and a runtime."""
    settings.MODELS_DIR = tmp_path
    Runtime.objects.create(name="llama-server", kind=Runtime.Kind.LLAMA_SERVER, pool=pool)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    call_command("models", *map(str, arguments))
    return capsys.readouterr().out


def test_import_list_and_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "team.yaml"
    file.write_text("models:\n  a: {name: Model A, size: 12GB, quantization: MXFP4, parameter_count: 20B}\n")
    assert run(capsys, "import", file) == f"{file}: 1 created, 0 changed, 0 unchanged.\n"
    assert run(capsys, "list") == "a  20B  12.0 GB  MXFP4  Not downloaded\n"
    assert "id: a\n" in run(capsys, "export")
    run(capsys, "export", folder / "out.yaml")
    ModelDefinition.objects.all().delete()
    assert "1 created" in run(capsys, "import", folder / "out.yaml")


def test_empty_list_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Scan a folder" in run(capsys, "list")


def test_scan_tells_what_it_found_and_what_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(folder / "a.gguf")
    (folder / "bad.gguf").write_bytes(b"no")
    call_command("models", "scan", str(folder))
    told = capsys.readouterr()
    assert told.out == f"{folder}: 1 created, 0 changed, 0 unchanged.\n"
    assert told.err == f"{folder / 'bad.gguf'}: is not a GGUF file\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"models:\n\t- id: a\n", "m.yaml line 2: a tab is used to indent; YAML allows spaces only"),
        (b"models: {a: {size: big}}", 'm.yaml line 1, models.a.size: must be a size such as 12GB (got "big")'),
        (b"models:\n  a: {name: \xff}", "m.yaml line 2: this is not UTF-8 text"),
        (b"#" * 1_100_000, "m.yaml: is larger than 1 MiB"),
        (b"", "m.yaml: the file is empty; it needs a list named models"),
    ],
    ids=["tab", "wrong type", "not UTF-8", "too large", "empty"],
)
def test_bad_file_is_told_in_one_line(folder: Path, content: bytes, message: str) -> None:
    file = folder / "m.yaml"
    file.write_bytes(content)
    with pytest.raises(CommandError) as caught:
        call_command("models", "import", str(file))
    assert str(caught.value).endswith(message)
    assert "\n" not in str(caught.value)


def test_several_errors_are_all_told(folder: Path) -> None:
    file = folder / "m.yaml"
    file.write_text("models:\n  a: {size: big}\n  b: {pinned: 5}\n")
    with pytest.raises(CommandError) as caught:
        call_command("models", "import", str(file))
    assert str(caught.value).splitlines() == [
        "m.yaml has errors; nothing was imported.",
        'm.yaml line 2, models.a.size: must be a size such as 12GB (got "big")',
        "m.yaml line 3, models.b.pinned: must be true or false (got 5)",
    ]


def test_file_or_folder_that_is_not_there(folder: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        call_command("models", "import", str(folder / "no.yaml"))
    with pytest.raises(CommandError, match="There is no folder"):
        call_command("models", "scan", str(folder / "no"))
