"""What the tests of bad input stand on: a llama-server runtime, a folder of models, and ways to look at an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.utils.html import escape

from models_admin.models import ModelDefinition, Runtime
from tests.factories import make_model
from tests.tiny_gguf import write_not_gguf, write_tiny_model, write_truncated

ADD = "/admin/models_admin/modeldefinition/add/"
HTMX = {"HX-Request": "true"}

# The name of a file -> what is said of it everywhere.
BAD_FILES = {
    "page.gguf": "is not a GGUF file",
    "half.gguf": "is cut off",
    "empty.gguf": "is empty, as a download that failed leaves it",
    "folder.gguf": "is a folder",
}


def change_address(model: ModelDefinition) -> str:
    """Where its form is."""
    return f"/admin/models_admin/modeldefinition/{model.pk}/change/"


def write_bad_files(folder: Path) -> None:
    """Everything in BAD_FILES."""
    write_not_gguf(folder / "page.gguf")
    write_truncated(folder / "half.gguf")
    (folder / "empty.gguf").touch()
    (folder / "folder.gguf").mkdir()


def model_with_file(runtime: Runtime, folder: Path, **fields: Any) -> ModelDefinition:
    """An idle model whose file is a real one."""
    write_tiny_model(folder / "good.gguf")
    return make_model(runtime, **{"model_id": "good", "name": "Good", "path": "good.gguf", **fields})


def definition(runtime: Runtime, **values: str) -> dict[str, Any]:
    """What the form of a model sends, all of it fine unless given."""
    filled = {"model_id": "new", "name": "New", "runtime": runtime.pk, "path": "new.gguf", "size_bytes": "0"}
    return {**filled, "tags": "chat", "parameters": '{"ctx_size": 4096}', "extra_args": "", "sampling": "", **values}


def errors_of(response: Any) -> dict[str, list[str]]:
    """The errors beside the fields of the admin's form, by field."""
    errors: dict[str, list[str]] = response.context["adminform"].form.errors
    return errors


def shows(response: Any, text: str) -> bool:
    """Whether the page holds the text, escaped as pages do."""
    return escape(text) in response.content.decode()
