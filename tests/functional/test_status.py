"""`manage.py status`: the Models tab in a terminal."""

from __future__ import annotations

import io
import json
import uuid
from typing import Any

import pytest
from django.core.management import call_command

from models_admin.models import ModelDefinition, ModelInstance, Runtime
from tests.functional.stack import Stack


@pytest.fixture
def models(null_runtime: Runtime) -> None:
    """One that answers, one that is idle, one without a file."""
    common: dict[str, Any] = {
        "runtime": null_runtime,
        "size_bytes": 2_500_000_000,
        "quantization": "Q4_K_M",
        "tags": ["chat"],
    }
    active = ModelDefinition.objects.create(model_id="a", name="Answering", is_available=True, **common)
    ModelDefinition.objects.create(model_id="b", name="Idle", is_available=True, **common)
    ModelDefinition.objects.create(model_id="c", name="Missing", **common)
    ModelInstance.objects.create(
        instance_id=uuid.uuid4(),
        model=active,
        runtime=null_runtime,
        state="loaded",
        is_active=True,
        held_bytes=300_000_000,
    )


def run(*arguments: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("status", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("models")
def test_people_get_a_table_in_which_idle_models_have_no_word() -> None:
    head, *rows = run().strip().split("\n\n")[1].splitlines()
    assert head.split() == ["Model", "State", "Size", "Quantisation", "Parameters", "Tags"]
    assert [row.split() for row in rows] == [
        ["Answering", "Active", "2.5", "GB", "Q4_K_M", "chat"],
        ["Idle", "2.5", "GB", "Q4_K_M", "chat"],
        ["Missing", "Not", "downloaded", "2.5", "GB", "Q4_K_M", "chat"],
    ]


@pytest.mark.usefixtures("models")
def test_programs_get_stable_keys() -> None:
    data = json.loads(run("--json"))
    assert set(data) == {"memory", "runtimes", "job", "last_job", "active", "models"}
    assert data["active"] == "a"
    assert {model["id"]: model["state"] for model in data["models"]} == {
        "a": "active",
        "b": "idle",
        "c": "not_downloaded",
    }
    assert data["models"][0]["held_bytes"] == 300_000_000


@pytest.mark.django_db
def test_without_models_it_says_what_to_do() -> None:
    assert "No models yet" in run()


def test_running_gantry_shows_its_memory(stack: Stack) -> None:
    done = stack.manage("status")
    assert done.returncode == 0
    assert "llama-server" in done.stdout
