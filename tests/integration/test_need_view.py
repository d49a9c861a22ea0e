"""The page of a model's definition tells what was estimated and what was measured, side by side."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from gantry.planning.estimates import MIB, LoadSettings, estimate_need
from models_admin import catalog
from models_admin.models import LoadRecord, MemoryPool, ModelDefinition, Runtime
from models_admin.need_view import need_view
from tests.factories import make_model
from tests.unit.planning.test_estimates import SMOLLM

PARAMETERS = {"ctx_size": 8192, "parallel": 1}
ESTIMATE = estimate_need(SMOLLM, LoadSettings(8192, parallel=1), is_ram=True)


@pytest.fixture
def model(pool: MemoryPool) -> ModelDefinition:
    """SmolLM2, whose file was read."""
    runtime = Runtime.objects.create(name="llama-server", kind=Runtime.Kind.LLAMA_SERVER, pool=pool)
    return make_model(runtime, name="SmolLM2", parameters=PARAMETERS, metadata={"memory": SMOLLM.as_dict()})


def add_load(model: ModelDefinition, seconds: float, held: int = 0, host: str = "local", **values: Any) -> None:
    fields = {"parameters_hash": catalog.parameters_hash(model), "file_bytes": model.size_bytes, **values}
    LoadRecord.objects.create(
        model=model, load_seconds=seconds, held_bytes=held, host=host, expected_seconds=5, **fields
    )


def page_of(model: ModelDefinition, client: Client, person: User) -> str:
    client.force_login(person)
    response = client.get(f"/admin/models_admin/modeldefinition/{model.pk}/change/")
    assert response.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def test_parts_of_the_estimate_add_up(model: ModelDefinition) -> None:
    view = need_view(model)
    assert view.parts is not None
    assert view.parts.total_bytes == view.estimated_bytes == ESTIMATE
    assert (view.measured_bytes, view.difference_percent, view.difference_words) == (0, None, "")
    assert view.load_time.samples == 0


def test_model_whose_file_was_not_read_is_estimated_by_its_size(model: ModelDefinition) -> None:
    model.metadata = {}
    view = need_view(model)
    assert (view.parts, view.estimated_bytes) == (None, 120_000_000 + 256 * MIB)


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "as estimated"), (0.8, "the estimate is 25 % above it"), (1.25, "the estimate is 20 % below it")],
)
def test_difference_is_told_in_percent_of_what_was_measured(model: ModelDefinition, share: float, words: str) -> None:
    add_load(model, 3.0, 5)
    add_load(model, 4.0, int(ESTIMATE * share))
    add_load(model, 6.0)  # the latest, which could not be measured
    view = need_view(model)
    assert (view.measured_bytes, view.difference_words) == (int(ESTIMATE * share), words)
    assert (view.foretold_seconds, view.took_seconds, view.load_time.usual_seconds) == (5, 6.0, 4.0)


def test_only_loads_with_these_parameters_on_this_host_count(model: ModelDefinition) -> None:
    add_load(model, 3.0, 100, parameters_hash="other")
    add_load(model, 3.0, 100, host="far")
    view = need_view(model)
    assert (view.measured_bytes, view.took_seconds, view.load_time.samples) == (0, None, 0)


def test_page_of_a_model_that_was_never_loaded(model: ModelDefinition, client: Client, admin_person: User) -> None:
    text = page_of(model, client, admin_person)
    assert "Weights 97 MB" in text
    assert "Cache for the context 0.2 GB" in text
    assert "Not loaded with these parameters yet, so plans use the estimate." in text
    assert "estimated by its size" in text


def test_page_of_a_model_that_was_measured(model: ModelDefinition, client: Client, admin_person: User) -> None:
    for seconds in (9.0, 3.0, 4.0):
        add_load(model, seconds, int(ESTIMATE * 0.8))
    text = page_of(model, client, admin_person)
    assert "Together 0.3 GB 0.3 GB" in text
    assert "Measured 0 s ago on its last load with these parameters: the estimate is 25 % above it." in text
    assert "Usually 4 s (3 s to 9 s, the last 3 loads with these parameters)." in text
    assert "The last was expected to take 5 s and took 4 s." in text


def test_form_for_a_new_model_has_nothing_to_tell(model: ModelDefinition, client: Client, admin_person: User) -> None:
    client.force_login(admin_person)
    assert b"What a load takes" not in client.get("/admin/models_admin/modeldefinition/add/").content


def test_page_that_may_only_be_looked_at_tells_it_too(model: ModelDefinition, client: Client, db: None) -> None:
    viewer = User.objects.create_user("eve", password="pass-eve", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_modeldefinition"))
    assert "Weights 97 MB" in page_of(model, client, viewer)


def test_page_takes_few_queries(model: ModelDefinition, django_assert_max_num_queries: Any) -> None:
    add_load(model, 3.0, 100)
    fresh = ModelDefinition.objects.with_runtime().get(pk=model.pk)
    with django_assert_max_num_queries(5):
        need_view(fresh)
