"""`manage.py models`: bad input ends in a line that says what and where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from models_admin.models import ModelDefinition, Runtime
from tests.functional.bad_input.helpers import write_bad_files
from tests.functional.bad_input.yaml_cases import YAML_CASES

pytestmark = pytest.mark.usefixtures("no_job")


@pytest.mark.parametrize(("text", "place", "words"), YAML_CASES, ids=[str(n) for n in range(len(YAML_CASES))])
def test_command_tells_bad_yaml_with_file_line_and_key(
    llama: Runtime, folder: Path, text: str, place: str, words: str
) -> None:
    file = folder / "models.yaml"
    file.write_bytes(text.encode())

    with pytest.raises(CommandError) as caught:
        call_command("models", "import", str(file))

    line = next(line for line in str(caught.value).splitlines() if words in line)
    assert "models.yaml" in line
    assert place in line
    str(caught.value).encode()  # a terminal can show it
    assert not ModelDefinition.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import", "{folder}/no.yaml"), "No such file"),
        (("import", "{folder}"), "Is a directory"),
        (("import", "{folder}/page.gguf/x"), "Not a directory"),
        (("import", "{folder}/half.gguf"), "this is not UTF-8 text"),
        (("scan", "{folder}/no"), "There is no folder"),
        (("scan", "{folder}/page.gguf"), "There is no folder"),
        (("scan", "{folder}/" + "x" * 300), "File name too long"),
        (("export", "{folder}/no/out.yaml"), "No such file"),
    ],
)
def test_command_tells_what_it_cannot_use(llama: Runtime, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    write_bad_files(folder)

    with pytest.raises(CommandError, match=words):
        call_command("models", *(argument.format(folder=folder) for argument in arguments))

    assert not ModelDefinition.objects.exists()


def test_scan_command_names_the_files_that_cannot_be_used(
    llama: Runtime, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bad_files(folder)
    Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff.gguf")).touch()

    call_command("models", "scan", str(folder))

    told = capsys.readouterr().err
    assert "half.gguf: is cut off" in told
    assert "odd\\udcff.gguf: is empty" in told
