"""On which GPUs a model goes: said where its server can be told, and refused where the server chooses by itself."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.forms import model_to_dict
from django.test import Client

from gantry.planning.states import JobKind
from models_admin import catalog
from models_admin.actor import Actor
from models_admin.exceptions import InvalidDefinition
from models_admin.forms import ModelDefinitionForm
from models_admin.models import MemoryPool, Runtime
from models_admin.plans import Wish, make_plan
from tests.factories import make_model

GIB = 1024**3
FIRST, SECOND = "GPU-aaaa", "GPU-bbbb"
OWN: dict[str, str] = {}
THERE = {"url": "http://127.0.0.1:1"}


@pytest.fixture
def pool(pool: MemoryPool) -> MemoryPool:
    """Two GPUs, half of each free."""
    figures = {"total_bytes": 4 * GIB, "free_bytes": 2 * GIB, "held_bytes": 0}
    pool.devices = [{"id": device, "name": "GPU", **figures} for device in (FIRST, SECOND)]
    pool.total_bytes, pool.free_bytes = 8 * GIB, 4 * GIB
    pool.save()
    return pool


def runtime_of(pool: MemoryPool, kind: str, fields: dict[str, str]) -> Runtime:
    return Runtime.objects.create(name="Server", kind=kind, pool=pool, is_healthy=True, **fields)


def errors_of(runtime: Runtime | None, devices: Any) -> list[tuple[str, str]]:
    try:
        catalog.validate_definition({"devices": devices, **({"runtime": runtime} if runtime else {})})
    except InvalidDefinition as exc:
        return exc.errors
    return []


@pytest.mark.parametrize("kind", ["llama_server", "llama_router"])
def test_devices_of_a_server_that_gantry_starts_are_taken(pool: MemoryPool, kind: str) -> None:
    runtime = runtime_of(pool, kind, OWN)
    assert errors_of(runtime, [SECOND]) == []
    assert errors_of(runtime, []) == []
    assert errors_of(runtime, [FIRST, "GPU-gone"]) == [
        ("devices", f"there is no device GPU-gone on local; there are: {FIRST}, {SECOND}")
    ]


@pytest.mark.parametrize(("kind", "words"), [("tabby", "gpu_split"), ("llama_router", "`device` in its preset")])
def test_devices_of_a_server_that_chooses_by_itself_are_refused_with_what_to_do(
    pool: MemoryPool, kind: str, words: str
) -> None:
    runtime = runtime_of(pool, kind, THERE)
    [(place, message)] = errors_of(runtime, [FIRST])
    assert place == "devices"
    assert message.startswith("must be empty: ")
    assert words in message
    assert errors_of(runtime, []) == []


@pytest.mark.parametrize("devices", [FIRST, {"id": FIRST}, [0], [[FIRST]]])
def test_devices_are_a_list_of_texts(db: None, devices: Any) -> None:
    [(place, message)] = errors_of(None, devices)
    assert (place, message.partition(" (")[0]) == ("devices", "must be a list of texts")


@pytest.mark.parametrize(("kind", "fields"), [("tabby", THERE), ("llama_router", THERE)])
def test_plan_for_a_server_that_chooses_by_itself_counts_the_whole_pool(
    pool: MemoryPool, kind: str, fields: dict[str, str]
) -> None:
    """Also where its definition still has devices from another server."""
    model = make_model(runtime_of(pool, kind, fields), model_id="wide", size_bytes=2 * GIB, devices=[FIRST])
    plan = make_plan(Wish(JobKind.SWITCH, pool, model))
    assert (plan.devices, plan.free_bytes, plan.total_bytes) == ((), 4 * GIB, 8 * GIB)


def test_plan_for_a_server_that_is_told_names_the_devices(pool: MemoryPool) -> None:
    model = make_model(runtime_of(pool, "llama_router", OWN), model_id="narrow", size_bytes=GIB, devices=[SECOND])
    assert make_plan(Wish(JobKind.SWITCH, pool, model)).devices == (SECOND,)


def imported(text: str, actor: Actor) -> list[tuple[str, str]]:
    try:
        catalog.import_models_yaml(text, file_name="models.yaml", actor=actor)
    except InvalidDefinition as exc:
        return exc.errors
    return []


@pytest.mark.parametrize(("written", "kept"), [("[GPU-bbbb]", [SECOND]), ("auto", []), ("[]", [])])
def test_devices_are_taken_from_a_model_file_and_written_to_one(
    pool: MemoryPool, admin_person: User, written: str, kept: list[str]
) -> None:
    model = make_model(runtime_of(pool, "llama_server", OWN), model_id="m", devices=[FIRST])
    assert imported(f"models:\n- id: m\n  devices: {written}\n", Actor(admin_person, "page")) == []
    model.refresh_from_db()
    assert model.devices == kept
    assert (SECOND in catalog.export_models_yaml()) == bool(kept)


@pytest.mark.parametrize(
    ("kind", "fields", "words"), [("llama_server", OWN, "there is no device GPU-gone"), ("tabby", THERE, "gpu_split")]
)
def test_devices_of_a_model_file_that_cannot_be_used_are_refused(
    pool: MemoryPool, admin_person: User, kind: str, fields: dict[str, str], words: str
) -> None:
    make_model(runtime_of(pool, kind, fields), model_id="m")
    [(place, message)] = imported("models:\n- id: m\n  devices: [GPU-gone]\n", Actor(admin_person, "page"))
    assert place == "models.m.devices"
    assert words in message


def test_host_without_devices_says_so(pool: MemoryPool) -> None:
    pool.devices = []
    pool.save()
    [(_, message)] = errors_of(runtime_of(pool, "llama_server", OWN), [FIRST])
    assert message == f"there is no device {FIRST} on local; it has none to choose from, so leave this empty"


def test_form_takes_devices_and_tells_what_is_wrong_with_them(pool: MemoryPool) -> None:
    model = make_model(runtime_of(pool, "llama_server", OWN), model_id="m", path="")
    form = ModelDefinitionForm({**model_to_dict(model), "tags": "", "devices": f"{FIRST}, GPU-gone"}, instance=model)
    assert "there is no device GPU-gone on local" in str(form.errors["devices"])
    form = ModelDefinitionForm({**model_to_dict(model), "tags": "", "devices": "auto"}, instance=model)
    assert "devices" not in form.errors
    assert form.cleaned_data["devices"] == []


@pytest.mark.parametrize(
    ("kind", "fields", "devices", "is_there"),
    [("llama_server", OWN, [], True), ("tabby", THERE, [], False), ("tabby", THERE, [FIRST], True)],
)
def test_page_has_the_field_where_the_server_can_be_told_or_something_is_to_be_taken_away(
    client: Client,
    pool: MemoryPool,
    admin_person: User,
    kind: str,
    fields: dict[str, str],
    devices: list[str],
    is_there: bool,
) -> None:
    model = make_model(runtime_of(pool, kind, fields), model_id="m", devices=devices)
    client.force_login(admin_person)
    page = client.get(model.get_absolute_url()).content.decode()
    assert ('name="devices"' in page) == is_there


def test_page_does_not_ask_for_devices_where_there_are_none(
    client: Client, pool: MemoryPool, admin_person: User
) -> None:
    pool.devices = []
    pool.save()
    model = make_model(runtime_of(pool, "llama_server", OWN), model_id="m")
    client.force_login(admin_person)
    assert 'name="devices"' not in client.get(model.get_absolute_url()).content.decode()
