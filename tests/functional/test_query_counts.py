"""How many queries the long lists make: the same for a few rows as for many, and no more than what is written down.

`GANTRY_RECORD_QUERIES=1 pytest tests/functional/test_query_counts.py` writes the present numbers into tests/query_counts.json.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from models_admin.models import LoadRecord, MemoryPool, ModelDefinition, Runtime, SwitchJob
from tests.functional.admin_world import load

BASELINE = Path(__file__).resolve().parent.parent / "query_counts.json"
LISTS = {"models_tab": "/admin/models/", "job_list": "/admin/models_admin/switchjob/"}


def fill(runtime: Runtime, models: int, jobs: int) -> None:
    """That many models, a few of them loaded, and that many jobs."""
    start = ModelDefinition.objects.count()
    ModelDefinition.objects.bulk_create(
        ModelDefinition(
            model_id=f"m-{n}", name=f"Model {n}", runtime=runtime, is_available=n % 3 > 0, tags=["chat"], size_bytes=n
        )
        for n in range(start, start + models)
    )
    made = list(ModelDefinition.objects.order_by("pk")[start:])
    for model in made[:3]:
        load(model)
    LoadRecord.objects.bulk_create(
        LoadRecord(model=model, held_bytes=1, file_bytes=1, load_seconds=1, expected_seconds=1) for model in made
    )
    SwitchJob.objects.bulk_create(
        SwitchJob(
            kind="switch", state="succeeded", pool=runtime.pool, target=made[n % models], target_name=f"Model {n}",
            requested_by_name="ann", via="page",
        )
        for n in range(jobs)
    )  # fmt: skip


def queries(client: Client, address: str) -> int:
    """How many queries a page makes once caches are warm."""
    assert client.get(address).status_code == 200
    with CaptureQueriesContext(
        connection,
    ) as captured:
        client.get(address)
    return len(captured)


def check_baseline(name: str, number: int) -> None:
    """Compare with the number written down, or write it down."""
    baseline: dict[str, int] = json.loads(BASELINE.read_text(encoding="utf-8")) if BASELINE.exists() else {}
    if os.environ.get("GANTRY_RECORD_QUERIES") == "1":
        baseline[name] = number
        BASELINE.write_text(json.dumps(baseline, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    assert number == baseline.get(name), f"{name} makes {number} queries; if that is right, record it anew"


@pytest.mark.parametrize("name", sorted(LISTS))
def test_number_of_queries_does_not_grow(
    name: str, client: Client, admin_person: User, pool: MemoryPool, null_runtime: Runtime
) -> None:
    client.force_login(admin_person)
    fill(null_runtime, models=3, jobs=5)
    few = queries(client, LISTS[name])

    fill(null_runtime, models=197, jobs=4995)
    many = queries(client, LISTS[name])

    assert many == few
    check_baseline(name, many)
