"""The scan of a folder: one that cannot be scanned is told, and every file that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
from django.test import Client

from models_admin.models import ModelDefinition, Runtime
from tests.functional.bad_input.helpers import shows, write_bad_files
from tests.tiny_gguf import write_tiny_model

pytestmark = pytest.mark.usefixtures("no_job")

SCAN = "/admin/models/import/folder/"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("{folder}/no", "is not there"),
        ("{folder}/good.gguf", "is not a folder"),
        ("{folder}/" + "x" * 300, "cannot be looked at"),
        ("~nobody-here/models", "is not there"),
        ("{folder}\x00", "Null characters are not allowed."),
        ("x" * 1001, "at most 1000 characters"),
        ("", "Name a folder on the server."),
        ("   ", "Name a folder on the server."),
    ],
)
def test_folder_that_cannot_be_scanned_is_told_and_stays_in_the_form(
    signed_in: Client, llama: Runtime, folder: Path, path: str, words: str
) -> None:
    write_tiny_model(folder / "good.gguf")
    path = path.format(folder=folder)

    response = signed_in.post(SCAN, {"path": path})

    assert response.status_code == 422
    assert any(words in message for _, message in response.context["folder_errors"])
    assert shows(response, words)
    assert response.context["folder"] == path
    assert not ModelDefinition.objects.exists()


def test_folder_that_may_not_be_entered_is_told(signed_in: Client, llama: Runtime, folder: Path) -> None:
    refusal = PermissionError(13, "Permission denied", str(folder))
    with mock.patch.object(Path, "is_dir", side_effect=refusal), mock.patch.object(Path, "exists", side_effect=refusal):
        response = signed_in.post(SCAN, {"path": str(folder)})

    assert response.status_code == 422
    assert shows(response, "cannot be looked at: Permission denied")


def test_scan_names_every_file_it_could_not_use(signed_in: Client, llama: Runtime, folder: Path) -> None:
    write_bad_files(folder)
    write_tiny_model(folder / "good.gguf")
    odd = os.fsencode(folder) + b"/odd\xff.gguf"
    Path(os.fsdecode(odd)).write_bytes((folder / "good.gguf").read_bytes())
    (folder / "link.gguf").symlink_to(folder / "link.gguf")

    response = signed_in.post(SCAN, {"path": str(folder)})

    assert response.status_code == 200
    for words in ("page.gguf", "is not a GGUF file", "half.gguf", "is cut off", "empty.gguf", "odd\\udcff.gguf"):
        assert shows(response, words)
    assert [model.path for model in ModelDefinition.objects.all()] == ["good.gguf"]


def test_name_that_is_too_long_for_a_model_is_cut(signed_in: Client, llama: Runtime, folder: Path) -> None:
    for sub in ("a", "b"):
        (folder / sub).mkdir()
        write_tiny_model(folder / sub / f"{'x' * 240}.gguf", name="")

    signed_in.post(SCAN, {"path": str(folder)})

    assert ModelDefinition.objects.count() == 2
    for model in ModelDefinition.objects.all():
        assert len(model.name) <= 200
        model.full_clean()
