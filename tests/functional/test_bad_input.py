"""Bad input where models come in: the form, the import page, the scan, the commands.

Whatever is given, it is told at its place, nothing is started, nothing is lost, and no page fails.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from pytest_django.fixtures import Settings

from models_admin import job_moves
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime, SwitchJob
from tests.factories import make_model
from tests.functional.bad_input_world import (
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

IMPORT_YAML = "/admin/models/import/yaml/"
SCAN = "/admin/models/import/folder/"


@pytest.fixture(autouse=True)
def nothing_starts(db: None) -> Iterator[None]:
    """No request of these tests may lead to a job."""
    with mock.patch.object(job_moves, "enqueue_on_commit") as enqueue:
        yield
    enqueue.assert_not_called()
    assert not SwitchJob.objects.exists()


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    """The folder of models."""
    settings.MODELS_DIR = tmp_path
    return tmp_path


@pytest.fixture
def llama(pool: MemoryPool) -> Runtime:
    """A runtime of this host that starts servers."""
    assert pool.host == django_settings.HOST_NAME
    return Runtime.objects.create(name="llama-server", kind="llama_server", pool=pool, is_healthy=True)


@pytest.fixture
def signed_in(client: Client, admin_person: User) -> Client:
    client.force_login(admin_person)
    return client


# The form of a model

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


# The import page

YAML_CASES = [
    ("models:\n\t- id: x\n", "line 2", "a tab is used to indent; YAML allows spaces only"),
    ("models:\n  - id: x\n    parameters: {ctx_size: lots}\n", "line 3, models.x.parameters.ctx_size", 'got "lots"'),
    ("models:\n  - id: x\n    parameters: [1]\n", "line 3, models.x.parameters", "must be a mapping"),
    ("models:\n  - id: x\n    parameters: {ctx_size: 0}\n", "line 3, models.x.parameters.ctx_size", "at least 1"),
    ("models:\n  - id: x\n    parameters: {ctx_size: .nan}\n", "line 3, models.x.parameters.ctx_size", "(got NaN)"),
    ("models:\n  - id: x\n    extra_args: ['--a;b']\n", "line 3, models.x.extra_args[0]", "the character ;"),
    ('models:\n  - id: x\n    extra_args: ["--a\\ud800"]\n', "line 3, models.x.extra_args[0]", "control characters"),
    ("models:\n  - id: x\n    sampling: {temperature: 99}\n", "line 3, models.x.sampling.temperature", "at most 5"),
    ('models:\n  - id: x\n    sampling: {stop: ["\\0"]}\n', "line 3, models.x.sampling.stop", "must be"),
    ("models:\n  - id: x\n    size: 999999999999TB\n", "line 3, models.x.size", "must be a size such as 12GB"),
    ("models:\n  - id: x\n    context: 99999999999\n", "line 3, models.x.context", "must be a number of tokens"),
    ("models:\n  - id: x\n    path: [a]\n", "line 3, models.x.path", "must be a text (got a list)"),
    ('models:\n  - id: x\n    path: "a\\0b"\n', "line 3, models.x.path", "control characters"),
    ('models:\n  - id: x\n    name: "\\ud800"\n', "line 3, models.x.name", "control characters"),
    ("models:\n  - id: x\n    pinned: 5\n", "line 3, models.x.pinned", "must be true or false"),
    ('models:\n  - id: x\n    "\\ud800": 5\n', "line 3", "unknown"),
    ('models:\n  "\\ud800": {}\n', "line 2", "an id has letters"),
    ("models:\n  - id: a b\n", "line 2", "an id has letters"),
    ("models:\n  - {}\n", "line 2, models[0]", "id is missing"),
    ("models: {x: {nmae: 1}}\n", "line 1, models.x.nmae", "did you mean name?"),
    ("models: 5\n", "line 1, models", "must be a list"),
    ("- id: x\n", "line 1", "must be a mapping"),
    ("models: &a [*a]\n", "line 1", "aliases (*name) are not supported"),
    ("models: " + "[" * 5000, "line 1", "nested too deeply"),
    ("models: !!python/object:os.system {}\n", "line 1", "has no use here"),
    ("models: [\n", "line 2", "not valid YAML"),
    ('a: "\\UFFFFFFFF"', "line 1", "not valid YAML"),
    ("models:\n  - id: x\n    name: a\x07b\n", "line 3", "a character that YAML does not allow"),
    ("#" * 2 * 1024**2, "models.yaml", "is larger than 1 MiB"),
]  # fmt: skip


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


# The scan of a folder


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


# The commands


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


def test_text_that_looks_like_a_number_comes_back_from_an_export_as_text(signed_in: Client, llama: Runtime) -> None:
    signed_in.post(IMPORT_YAML, {"text": "models: {a: {name: '1e3', sampling: {stop: ['0E0']}}}"})

    exported = signed_in.get("/admin/models/export/").content.decode()
    ModelDefinition.objects.all().delete()
    signed_in.post(IMPORT_YAML, {"text": exported})

    model = ModelDefinition.objects.get()
    assert (model.name, model.sampling) == ("1e3", {"stop": ["0E0"]})
