"""The double does what TabbyAPI was seen to do: each scenario of tests/fakes/tabby/scenarios.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.tabby import TabbyDouble
from tests.fakes.tabby.expectations import Ask, Expect, Leave, Pass, Scenario
from tests.fakes.tabby.scenarios import SCENARIOS
from tests.fakes.tabby.shapes import body_shape, event_shapes, shape_of
from tests.fakes.tabby.talk import Exchange, data_of, request


@pytest.fixture
def double() -> Iterator[TabbyDouble]:
    """With the times that the scenarios count in, moved by hand."""
    with TabbyDouble(is_manual=True, module_seconds=0.06) as double:
        double.engine.finish_seconds, double.api.token_seconds = 0.22, 0.03
        yield double


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_the_double_does_what_tabbyapi_does(double: TabbyDouble, scenario: Scenario) -> None:
    for name, value in scenario.knobs.items():
        _turn(double, name, value)
    if scenario.loaded:
        double.put(scenario.loaded)
    sent: dict[str, Exchange] = {}
    for step in scenario.steps:
        if isinstance(step, Ask):
            sent[step.name] = request(double, step.method, step.path, step.body, step.headers)
        elif isinstance(step, Pass):
            double.advance(step.seconds)
        elif isinstance(step, Leave):
            sent[step.name].leave()
        else:
            _compare(sent[step.name], step)
    for exchange in sent.values():
        exchange.close()


def test_scenarios_ask_every_endpoint_that_an_adapter_needs() -> None:
    asked = {step.path for scenario in SCENARIOS for step in scenario.steps if isinstance(step, Ask)}
    assert {"/v1/model", "/v1/models", "/v1/model/load", "/v1/model/unload", "/v1/chat/completions", "/health"} <= asked


def _turn(double: TabbyDouble, name: str, value: Any) -> None:
    owner, *path, last = name.split(".")
    target: Any = getattr(double, owner)
    for part in path:
        target = target[part] if isinstance(target, dict) else getattr(target, part)
    setattr(target, last, value)


def _compare(exchange: Exchange, expected: Expect) -> None:
    answer = exchange.look()
    assert answer.status == expected.status
    data = data_of(answer)
    if expected.events is not None:
        assert answer.content_type.startswith("text/event-stream")
        assert _sorted(event_shapes(data)) == _sorted(expected.events)
    elif expected.shape is not None:
        assert _sorted(body_shape(data)) == _sorted(expected.shape)
    elif expected.exactly is not None:
        assert data == expected.exactly
    assert answer.is_complete is expected.is_over


def _sorted(shape: Any) -> Any:
    """The same for every order of fields."""
    return json.loads(json.dumps(shape, sort_keys=True))


def test_shapes_tell_answers_apart_by_fields_and_types_only() -> None:
    assert shape_of({"b": 1, "a": "x"}) == shape_of({"a": "y", "b": 2.5})
    assert shape_of({"a": 1}) != shape_of({"a": None})
    assert shape_of([1, 2]) == shape_of([3])
