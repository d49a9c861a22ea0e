"""Files of models on routers: looked at where Gantry starts the router, and left to whoever runs it elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from models_admin import catalog
from models_admin.exceptions import InvalidDefinition
from models_admin.model_files import is_on_this_host, loads_from_disk, refresh_availability
from models_admin.models import MemoryPool, Runtime
from tests.factories import make_model
from tests.tiny_safetensors import write_folder
from tests.unit.modelfiles.files import write_gguf


@pytest.fixture(autouse=True)
def models_dir(settings: Settings, tmp_path: Path) -> Path:
    """A folder with one model."""
    settings.MODELS_DIR = tmp_path
    write_gguf(tmp_path / "one.gguf")
    return tmp_path


@pytest.fixture
def own(pool: MemoryPool) -> Runtime:
    """A router that Gantry starts."""
    return Runtime.objects.create(name="own", kind=Runtime.Kind.LLAMA_ROUTER, pool=pool)


@pytest.fixture
def theirs(pool: MemoryPool) -> Runtime:
    """A router that somebody else runs."""
    return Runtime.objects.create(name="theirs", kind=Runtime.Kind.LLAMA_ROUTER, pool=pool, url="http://127.0.0.1:1")


def test_file_of_a_model_on_an_own_router_is_found_and_missed(own: Runtime, models_dir: Path) -> None:
    model = make_model(own, path="one.gguf", is_available=False, size_bytes=0)
    assert refresh_availability() == [model.model_id]
    model.refresh_from_db()
    assert model.is_available
    assert model.size_bytes == (models_dir / "one.gguf").stat().st_size
    (models_dir / "one.gguf").unlink()
    assert refresh_availability() == [model.model_id]
    model.refresh_from_db()
    assert not model.is_available


def test_model_of_somebody_elses_router_is_not_looked_for_here(theirs: Runtime) -> None:
    model = make_model(theirs, path="gone.gguf", is_available=True)
    assert not loads_from_disk(theirs)
    assert not is_on_this_host(model)
    assert refresh_availability() == refresh_availability([model]) == []


def test_router_is_given_no_folder_of_safetensors(own: Runtime, models_dir: Path) -> None:
    write_folder(models_dir / "Tiny")
    with pytest.raises(InvalidDefinition) as caught:
        catalog.validate_definition({"path": "Tiny", "runtime": own})
    assert caught.value.errors[0][0] == "runtime"
