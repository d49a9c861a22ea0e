"""The import of a models.yaml: what is wrong is told with its line and key, and the text stays in the form."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from models_admin.models import AuditEntry, ModelDefinition, Runtime
from tests.factories import make_model
from tests.functional.bad_input.helpers import shows, write_bad_files
from tests.functional.bad_input.yaml_cases import YAML_CASES

pytestmark = pytest.mark.usefixtures("no_job")

IMPORT_YAML = "/admin/models/import/yaml/"


@pytest.mark.parametrize(("text", "place", "words"), YAML_CASES, ids=[str(n) for n in range(len(YAML_CASES))])
@pytest.mark.parametrize("is_upload", [False, True], ids=["pasted", "uploaded"])
def test_bad_yaml_is_told_with_line_and_key_and_stays_in_the_form(
    signed_in: Client, llama: Runtime, text: str, place: str, words: str, *, is_upload: bool
) -> None:
    data = {"file": SimpleUploadedFile("models.yaml", text.encode())} if is_upload else {"text": text}
    if is_upload and len(text) > 1_000_000:
        words, text = "This file is larger than 1 MB.", ""

    response = signed_in.post(IMPORT_YAML, data)

    assert response.status_code == 422
    told = response.context["yaml_errors"]
    assert any(words in message and (place in where or not where) for where, message in told)
    assert shows(response, words)
    assert shows(response, text)
    assert not ModelDefinition.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"models:\n  - id: x\n    name: \xff\n", "Line 3 is not UTF-8 text."),
        (b"\x7fELF\x02\x01\x01" + bytes(range(256)), "is not UTF-8 text"),
        (b"GGUF\x03\x00\x00\x00", "a character that YAML does not allow"),
        (b"\xff\xfem\x00o\x00", "Line 1 is not UTF-8 text."),
        (b"#" * 2 * 1024**2, "This file is larger than 1 MB."),
        (b"", "The submitted file is empty."),
    ],
)
def test_upload_that_is_no_yaml_says_so_and_keeps_the_pasted_text(
    signed_in: Client, llama: Runtime, content: bytes, words: str
) -> None:
    pasted = "models: {typed: {}}"

    response = signed_in.post(IMPORT_YAML, {"file": SimpleUploadedFile("m.yaml", content), "text": pasted})

    assert response.status_code == 422
    assert any(words in message for _, message in response.context["yaml_errors"])
    assert shows(response, words)
    assert words.startswith("a character") or shows(response, pasted)
    assert not ModelDefinition.objects.exists()


def test_pasted_nul_is_told_and_the_text_stays(signed_in: Client, llama: Runtime) -> None:
    response = signed_in.post(IMPORT_YAML, {"text": "models:\n  - id: a\x00b\n"})

    assert response.status_code == 422
    assert shows(response, "Null characters are not allowed.")
    assert "models:\n  - id: a" in response.content.decode()


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\nb.yaml", "x" * 300 + ".yaml", "<b>.yaml", "\xff.yaml"])
def test_odd_name_of_an_upload_does_no_harm(signed_in: Client, llama: Runtime, name: str) -> None:
    upload = SimpleUploadedFile("m.yaml", b"models: {a: {size: big}}")
    upload.name = name

    response = signed_in.post(IMPORT_YAML, {"file": upload})

    assert response.status_code == 422
    assert shows(response, "must be a size such as 12GB")


def test_post_that_is_too_large_to_be_read_is_refused(signed_in: Client, llama: Runtime) -> None:
    assert signed_in.post(IMPORT_YAML, {"text": "#" * 3_000_000}).status_code == 400


def test_import_names_the_files_that_are_there_and_cannot_be_used(
    signed_in: Client, llama: Runtime, folder: Path
) -> None:
    write_bad_files(folder)
    lines = [f"  {name.removesuffix('.gguf')}: {{path: {name}}}" for name in ("page.gguf", "half.gguf")]

    for _ in range(2):  # a second import of the same tells it again
        response = signed_in.post(IMPORT_YAML, {"text": "\n".join(["models:", *lines])}, follow=True)
        assert shows(response, "page: the file is not a GGUF file.")
        assert shows(response, "half: the file is cut off")

    assert not ModelDefinition.objects.exclude(last_error_code="file_damaged").exists()


def test_import_beside_an_id_in_other_letters_mixes_nothing_up(signed_in: Client, llama: Runtime) -> None:
    make_model(llama, model_id="Qwen3", name="Big")

    signed_in.post(IMPORT_YAML, {"text": "models: {qwen3: {name: Little}}"})

    assert dict(ModelDefinition.objects.values_list("model_id", "name")) == {"Qwen3": "Big", "qwen3": "Little"}


def test_text_that_looks_like_a_number_comes_back_from_an_export_as_text(signed_in: Client, llama: Runtime) -> None:
    signed_in.post(IMPORT_YAML, {"text": "models: {a: {name: '1e3', sampling: {stop: ['0E0']}}}"})

    exported = signed_in.get("/admin/models/export/").content.decode()
    ModelDefinition.objects.all().delete()
    signed_in.post(IMPORT_YAML, {"text": exported})

    model = ModelDefinition.objects.get()
    assert (model.name, model.sampling) == ("1e3", {"stop": ["0E0"]})
