"""Numbers in what a client sends: `true` is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest

from gantry.api.v1.bodies import Strict
from models_admin.models import ApiKey, ModelDefinition, SwitchJob
from tests.functional.api.conftest import Program, code_of

pytestmark = pytest.mark.django_db

BODIES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("POST", "jobs", "context", {"model_id": "acme/other"}),
    ("POST", "jobs/preview", "context", {"model_id": "acme/other"}),
    ("POST", "keys", "switches_per_minute", {"name": "new", "scopes": ["status"]}),
    ("POST", "models", "size_bytes", {"model_id": "new", "name": "New"}),
    ("PATCH", "models/acme/other", "size_bytes", {}),
    ("PATCH", "models/acme/other", "context_length", {}),
    ("PATCH", "models/acme/other", "idle_minutes", {}),
]


@pytest.mark.parametrize(("method", "path", "field", "body"), BODIES, ids=[f"{m} {p} {f}" for m, p, f, _ in BODIES])
@pytest.mark.parametrize("value", [True, False])
def test_truth_is_no_whole_number(
    value: bool, method: str, path: str, field: str, body: dict[str, Any], admin: Program, other: ModelDefinition
) -> None:
    counts = [model.objects.count() for model in (SwitchJob, ModelDefinition, ApiKey)]
    response = admin.send(method, path, {**body, field: value})

    assert (response.status_code, code_of(response)) == (422, "invalid")
    assert response.json()["data"]["errors"] == [{"field": field, "message": "Input should be a valid integer"}]
    assert [model.objects.count() for model in (SwitchJob, ModelDefinition, ApiKey)] == counts


def test_every_whole_number_that_a_client_sends_is_tested() -> None:
    def wholes(body: type[Strict]) -> Iterator[str]:
        for name, field in body.model_fields.items():
            if int in (field.annotation, *get_args(field.annotation)):
                yield name
        for inner in body.__subclasses__():
            yield from wholes(inner)

    assert set(wholes(Strict)) == {field for _, _, field, _ in BODIES}


def test_numbers_and_truths_where_they_belong_are_taken(admin: Program, other: ModelDefinition) -> None:
    assert admin.patch("models/acme/other", {"idle_minutes": 5}).json()["idle_minutes"] == 5
    assert admin.post("jobs/preview", {"model_id": "acme/other", "context": None}).status_code == 200
    assert admin.post("jobs", {"model_id": "acme/other", "confirm": True}).status_code == 201
