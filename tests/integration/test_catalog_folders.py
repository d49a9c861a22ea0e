"""Hugging Face folders in the catalogue: found, described, refused, and given to a runtime that can load them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from gantry.planning.estimates import ModelFacts
from gantry.planning.estimates_hf import TabbySettings, tabby_parts
from models_admin import catalog, catalog_rows
from models_admin.actor import COMMAND
from models_admin.estimated_need import estimate_for, estimated_bytes
from models_admin.exceptions import InvalidDefinition
from models_admin.model_files import damage, is_on_this_host
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime
from tests.factories import make_model
from tests.tiny_safetensors import write_folder
from tests.unit.modelfiles.files import write_gguf


@pytest.fixture(autouse=True)
def models_dir(settings: Settings, tmp_path: Path) -> Path:
    """An empty folder for models."""
    settings.MODELS_DIR = tmp_path / "models"
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def llama(pool: MemoryPool) -> Runtime:
    """A llama-server on this host."""
    return Runtime.objects.create(name="llama-server", kind=Runtime.Kind.LLAMA_SERVER, pool=pool)


@pytest.fixture
def tabby(pool: MemoryPool) -> Runtime:
    """A TabbyAPI on this host."""
    return Runtime.objects.create(name="tabby", kind=Runtime.Kind.TABBY, pool=pool)


def scan(folder: Path) -> catalog.ScanReport:
    return catalog.import_folder(folder, actor=COMMAND)


def import_text(text: str) -> catalog.ImportReport:
    return catalog.import_models_yaml(text, file_name="models.yaml", actor=COMMAND)


def model(model_id: str) -> ModelDefinition:
    return ModelDefinition.objects.with_runtime().get(model_id=model_id)


# Scans


def test_folder_becomes_a_model_of_tabbyapi(models_dir: Path, llama: Runtime, tabby: Runtime) -> None:
    folder = write_folder(
        models_dir / "Tiny-Llama-exl3", parts=2, quantization_config={"quant_method": "exl3", "bits": 4}
    )
    write_gguf(models_dir / "one.gguf")
    report = scan(models_dir)
    assert (set(report.created), report.problems) == ({"Tiny-Llama-exl3", "one"}, ())
    found = model("Tiny-Llama-exl3")
    assert (found.runtime, model("one").runtime) == (tabby, llama)
    assert (found.name, found.path, found.source) == ("Tiny-Llama-exl3", "Tiny-Llama-exl3", "scan")
    assert (found.quantization, found.parameter_label, found.architecture) == ("EXL3 4.0 bpw", "11K", "llama")
    assert (found.context_length, found.parameters) == (4096, {"max_seq_len": 4096})
    assert found.size_bytes == sum(part.stat().st_size for part in folder.glob("*.safetensors"))
    assert (found.is_available, found.metadata["file_count"], found.metadata["has_chat_template"]) == (True, 2, True)


def test_folder_in_the_hub_s_cache_is_called_as_its_repository(tmp_path: Path, tabby: Runtime) -> None:
    write_folder(tmp_path / "hub" / "models--mistralai--Mistral-7B" / "snapshots" / "abc")
    assert scan(tmp_path / "hub").created == ("mistralai/Mistral-7B",)
    assert model("mistralai/Mistral-7B").name == "mistralai/Mistral-7B"


def test_folder_with_a_name_that_is_no_id_gets_one(models_dir: Path, tabby: Runtime) -> None:
    write_folder(models_dir / "My model (new)")
    assert scan(models_dir).created == ("my-model-new",)


def test_folder_that_nothing_here_can_load_is_told_and_not_added(models_dir: Path, llama: Runtime) -> None:
    folder = write_folder(models_dir / "Tiny")
    write_gguf(models_dir / "one.gguf")
    report = scan(models_dir)
    assert report.created == ("one",)
    assert report.problems == ((folder, catalog_rows.NEEDS_FOLDER_RUNTIME),)
    assert catalog_rows.NEEDS_FOLDER_RUNTIME.startswith("needs TabbyAPI or vLLM")


@pytest.mark.parametrize("change", [{"is_enabled": False}, {"pool": None}])
def test_tabbyapi_elsewhere_or_switched_off_does_not_count(
    models_dir: Path, tabby: Runtime, change: dict[str, None]
) -> None:
    far = MemoryPool.objects.create(host="far")
    Runtime.objects.update(**{name: far if name == "pool" else value for name, value in change.items()})
    write_folder(models_dir / "Tiny")
    assert scan(models_dir).created == ()


def test_second_scan_finds_nothing_new(models_dir: Path, tabby: Runtime) -> None:
    folder = write_folder(models_dir / "Tiny")
    scan(models_dir)
    assert str(scan(models_dir)) == "0 created, 0 changed, 1 unchanged"
    write_folder(folder, max_position_embeddings=512)
    os.utime(folder / "config.json", ns=(1, 1))
    assert scan(models_dir).changed == ("Tiny",)
    assert model("Tiny").context_length == 512


@pytest.mark.parametrize(("model_id", "path"), [("Tiny", "Tiny"), ("Tiny", ""), ("turboderp/Tiny", "turboderp/Tiny")])
def test_model_that_tabbyapi_has_listed_gets_its_folder(
    tmp_path: Path, tabby: Runtime, model_id: str, path: str
) -> None:
    make_model(tabby, model_id=model_id, path=path)
    folder = write_folder(tmp_path / "tabby" / model_id)
    report = scan(tmp_path / "tabby")
    assert (report.created, report.changed) == ((), (model_id,))
    assert (model(model_id).path, model(model_id).quantization) == (str(folder), "BF16")
    change = AuditEntry.objects.get(event="model:definition:change")
    assert (change.before, change.after) == ({"path": path}, {"path": str(folder)})
    assert str(scan(tmp_path / "tabby")) == "0 created, 0 changed, 1 unchanged"


def test_context_that_tabbyapi_would_not_take_is_left_to_it(models_dir: Path, tabby: Runtime) -> None:
    write_folder(models_dir / "Tiny", max_position_embeddings=512)
    scan(models_dir)
    assert model("Tiny").parameters == {}


# Model files


def test_export_imports_again_also_with_tabbyapi(models_dir: Path, tabby: Runtime, llama: Runtime) -> None:
    write_folder(models_dir / "Tiny")
    write_gguf(models_dir / "one.gguf")
    scan(models_dir)
    text = catalog.export_models_yaml()
    assert str(import_text(text)) == "0 created, 0 changed, 2 unchanged"
    ModelDefinition.objects.all().delete()
    assert import_text(text).created == ("Tiny", "one")
    assert (model("Tiny").runtime, model("one").runtime) == (tabby, llama)


def test_entry_with_tabbyapi_s_parameters_is_given_to_it(tabby: Runtime) -> None:
    import_text("models: {a: {parameters: {max_seq_len: 8192, cache_mode: Q4}}}")
    assert model("a").runtime == tabby


def test_entry_that_nothing_here_can_load_is_refused(llama: Runtime) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        import_text("models: {a: {parameters: {max_seq_len: 8192}}, b: {path: b.gguf}}")
    assert caught.value.errors == [("a", catalog_rows.NEEDS_FOLDER_RUNTIME)]
    assert not ModelDefinition.objects.exists()


# Files that come, go and change


def test_availability_follows_the_folder(models_dir: Path, tabby: Runtime) -> None:
    folder = write_folder(models_dir / "Tiny")
    scan(models_dir)
    folder.rename(models_dir / "away")
    assert catalog.refresh_availability() == ["Tiny"]
    assert (model("Tiny").is_available, is_on_this_host(model("Tiny"))) == (False, True)
    (models_dir / "away").rename(folder)
    assert catalog.refresh_availability() == ["Tiny"]
    assert model("Tiny").is_available


def test_damaged_folder_is_told_and_so_is_its_mending(models_dir: Path, tabby: Runtime) -> None:
    folder = write_folder(models_dir / "Tiny", parts=2)
    scan(models_dir)
    part = folder / "model-00002-of-00002.safetensors"
    whole = part.read_bytes()
    part.unlink()
    assert catalog.refresh_availability() == ["Tiny"]
    damaged = model("Tiny")
    assert (damaged.is_available, damaged.last_error_code) == (True, "file_damaged")
    assert damaged.last_error_text == f"The folder is missing a part that its index names: {part.name}."
    assert catalog.refresh_availability() == []
    part.write_bytes(whole)
    assert catalog.refresh_availability() == ["Tiny"]
    assert model("Tiny").last_error_code == ""


def test_server_s_own_word_stands_until_the_folder_was_seen_here(tabby: Runtime) -> None:
    """TabbyAPI lists what it has, by name; its folder may be out of our sight."""
    make_model(tabby, model_id="listed", path="listed")
    assert catalog.refresh_availability() == []
    assert not is_on_this_host(model("listed"))
    ModelDefinition.objects.update(path="")
    assert catalog.refresh_availability() == []
    assert model("listed").is_available


def test_listed_model_is_described_once_its_folder_is_seen(models_dir: Path, tabby: Runtime) -> None:
    make_model(tabby, model_id="listed", path="listed", size_bytes=0)
    write_folder(models_dir / "listed")
    assert catalog.refresh_availability() == ["listed"]
    assert (model("listed").quantization, is_on_this_host(model("listed"))) == ("BF16", True)


def test_model_given_to_a_runtime_that_cannot_load_it_says_so(models_dir: Path, llama: Runtime, tabby: Runtime) -> None:
    write_folder(models_dir / "Tiny")
    write_gguf(models_dir / "one.gguf")
    make_model(llama, model_id="folder", path="Tiny", is_available=False)
    make_model(tabby, model_id="file", path="one.gguf", is_available=False)
    assert set(catalog.refresh_availability()) == {"folder", "file"}
    assert (
        model("folder").last_error_text
        == "The folder holds a model in safetensors files, which needs TabbyAPI or vLLM."
    )
    assert model("file").last_error_text == "The file is a GGUF file, which needs llama-server."


# Checks of a definition


def test_definition_with_a_whole_folder_passes(models_dir: Path, tabby: Runtime) -> None:
    write_folder(models_dir / "Tiny")
    catalog.validate_definition({"path": "Tiny", "runtime": tabby})
    catalog.validate_definition({"path": "Tiny"})


def test_definition_with_a_damaged_folder_is_refused(models_dir: Path) -> None:
    folder = write_folder(models_dir / "Tiny")
    (folder / "config.json").write_text("no")
    with pytest.raises(InvalidDefinition) as caught:
        catalog.validate_definition({"path": "Tiny"})
    assert caught.value.errors == [("path", "the folder has a config.json that is not JSON")]
    assert damage(folder) == "has a config.json that is not JSON"


def test_definition_with_the_wrong_runtime_is_refused(models_dir: Path, llama: Runtime, tabby: Runtime) -> None:
    write_folder(models_dir / "Tiny")
    write_gguf(models_dir / "one.gguf")
    for path, runtime, reason in (
        ("Tiny", llama, "holds a model in safetensors files, which needs TabbyAPI or vLLM"),
        ("one.gguf", tabby, "is a GGUF file, which needs llama-server"),
    ):
        with pytest.raises(InvalidDefinition) as caught:
            catalog.validate_definition({"path": path, "runtime": runtime})
        assert caught.value.errors == [("runtime", f"cannot load it: what the path names {reason}")]


def test_folder_that_is_no_model_is_refused(models_dir: Path) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        catalog.validate_definition({"path": str(models_dir)})
    assert caught.value.errors == [("path", "the file is a folder")]
    assert damage(models_dir) == ""


def test_parameters_are_those_of_the_runtime(llama: Runtime, tabby: Runtime) -> None:
    for_tabby, for_llama = {"max_seq_len": 8192}, {"ctx_size": 8192}
    catalog.validate_definition({"parameters": for_tabby, "runtime": tabby})
    catalog.validate_definition({"parameters": for_llama, "runtime": llama})
    catalog.validate_definition({"parameters": for_tabby})
    for parameters, runtime in ((for_tabby, llama), (for_llama, tabby), ({**for_tabby, **for_llama}, None)):
        with pytest.raises(InvalidDefinition, match="has errors"):
            catalog.validate_definition({"parameters": parameters, "runtime": runtime})


def test_damage_is_told_of_both_forms_and_of_nothing_else(models_dir: Path) -> None:
    whole, folder = write_gguf(models_dir / "whole.gguf"), write_folder(models_dir / "Tiny")
    (models_dir / "bad.gguf").write_bytes(b"no")
    (models_dir / "other.bin").write_bytes(b"no")
    assert [damage(path) for path in (whole, folder, models_dir / "other.bin", models_dir / "gone.gguf")] == [""] * 4
    assert damage(models_dir / "bad.gguf") == "is not a GGUF file"


# What it needs


def test_need_of_a_folder_is_that_of_tabbyapi(models_dir: Path, tabby: Runtime) -> None:
    write_folder(models_dir / "Tiny")
    scan(models_dir)
    found = model("Tiny")
    found.parameters = {"max_seq_len": 2048, "cache_size": 4096, "cache_mode": "Q4", "chunk_size": 512, "vision": True}
    facts = facts_of(found)
    assert estimated_bytes(found) == tabby_parts(facts, TabbySettings(2048, 4096, "Q4", 512)).total_bytes
    estimate = estimate_for(found)
    assert estimate is not None
    assert estimate(1024) == tabby_parts(facts, TabbySettings(1024, 0, "Q4", 512))
    found.parameters = {"max_seq_len": "lots", "cache_size": True}
    assert estimated_bytes(found) == tabby_parts(facts, TabbySettings()).total_bytes


def facts_of(found: ModelDefinition) -> ModelFacts:
    facts = ModelFacts.from_dict(found.metadata["memory"])
    assert facts is not None
    return facts
