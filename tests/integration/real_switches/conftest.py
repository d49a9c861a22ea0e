"""Files of models that load well, slowly or never, and a host with the real llama-server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from gantry.bringup.demo import DEMO_MODELS
from gantry.hardware.fixed import FixedMemory
from models_admin import memory
from models_admin.models import MemoryPool, ModelDefinition, Runtime
from tests.integration.llama_server.helpers import our_processes, wrapper
from tests.integration.real_switches.held import release_all
from tests.integration.real_switches.host import MIB, PARAMETERS, Host
from tests.tiny_gguf import write_tiny_model

SMOLLM2, GEMMA = DEMO_MODELS
PLENTY_BYTES = 4 * 1024 * MIB
ODD_WORDS = "the moon stands in the wrong house"

# The real llama-server, in surroundings that its model's file decides.
SURROUNDINGS = f"""
case "$*" in
*/held.gguf*) kill -STOP $$ ;;
*/starved.gguf*) ulimit -v 600000 ;;
*/odd.gguf*) echo "{ODD_WORDS}" >&2; exit 42 ;;
*/foreign.gguf*) kill -ILL $$ ;;
esac
exec @SERVER@ "$@"
"""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of random weights."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("former", "third", "odd", "foreign")):
        write_tiny_model(folder / f"{name}.gguf", seed=seed)
    write_tiny_model(folder / "talker.gguf", padding_bytes=200 * MIB)
    # A tensor is read in one go: many small ones, so that a load can be stopped anywhere.
    write_tiny_model(folder / "held.gguf", n_layers=16, padding_bytes=300 * MIB)
    write_tiny_model(folder / "starved.gguf", padding_bytes=600 * MIB)
    _change(folder, "holed", b"blk.1.ffn_down.weight", b"blk.1.ffn_dawn.weight")
    _change(folder, "alien", b"llama", b"lxama")
    SMOLLM2.place(folder / SMOLLM2.file_name, lambda _: None)
    return folder


def _change(folder: Path, name: str, old: bytes, new: bytes) -> None:
    """A copy of a good file in which one name is another one of the same length: whole, and of no use."""
    content = (folder / "former.gguf").read_bytes()
    assert old in content
    (folder / f"{name}.gguf").write_bytes(content.replace(old, new))


@pytest.fixture
def host(
    tmp_path: Path,
    folder: Path,
    pool: MemoryPool,
    admin_person: User,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Host]:
    """Has plenty of memory at first. Whatever a test leaves behind is ended."""
    settings.RUNTIME_DIR = tmp_path
    settings.MODELS_DIR = folder
    settings.LLAMA_SERVER = wrapper(tmp_path, SURROUNDINGS)
    runtime = Runtime.objects.create(name="llama-server", kind=Runtime.Kind.LLAMA_SERVER, pool=pool)
    state_dir = tmp_path / f"{runtime.kind}-{runtime.pk}"

    def use_memory(source: FixedMemory) -> None:
        monkeypatch.setattr(memory, "memory_source", lambda: source)

    host = Host(runtime, pool, folder, state_dir, admin_person, use_memory)
    host.give_memory(PLENTY_BYTES)
    adapter = host.adapter
    yield host
    release_all(state_dir)
    for instance in adapter.running():
        adapter.unload(instance.instance_id)
    assert our_processes(tmp_path) == []


@pytest.fixture
def former(host: Host) -> ModelDefinition:
    """Is active when the test begins."""
    model = host.add("former")
    host.switch(model)
    host.assert_serves(model)
    return model


@pytest.fixture
def held(host: Host) -> ModelDefinition:
    """Loads only as far as a test lets it (`Host.held`)."""
    return host.add("held", parameters={**PARAMETERS, "no_mmap": True})


@pytest.fixture
def smol(host: Host) -> ModelDefinition:
    """A real model."""
    return host.add(SMOLLM2.model_id, path=SMOLLM2.file_name, **{**SMOLLM2.fields, "parameters": PARAMETERS})


@pytest.fixture(scope="session")
def gemma_file(folder: Path) -> Path:
    """The other real model's file, put together."""
    GEMMA.place(folder / GEMMA.file_name, lambda _: None)
    return folder / GEMMA.file_name


@pytest.fixture
def gemma(host: Host, gemma_file: Path) -> ModelDefinition:
    """Another real model, which knows capitals."""
    return host.add(GEMMA.model_id, path=gemma_file.name, **{**GEMMA.fields, "parameters": PARAMETERS})
