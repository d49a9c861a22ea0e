from __future__ import annotations

from typing import Any

import pytest

from gantry.planning.estimates import DEFAULT_LOAD_RATE, MIB
from models_admin import catalog, specs
from models_admin.models import LoadRecord, MemoryPool, ModelDefinition, Runtime
from tests.factories import make_model
from tests.unit.planning.test_estimates import SMOLLM


@pytest.fixture
def runtime(pool: MemoryPool) -> Runtime:
    """On the host `local`, in a pool of RAM."""
    return Runtime.objects.create(name="llama-server", kind=Runtime.Kind.LLAMA_SERVER, pool=pool)


@pytest.fixture
def model(runtime: Runtime) -> ModelDefinition:
    """A model of a gigabyte."""
    return make_model(runtime, size_bytes=1_000_000_000)


def add_load(model: ModelDefinition, seconds: float, held: int = 500, host: str = "local", **values: Any) -> None:
    fields = {"parameters_hash": catalog.parameters_hash(model), "file_bytes": model.size_bytes, **values}
    LoadRecord.objects.create(
        model=model, load_seconds=seconds, held_bytes=held, host=host, expected_seconds=1, **fields
    )


def test_model_that_never_loaded_is_estimated_by_its_size(model: ModelDefinition) -> None:
    spec = catalog.spec_for(model, "local")
    assert (spec.need_bytes, spec.is_measured) == (1_200_000_000 + 256 * MIB, False)
    assert spec.load_time.usual_seconds == 1_000_000_000 / DEFAULT_LOAD_RATE
    assert spec.load_time.samples == 0


def test_model_whose_file_was_read_is_estimated_by_its_facts(model: ModelDefinition) -> None:
    model.metadata = {"memory": SMOLLM.as_dict()}
    model.parameters = {"ctx_size": 8192, "parallel": 1}
    model.save()
    model.refresh_from_db()
    assert 315 * MIB < catalog.spec_for(model, "local").need_bytes < 350 * MIB
    model.runtime.pool.kind = "nvml"
    assert catalog.spec_for(model, "local").need_bytes > 700 * MIB


def test_parameters_that_make_no_sense_fall_back_to_the_size(model: ModelDefinition) -> None:
    model.metadata = {"memory": SMOLLM.as_dict()}
    model.parameters = {"ctx_size": "lots"}
    assert catalog.spec_for(model, "local").need_bytes == 1_200_000_000 + 256 * MIB


def test_history_goes_before_estimates(model: ModelDefinition) -> None:
    for seconds, held in ((9.0, 800 * MIB), (3.0, 900 * MIB), (4.0, 1000 * MIB)):
        add_load(model, seconds, held)
    spec = catalog.spec_for(model, "local")
    assert (spec.need_bytes, spec.is_measured) == (1020 * MIB, True)
    assert (spec.load_time.usual_seconds, spec.load_time.low_seconds, spec.load_time.high_seconds) == (4, 3, 9)
    assert spec.load_time.samples == 3


def test_only_the_last_ten_loads_count(model: ModelDefinition) -> None:
    for _ in range(5):
        add_load(model, 100.0)
    for _ in range(10):
        add_load(model, 2.0)
    assert catalog.spec_for(model, "local").load_time.high_seconds == 2


def test_loads_with_other_parameters_or_elsewhere_do_not_count(model: ModelDefinition) -> None:
    add_load(model, 5.0, parameters_hash="other")
    add_load(model, 5.0, host="far")
    spec = catalog.spec_for(model, "local")
    assert (spec.is_measured, spec.load_time.samples) == (False, 0)


def test_host_s_own_rate_goes_before_the_default(model: ModelDefinition, runtime: Runtime) -> None:
    other = make_model(runtime)
    for seconds in (1.0, 2.0, 4.0):
        add_load(other, seconds, file_bytes=1_000_000_000)
    assert catalog.spec_for(model, "local").load_time.usual_seconds == 2.0


def test_load_that_was_not_measured_tells_only_the_time(model: ModelDefinition) -> None:
    add_load(model, 5.0, held=0)
    spec = catalog.spec_for(model, "local")
    assert (spec.is_measured, spec.load_time.usual_seconds) == (False, 5)


def test_hash_depends_on_what_decides_a_load(model: ModelDefinition) -> None:
    first = catalog.parameters_hash(model)
    model.description = "no matter"
    assert catalog.parameters_hash(model) == first
    model.parameters = {"ctx_size": 1, "threads": 2}
    second = catalog.parameters_hash(model)
    model.parameters = {"threads": 2, "ctx_size": 1}
    assert catalog.parameters_hash(model) == second != first


def test_many_specs_take_as_many_queries_as_one(runtime: Runtime, django_assert_num_queries: Any) -> None:
    models = [make_model(runtime) for _ in range(40)]
    for made in models[:20]:
        add_load(made, 3.0)
    rows = list(ModelDefinition.objects.with_runtime())
    with django_assert_num_queries(2):  # its own loads tell how long it takes, so nobody asks for its host's rate
        catalog.specs_for([row for row in rows if row == models[0]])
    few = [row for row in rows if row in models[: specs.FEW_MODELS]]
    with django_assert_num_queries(len(few) + 1):
        of_few = catalog.specs_for(few)
    with django_assert_num_queries(3):
        of_all = catalog.specs_for(rows)
    assert len(of_all) == 40
    assert sum(spec.is_measured for spec in of_all.values()) == 20
    assert {pk: of_all[pk] for pk in of_few} == of_few
    bare = list(ModelDefinition.objects.all())
    with django_assert_num_queries(5):
        catalog.specs_for(bare)
    assert catalog.specs_for([]) == {}


def test_share_of_reading_is_learned_from_loads_with_the_same_parameters(model: ModelDefinition) -> None:
    add_load(model, 10.0, reading_seconds=6.0)
    add_load(model, 20.0, reading_seconds=14.0)
    add_load(model, 10.0)  # as the loads before anybody looked
    add_load(model, 10.0, reading_seconds=1.0, parameters_hash="other")
    reading = catalog.spec_for(model, "local").load_time.reading
    assert reading is not None
    assert reading.share == pytest.approx(0.65)
    assert reading.seconds_after == 5
