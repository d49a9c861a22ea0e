"""Bad input where something is asked for: switch, unload, restart, pin, delete, in the admin and in the chat.

Whatever is asked, the answer says why not, nothing is started and nothing is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from tests.factories import make_job, make_model
from tests.functional.admin_world import load
from tests.functional.bad_input.helpers import (
    BAD_FILES,
    change_address,
    definition,
    errors_of,
    model_with_file,
    shows,
    write_bad_files,
)

DOORS = {"admin": "/admin/models/{pk}/switch/", "chat": "/models/{pk}/switch/"}


@pytest.fixture(params=["get", "post"])
def method(request: pytest.FixtureRequest) -> str:
    """The dialog, and the click in it."""
    return str(request.param)


@pytest.fixture(params=["admin", "chat"])
def door(request: pytest.FixtureRequest) -> str:
    """The address of a switch, by either way in."""
    return DOORS[request.param]


def ask(browser: Client, method: str, address: str, headers: dict[str, str]) -> HttpResponse:
    """The request, as both dialogs send it."""
    data = {"confirmed": "1", "confirm": "1"} if method == "post" else {}
    response: HttpResponse = getattr(browser, method)(address, data, headers=headers)
    return response


def assert_refused(response: HttpResponse, status: int, words: str) -> None:
    assert response.status_code == status
    assert shows(response, words)
    assert not SwitchJob.objects.exists()
    assert not ModelInstance.objects.exists()


# Switches that cannot be


@pytest.mark.parametrize("pk", ["99999", "0", "99999999999999999999", "9" * 5000])
def test_unknown_model_is_no_such_page(
    browser: Client, llama: Runtime, door: str, method: str, headers: dict[str, str], pk: str
) -> None:
    assert_refused(ask(browser, method, door.format(pk=pk), headers), 404, "There is nothing at this address.")


@pytest.mark.parametrize(("name", "reason"), BAD_FILES.items())
def test_file_that_cannot_be_used_is_refused_in_the_dialog(
    browser: Client,
    llama: Runtime,
    folder: Path,
    door: str,
    method: str,
    headers: dict[str, str],
    name: str,
    reason: str,
) -> None:
    write_bad_files(folder)
    model = make_model(llama, name="Bad", path=name)

    response = ask(browser, method, door.format(pk=model.pk), headers)

    assert_refused(response, 409, f"The file of Bad cannot be used: it {reason}")


def test_model_that_is_not_downloaded_is_refused_in_the_dialog(
    browser: Client, llama: Runtime, door: str, method: str, headers: dict[str, str]
) -> None:
    model = make_model(llama, name="Far", is_available=False)

    assert_refused(ask(browser, method, door.format(pk=model.pk), headers), 409, "Far is not downloaded.")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"is_enabled": False}, "The runtime llama-server is switched off."),
        ({"is_healthy": False, "health_text": "There is no llama-server."}, "There is no llama-server."),
    ],
)
def test_runtime_that_cannot_be_used_is_told(
    browser: Client,
    llama: Runtime,
    folder: Path,
    door: str,
    headers: dict[str, str],
    fields: dict[str, Any],
    words: str,
) -> None:
    model = model_with_file(llama, folder)
    Runtime.objects.update(checked_at=model.created_at, **fields)

    assert_refused(ask(browser, "post", door.format(pk=model.pk), headers), 409, words)


def test_model_that_does_not_fit_is_told_with_figures(
    browser: Client, llama: Runtime, folder: Path, door: str, method: str, headers: dict[str, str]
) -> None:
    model = model_with_file(llama, folder)
    MemoryPool.objects.update(total_bytes=1_000_000, free_bytes=1_000)

    assert_refused(ask(browser, method, door.format(pk=model.pk), headers), 409, "0.0 GB are free")


@pytest.mark.parametrize("doing", ["unload", "restart"])
def test_model_that_is_not_loaded_cannot_be_ended(
    browser: Client, llama: Runtime, folder: Path, method: str, headers: dict[str, str], doing: str
) -> None:
    model = model_with_file(llama, folder)

    response = ask(browser, method, f"/admin/models/{model.pk}/{doing}/", headers)

    assert_refused(response, 409, "Good is not loaded.")


# Pins and deletions


@pytest.mark.parametrize("data", [{}, {"is_pinned": ""}, {"is_pinned": "yes"}, {"is_pinned": "2"}])
def test_pin_that_says_neither_leaves_the_pin(
    browser: Client, llama: Runtime, headers: dict[str, str], data: dict[str, str]
) -> None:
    model = make_model(llama, is_pinned=True)

    response = browser.post(f"/admin/models/{model.pk}/pin/", data, headers=headers)

    assert response.status_code == (422 if headers else 302)
    assert ModelDefinition.objects.get().is_pinned


@pytest.mark.parametrize("is_list", [False, True], ids=["one", "several"])
def test_model_that_is_loaded_stays(browser: Client, llama: Runtime, folder: Path, *, is_list: bool) -> None:
    model = model_with_file(llama, folder)
    load(model)
    several = {"action": "delete_selected", "_selected_action": [model.pk], "post": "yes"}
    address = "/admin/models_admin/modeldefinition/"

    response = browser.post(
        address if is_list else f"{address}{model.pk}/delete/", several if is_list else {"post": "yes"}, follow=True
    )

    assert shows(response, "Good is loaded, so it cannot be deleted.")
    assert ModelDefinition.objects.exists()
    assert ModelInstance.objects.exists()


def test_loaded_model_whose_new_file_is_bad_stays_as_it_was(browser: Client, llama: Runtime, folder: Path) -> None:
    write_bad_files(folder)
    model = model_with_file(llama, folder)
    load(model)

    browser.post(change_address(model), {"name": "Good", "model_id": "good", "runtime": llama.pk, "path": "half.gguf"})

    assert ModelDefinition.objects.get().path == "good.gguf"
    assert ModelInstance.objects.get().state == "loaded"


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "awaited"])
@pytest.mark.parametrize("field", ["model_id", "runtime"])
def test_model_in_use_keeps_its_id_and_runtime(
    browser: Client, llama: Runtime, folder: Path, field: str, *, is_held: bool
) -> None:
    model = model_with_file(llama, folder)
    second = Runtime.objects.create(name="second", kind="llama_server", pool=llama.pool)
    if is_held:
        load(model)
    else:
        make_job(llama.pool, model)
    values = {
        **definition(llama, model_id="good", path="good.gguf"),
        field: {"model_id": "new", "runtime": second.pk}[field],
    }

    response = browser.post(change_address(model), values)

    words = "Good is loaded, so it cannot be changed." if is_held else "Good cannot be changed while switch #"
    assert errors_of(response)[field][0].startswith(words)
    model.refresh_from_db()
    assert (model.model_id, model.runtime) == ("good", llama)
