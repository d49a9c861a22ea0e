from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from pytest_django.fixtures import Settings

from gantry.modelfiles.model_entry import MODEL_ID
from models_admin import catalog
from models_admin.actor import COMMAND, Actor
from models_admin.exceptions import InvalidDefinition, NotAllowed
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime
from models_admin.models.model_definition import valid_model_id
from tests.unit.modelfiles.files import write_gguf, write_shards

EXAMPLE = Path(__file__).resolve().parents[2] / "config" / "models.yaml"
ONE = "models:\n  a:\n    name: Model A\n    path: a.gguf\n    size: 12GB\n    tags: [chat]\n"


@pytest.fixture(autouse=True)
def models_dir(settings: Settings, tmp_path: Path) -> Path:
    """An empty folder for models."""
    settings.MODELS_DIR = tmp_path / "models"
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture(autouse=True)
def runtime(pool: MemoryPool) -> Runtime:
    """The runtime that new models get."""
    return Runtime.objects.create(name="llama-server", kind=Runtime.Kind.LLAMA_SERVER, pool=pool)


def import_text(text: str) -> catalog.ImportReport:
    return catalog.import_models_yaml(text, file_name="models.yaml", actor=COMMAND)


def model(model_id: str = "a") -> ModelDefinition:
    return ModelDefinition.objects.with_runtime().get(model_id=model_id)


def events() -> list[str]:
    return list(AuditEntry.objects.order_by("id").values_list("event", flat=True))


# Import of a model file


def test_example_imports_as_not_downloaded() -> None:
    report = import_text(EXAMPLE.read_text(encoding="utf-8"))
    assert report.created == ("gpt-oss-20b-mxfp4", "qwen3-coder-next-mxfp4", "glm-4.7-flash-q4")
    assert str(report) == "3 created, 0 changed, 0 unchanged"
    gpt = model("gpt-oss-20b-mxfp4")
    assert (gpt.size_bytes, gpt.context_length, gpt.parameter_label) == (12_000_000_000, 131_072, "20B")
    assert not ModelDefinition.objects.filter(is_available=True).exists()
    assert events() == ["model:definition:create"] * 3 + ["model:file:import"]


def test_second_import_of_the_same_file_changes_nothing() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    import_text(text)
    assert str(import_text(text)) == "0 created, 0 changed, 3 unchanged"


def test_changed_file_changes_what_it_speaks_of_and_nothing_else() -> None:
    import_text(ONE)
    ModelDefinition.objects.update(is_pinned=True, description="kept")
    report = import_text("models:\n  a:\n    name: New name\n    parameters: {ctx_size: 4096}\n")
    assert report.changed == ("a",)
    changed = model()
    assert (changed.name, changed.parameters, changed.path) == ("New name", {"ctx_size": 4096}, "a.gguf")
    assert (changed.is_pinned, changed.description) == (True, "kept")
    entry = AuditEntry.objects.get(event="model:definition:change")
    assert entry.before == {"name": "Model A", "parameters": {}}
    assert entry.after == {"name": "New name", "parameters": {"ctx_size": 4096}}


def test_file_with_an_error_imports_nothing() -> None:
    with pytest.raises(InvalidDefinition) as caught:
        import_text(ONE + "  b:\n    parameters: {ctx_size: lots}\n")
    assert [place for place, _ in caught.value.errors] == ["models.yaml line 8, models.b.parameters.ctx_size"]
    assert not ModelDefinition.objects.exists()
    assert not AuditEntry.objects.exists()


def test_model_whose_file_is_there_is_described_by_it(models_dir: Path) -> None:
    path = write_gguf(models_dir / "a.gguf", general__file_type=15)
    import_text(ONE)
    found = model()
    assert found.is_available
    assert (found.size_bytes, found.quantization, found.context_length) == (path.stat().st_size, "Q4_K_M", 256)
    assert str(import_text(ONE)) == "0 created, 0 changed, 1 unchanged"


def test_import_without_a_runtime_says_what_to_do(runtime: Runtime) -> None:
    runtime.delete()
    with pytest.raises(InvalidDefinition) as caught:
        import_text(ONE)
    assert "manage.py up" in caught.value.errors[0][1]


@pytest.mark.parametrize("codenames", [(), ("add_modeldefinition",), ("change_modeldefinition",), ("switch_model",)])
def test_import_and_scan_need_the_permissions(codenames: tuple[str, ...], tmp_path: Path) -> None:
    user = User.objects.create_user("eve")
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    actor = Actor(user, "page")
    with pytest.raises(NotAllowed):
        catalog.import_models_yaml(ONE, file_name="models.yaml", actor=actor)
    with pytest.raises(NotAllowed):
        catalog.import_folder(tmp_path, actor=actor)
    assert not ModelDefinition.objects.exists()


def test_import_is_written_down_with_who_did_it() -> None:
    user = User.objects.create_user("mia")
    user.user_permissions.set(Permission.objects.filter(codename__in=["add_modeldefinition", "change_modeldefinition"]))
    catalog.import_models_yaml(ONE, file_name="team.yaml", actor=Actor(user, "page", "10.0.0.1"))
    entry = AuditEntry.objects.get(event="model:file:import")
    assert (entry.actor_name, entry.address, entry.object_text) == ("mia", "10.0.0.1", "team.yaml")
    assert (entry.after, entry.outcome) == ({"created": ["a"], "changed": []}, "1 created, 0 changed, 0 unchanged")


def test_export_imports_elsewhere_as_it_was() -> None:
    import_text(
        ONE
        + "    pinned: true\n    sampling: {stop: ['\\n']}\n    extra_args: [--top-k, '5']\n    chat_template: |\n      a\n      b\n"
    )
    text = catalog.export_models_yaml()
    before = catalog.audited_values(model())
    ModelDefinition.objects.all().delete()
    import_text(text)
    assert catalog.audited_values(model()) == before


# Scan of a folder


def test_scan_creates_a_definition_for_each_model(models_dir: Path, tmp_path: Path) -> None:
    write_gguf(models_dir / "Tiny Chat.Q4_K_M.gguf", arch__context_length=32_768)
    write_gguf(tmp_path / "embed.gguf", arch__pooling_type=1)
    write_shards(models_dir)
    (models_dir / "bad.gguf").write_bytes(b"no")
    report = catalog.import_folder(tmp_path, actor=COMMAND)
    assert set(report.created) == {"tiny-chat.q4_k_m", "embed", "big"}
    assert report.problems == ((models_dir / "bad.gguf", "is not a GGUF file"),)
    tiny, embed, big = model("tiny-chat.q4_k_m"), model("embed"), model("big")
    assert (tiny.path, tiny.parameters, tiny.is_available) == ("Tiny Chat.Q4_K_M.gguf", {"ctx_size": 8192}, True)
    assert (embed.path, embed.is_embedding) == (str(tmp_path / "embed.gguf"), True)
    assert (big.name, big.metadata["file_count"], big.source) == ("Big", 3, "scan")
    assert {tiny.name, embed.name} == {"Tiny", "Tiny F32"}
    assert events()[-1] == "model:folder:scan"


def test_second_scan_finds_nothing_new(models_dir: Path) -> None:
    write_gguf(models_dir / "a.gguf")
    catalog.import_folder(models_dir, actor=COMMAND)
    assert str(catalog.import_folder(models_dir, actor=COMMAND)) == "0 created, 0 changed, 1 unchanged"
    write_gguf(models_dir / "a.gguf", arch__context_length=512)
    os.utime(models_dir / "a.gguf", ns=(1, 1))
    assert catalog.import_folder(models_dir, actor=COMMAND).changed == ("a",)
    assert model().context_length == 512


def test_scan_knows_a_model_by_its_file_whatever_its_id(models_dir: Path) -> None:
    import_text("models: {my-id: {path: a.gguf}}")
    write_gguf(models_dir / "a.gguf")
    (models_dir / "link").symlink_to(models_dir)
    assert catalog.import_folder(models_dir / "link", actor=COMMAND).changed == ("my-id",)


def test_ids_of_namesakes_differ(models_dir: Path) -> None:
    for folder in ("x", "y"):
        (models_dir / folder).mkdir()
        write_gguf(models_dir / folder / "model.gguf")
    assert set(catalog.import_folder(models_dir, actor=COMMAND).created) == {"model", "model-2"}


# Files that come, go and change


def test_availability_follows_the_file(models_dir: Path, django_capture_on_commit_callbacks: Any) -> None:
    import_text(ONE)
    assert catalog.refresh_availability() == []
    write_gguf(models_dir / "a.gguf")
    with django_capture_on_commit_callbacks() as hints:
        assert catalog.refresh_availability() == ["a"]
    assert len(hints) == 1
    assert model().is_available
    assert catalog.refresh_availability() == []
    (models_dir / "a.gguf").unlink()
    assert catalog.refresh_availability() == ["a"]
    assert not model().is_available
    assert model().size_bytes > 0


def test_damaged_file_is_told_and_so_is_its_mending(models_dir: Path) -> None:
    import_text(ONE)
    path = write_gguf(models_dir / "a.gguf")
    size = path.stat().st_size
    os.truncate(path, size - 64)
    assert catalog.refresh_availability() == ["a"]
    damaged = model()
    assert (damaged.is_available, damaged.last_error_code) == (True, "file_damaged")
    assert damaged.last_error_text == f"The file is cut off: it should have {size:,} bytes and has {size - 64:,}."
    assert catalog.refresh_availability() == []
    write_gguf(path)
    assert catalog.refresh_availability() == ["a"]
    assert model().last_error_code == ""


def test_missing_shard_means_not_downloaded(models_dir: Path) -> None:
    shards = write_shards(models_dir)
    import_text(f"models: {{a: {{path: {shards[0].name}}}}}")
    assert model().is_available
    shards[2].unlink()
    assert catalog.refresh_availability() == ["a"]
    assert not model().is_available


def test_models_of_other_hosts_and_runtimes_are_left_alone(null_runtime: Runtime, runtime: Runtime) -> None:
    far = MemoryPool.objects.create(host="far")
    elsewhere = Runtime.objects.create(name="far", kind=Runtime.Kind.LLAMA_SERVER, pool=far)
    for number, owner in enumerate((null_runtime, elsewhere)):
        ModelDefinition.objects.create(model_id=f"m{number}", name="M", runtime=owner, path="m.gguf", is_available=True)
    assert catalog.refresh_availability() == []


def test_looking_at_files_takes_one_query(django_assert_num_queries: Any) -> None:
    import_text("models: {" + ", ".join(f"m{number}: {{path: m{number}.gguf}}" for number in range(30)) + "}")
    with django_assert_num_queries(1):
        catalog.refresh_availability()


@pytest.mark.parametrize("path", ["x" * 300, "~nobody-here/x.gguf", "a/b/../c.gguf", "/etc/passwd/x", "."])
def test_odd_paths_are_just_not_there(path: str) -> None:
    import_text(f"models: {{a: {{path: '{path}'}}}}")
    assert not model().is_available
    assert model().last_error_code == ""


def test_relative_path_starts_at_the_models_folder(models_dir: Path) -> None:
    assert catalog.resolve_path(ModelDefinition(path="x/a.gguf")) == models_dir / "x/a.gguf"
    assert catalog.resolve_path(ModelDefinition(path="/x/a.gguf")) == Path("/x/a.gguf")


# Checks of a definition


def test_definition_without_errors_passes() -> None:
    catalog.validate_definition({"model_id": "a/b:c", "name": "A", "path": "a.gguf", "parameters": {"ctx_size": 1}})
    catalog.validate_definition({})


@pytest.mark.parametrize(
    ("values", "place", "message"),
    [
        ({"model_id": "a b"}, "model_id", "may have letters"),
        ({"name": ""}, "name", "must not be empty"),
        ({"parameters": {"ctx_size": 0}}, "parameters.ctx_size", "must be a whole number of at least 1"),
        ({"parameters": []}, "parameters", "must be a mapping"),
        ({"extra_args": ["--a;b"]}, "extra_args", "extra_args[0]: must not contain the character ;"),
        ({"extra_args": "x"}, "extra_args", "must be a list"),
        ({"sampling": {"temperature": 9}}, "sampling.temperature", "must be a number of at least 0 and at most 5"),
        ({"tags": "x"}, "tags", "must be a list of words"),
        ({"chat_template": "\x00"}, "chat_template", "must not contain control characters"),
    ],
)
def test_definition_with_an_error_names_its_place(values: dict[str, Any], place: str, message: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        catalog.validate_definition(values)
    [(told_place, told)] = caught.value.errors
    assert (told_place, told.startswith(message)) == (place, True)


def test_definition_with_a_file_that_is_no_model_is_refused(models_dir: Path) -> None:
    (models_dir / "a.gguf").write_bytes(b"<html>")
    with pytest.raises(InvalidDefinition) as caught:
        catalog.validate_definition({"path": "a.gguf"})
    assert caught.value.errors == [("path", "the file is not a GGUF file")]


def test_ids_of_files_and_rows_follow_one_rule() -> None:
    rule = valid_model_id.regex
    assert MODEL_ID.pattern == (rule if isinstance(rule, str) else rule.pattern)
