"""Bad input whose mend lies outside of the definitions: what vanished meanwhile, odd headers, commands, lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from pytest_django.fixtures import Settings

from models_admin.models import Runtime
from tests.factories import make_model
from tests.functional.admin_world import load
from tests.functional.bad_input.helpers import HTMX, model_with_file, shows, write_bad_files

DOORS = ["/admin/models/{pk}/switch/", "/models/{pk}/switch/"]

pytestmark = pytest.mark.usefixtures("no_job")


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    """The folder of models."""
    settings.MODELS_DIR = tmp_path / "models"
    settings.MODELS_DIR.mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("headers", [{}, HTMX], ids=["plain", "htmx"])
@pytest.mark.parametrize("is_whole_folder", [False, True], ids=["file", "folder"])
def test_file_that_vanished_since_the_dialog_is_told(
    browser: Client, llama: Runtime, folder: Path, door: str, headers: dict[str, str], *, is_whole_folder: bool
) -> None:
    model = model_with_file(llama, folder)
    address = door.format(pk=model.pk)
    assert browser.get(address, headers=headers).status_code == 200

    shutil.rmtree(folder) if is_whole_folder else (folder / "good.gguf").unlink()
    response = browser.post(address, {"confirmed": "1"}, headers=headers)

    assert response.status_code == 409
    assert shows(response, "Good is not downloaded.")


@pytest.mark.parametrize("door", DOORS)
def test_path_that_cannot_be_looked_at_any_more_is_told(browser: Client, llama: Runtime, door: str) -> None:
    model = make_model(llama, name="Long", path="x" * 300 + ".gguf")

    response = browser.post(door.format(pk=model.pk), {"confirmed": "1"})

    assert response.status_code == 409
    assert shows(response, "Long is not downloaded.")


@pytest.mark.parametrize("odd", ["/c/x/5/", "//evil.example/", "http://[", "/c/" + "9" * 5000 + "/"])
def test_odd_way_back_does_no_harm(browser: Client, odd: str) -> None:
    for data, headers in (({"next": odd}, HTMX), ({}, {**HTMX, "HX-Current-URL": odd}), ({}, {**HTMX, "Referer": odd})):
        assert browser.get("/conversations/", data, headers=headers).status_code == 200


def test_way_back_never_leaves_this_site(browser: Client, llama: Runtime, folder: Path) -> None:
    model = model_with_file(llama, folder)
    load(model, is_active=True)

    response = browser.post(f"/models/{model.pk}/switch/", headers={"Referer": "http://testserver//evil.example/"})

    assert response.headers["Location"] == "/"


def test_list_does_not_say_deleted_of_what_stayed(browser: Client, llama: Runtime, folder: Path) -> None:
    model = model_with_file(llama, folder)
    load(model)
    data = {"action": "delete_selected", "_selected_action": [model.pk], "post": "yes"}

    response = browser.post("/admin/models_admin/modeldefinition/", data, follow=True)

    assert shows(response, "Good is loaded, so it cannot be deleted.")
    assert not shows(response, "Successfully deleted")


@pytest.mark.parametrize("options", ["[1]", "5", '"x"', '{"a": NaN}'])
def test_settings_of_a_runtime_have_to_be_an_object(browser: Client, llama: Runtime, options: str) -> None:
    values = {"name": "llama-server", "kind": "llama_server", "pool": llama.pool_id, "is_enabled": "on"}

    response = browser.post(f"/admin/models_admin/runtime/{llama.pk}/change/", {**values, "options": options})

    assert response.status_code == 200
    assert shows(response, options)
    llama.refresh_from_db()
    assert llama.options == {}


def test_post_that_is_too_large_to_be_read_says_so(browser: Client) -> None:
    response = browser.post("/admin/models/import/yaml/", {"text": "#" * 3_000_000})

    assert response.status_code == 400
    assert shows(response, "could not be read")


def test_scan_of_nobodys_home_is_told(llama: Runtime) -> None:
    with pytest.raises(CommandError, match="There is no folder"):
        call_command("models", "scan", "~nobody-here/models")


def test_import_command_names_the_files_that_cannot_be_used(
    llama: Runtime, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bad_files(folder)
    (folder / "m.yaml").write_text("models: {half: {path: half.gguf}}")

    call_command("models", "import", str(folder / "m.yaml"))

    assert "half: the file is cut off" in capsys.readouterr().err
