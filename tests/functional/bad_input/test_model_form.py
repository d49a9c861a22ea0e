"""The form of a model: a bad value is told at its field and stays there, and nothing typed is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.test import Client

from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime
from tests.factories import make_model
from tests.functional.bad_input.helpers import (
    ADD,
    BAD_FILES,
    change_address,
    definition,
    errors_of,
    model_with_file,
    shows,
    write_bad_files,
)
from tests.tiny_gguf import write_tiny_model

pytestmark = pytest.mark.usefixtures("no_job")

FORM_CASES = [
    ("extra_args", '["--top-k", "5; rm -rf /"]', "must not contain the character ;"),
    ("extra_args", '["--override-kv=$(id)"]', "must not contain the character $"),
    ("extra_args", '["--host", "0.0.0.0"]', "--host is set by Gantry and cannot be given here"),
    ("extra_args", "[1]", "must be text"),
    ("extra_args", '["--a\\ud800"]', "half a character"),
    ("extra_args", '"--top-k"', "This has to be a list"),
    ("parameters", '{"ctx_size": 0}', "ctx_size: must be a whole number of at least 1 and at most 16777216 (got 0)"),
    ("parameters", '{"ctx_size": 16777217}', "ctx_size: must be a whole number of at least 1 and at most 16777216"),
    ("parameters", '{"ctx_size": 1e400}', "ctx_size: must be a whole number"),
    ("parameters", '{"ctx_size": NaN}', "NaN"),
    ("parameters", '{"ctx_size": ' + "9" * 5000 + "}", "too many digits"),
    ("parameters", '{"ctx_size": 1, "ctx_size": 2}', "ctx_size is given twice"),
    ("parameters", '{"\\ud800": 1}', "half a character"),
    ("parameters", '{"ctx_size": "\\u0000"}', "ctx_size: must be a whole number"),
    ("parameters", '{"cache_type_k": "q9"}', "cache_type_k: must be one of f32, f16"),
    ("parameters", "{" * 100_000, "This is not JSON"),
    ("parameters", "[" * 100_000, "nested too deeply"),
    ("parameters", '{"a":' * 50_000 + "1" + "}" * 50_000, "nested too deeply"),
    ("parameters", "false", "This has to be an object"),
    ("parameters", "0", "This has to be an object"),
    ("parameters", "[]", "This has to be an object"),
    ("sampling", '{"temperature": -1}', "temperature: must be a number of at least 0 and at most 5 (got -1)"),
    ("sampling", '{"temperature": Infinity}', "Infinity"),
    ("sampling", '{"stop": ["\\u0000"]}', "stop: must be"),
    ("sampling", '{"stop": ["\\ud800"]}', "half a character"),
    ("sampling", '{"stop": {"a": 1}}', "stop: must be"),
    ("size_bytes", "-1", "must be a whole number of at least 0"),
    ("size_bytes", str(2**63), "less than or equal to"),
    ("size_bytes", "9" * 400, "less than or equal to"),
    ("size_bytes", "12GB", "Enter a whole number."),
    ("context_length", "-1", "greater than or equal to"),
    ("context_length", str(2**31), "at most 2147483647"),
    ("model_id", "a b", "letters, digits and . _ : / + - only"),
    ("model_id", "../x", "letters, digits and . _ : / + - only"),
    ("model_id", "a\x00b", "Null characters are not allowed."),
    ("model_id", "x" * 201, "at most 200 characters"),
    ("name", "x" * 100_000, "at most 200 characters"),
    ("name", "", "This field is required."),
    ("name", "a\x07b", "must not contain control characters"),
    ("description", "x" * 100_000, "must have at most 10000 characters (has 100000)"),
    ("chat_template", "x" * 200_001, "must have at most 200000 characters"),
    ("quantization", "Q4\x1b[31m", "must not contain control characters"),
    ("tags", "chat, a;b", "must be words of letters"),
    ("tags", "x" * 100_000, "must be words of letters"),
    ("path", "x\x00y.gguf", "Null characters are not allowed."),
    ("path", "x" * 1001, "at most 1000 characters"),
    ("path", "a\x07b.gguf", "must not contain control characters"),
    ("runtime", "99999", "Select a valid choice."),
    ("runtime", "x", "Select a valid choice."),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "words"), FORM_CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(FORM_CASES)])
@pytest.mark.parametrize("is_new", [True, False], ids=["add", "change"])
def test_bad_value_is_told_at_its_field_and_stays_there(
    signed_in: Client, llama: Runtime, folder: Path, field: str, value: str, words: str, *, is_new: bool
) -> None:
    model = None if is_new else model_with_file(llama, folder, model_id="new")
    before = list(ModelDefinition.objects.values())
    address = change_address(model) if model else ADD

    response = signed_in.post(address, {**definition(llama), field: value})

    assert response.status_code == 200
    assert words in " ".join(errors_of(response)[field])
    assert list(errors_of(response)) == [field]
    assert shows(response, words)
    assert field == "runtime" or shows(response, value)
    assert list(ModelDefinition.objects.values()) == before
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(("name", "reason"), BAD_FILES.items())
@pytest.mark.parametrize("is_absolute", [False, True], ids=["relative", "absolute"])
def test_file_that_is_no_model_is_told_beside_its_path(
    signed_in: Client, llama: Runtime, folder: Path, name: str, reason: str, *, is_absolute: bool
) -> None:
    write_bad_files(folder)
    path = str(folder / name) if is_absolute else name

    response = signed_in.post(ADD, definition(llama, path=path))

    assert errors_of(response)["path"][0].startswith(f"the file {reason}")
    assert shows(response, path)
    assert not ModelDefinition.objects.exists()


@pytest.mark.parametrize("path", ["../../nowhere.gguf", "x" * 300 + ".gguf", "~nobody-here/a.gguf", "a.gguf/b.gguf"])
def test_file_that_is_not_there_yet_may_be_named(signed_in: Client, llama: Runtime, folder: Path, path: str) -> None:
    (folder / "a.gguf").touch()

    signed_in.post(ADD, definition(llama, path=path))

    assert not ModelDefinition.objects.get().is_available


def test_id_that_is_taken_is_told_and_one_in_other_letters_is_another_model(signed_in: Client, llama: Runtime) -> None:
    make_model(llama, model_id="Qwen3", name="Big")

    response = signed_in.post(ADD, definition(llama, model_id="Qwen3"))
    assert "already exists" in errors_of(response)["model_id"][0]

    signed_in.post(ADD, definition(llama, model_id="qwen3", name="Little"))
    assert dict(ModelDefinition.objects.values_list("model_id", "name")) == {"Qwen3": "Big", "qwen3": "Little"}


@pytest.mark.parametrize(
    "query", ["runtime=99999", "runtime=x", "parameters={", "parameters=%00", "size_bytes=x", "tags=%FF", "nothing=1"]
)
def test_form_opens_whatever_its_address_suggests(signed_in: Client, llama: Runtime, query: str) -> None:
    assert signed_in.get(f"{ADD}?{query}").status_code == 200


def test_new_file_shows_at_once(signed_in: Client, llama: Runtime, folder: Path) -> None:
    size = write_tiny_model(folder / "new.gguf").stat().st_size

    signed_in.post(ADD, definition(llama))

    model = ModelDefinition.objects.get()
    assert (model.is_available, model.size_bytes, model.architecture) == (True, size, "llama")


@pytest.mark.parametrize("where", ["null", "far"])
def test_saving_a_model_whose_file_is_not_of_this_host_says_nothing_of_its_file(
    signed_in: Client, null_runtime: Runtime, where: str
) -> None:
    far = MemoryPool.objects.create(host="far")
    runtimes = {"null": null_runtime, "far": Runtime.objects.create(name="far", kind="llama_server", pool=far)}
    model = make_model(runtimes[where], model_id="new", path="new.gguf")

    signed_in.post(change_address(model), definition(model.runtime, name="Renamed"))

    model.refresh_from_db()
    assert (model.name, model.is_available) == ("Renamed", True)


def test_saving_keeps_what_a_worker_wrote_meanwhile(signed_in: Client, llama: Runtime, folder: Path) -> None:
    model = model_with_file(llama, folder, model_id="new")
    real = ModelDefinition.full_clean

    def write_meanwhile(self: ModelDefinition, **options: Any) -> None:
        ModelDefinition.objects.filter(pk=model.pk).update(last_error_code="killed", last_error_text="It was killed.")
        real(self, **options)

    with mock.patch.object(ModelDefinition, "full_clean", write_meanwhile):
        signed_in.post(change_address(model), definition(llama, path="good.gguf", name="Renamed"))

    model.refresh_from_db()
    assert (model.name, model.last_error_code) == ("Renamed", "killed")
