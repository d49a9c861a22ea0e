"""From events to figures, and from TabbyAPI's words to causes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadStage
from gantry.runtimes.tabby_progress import (
    READING_SHARE,
    ModuleMeter,
    error_message,
    is_crossed,
    load_failure,
)


def step(part: str, module: Any, modules: Any, status: str = "processing") -> dict[str, Any]:
    return {"model_type": part, "module": module, "modules": modules, "status": status}


def test_modules_of_a_model_alone_fill_the_reading() -> None:
    meter = ModuleMeter(has_draft=False, has_vision=False)
    half = meter.see(step("model", 4, 8))
    assert half is not None
    assert (half.stage, half.fraction, half.detail) == (LoadStage.READING, READING_SHARE / 2, "Module 4 of 8")


def test_finished_of_the_model_means_initialising_and_of_a_part_nothing() -> None:
    meter = ModuleMeter(has_draft=True, has_vision=False)
    told = [(meter.see(step(part, 3, 3, "finished")), meter.is_finished) for part in ("draft", "model")]
    assert [is_finished for _, is_finished in told] == [False, True]
    last = told[-1][0]
    assert last is not None
    assert (last.stage, last.fraction) == (LoadStage.INITIALISING, READING_SHARE)


def test_parts_come_in_the_order_vision_draft_model() -> None:
    meter = ModuleMeter(has_draft=True, has_vision=True)
    events = [step("vision", 4, 4), step("draft", 1, 2), step("draft", 2, 2), step("model", 1, 4)]
    fractions = [sign.fraction for event in events if (sign := meter.see(event))]
    assert fractions == pytest.approx([0.095, 0.1425, 0.19, 0.38])


def test_a_part_that_was_not_asked_for_moves_words_only() -> None:
    meter = ModuleMeter(has_draft=False, has_vision=False)
    sign = meter.see(step("draft", 2, 2))
    assert sign is not None
    assert (sign.fraction, sign.detail) == (0.0, "Draft model: module 2 of 2")


@pytest.mark.parametrize(
    "event",
    [
        {},
        step("model", 0, 8),
        step("model", 9, 8),
        step("model", "1", 8),
        step("model", True, 8),
        step("model", 1.5, 8),
        step("model", 1, 10**30),
        step("model", -1, -1),
        step("model", None, None),
        {**step("model", 1, 8), "model_type": ["model"]},
    ],
)
def test_an_event_that_makes_no_sense_tells_nothing(event: dict[str, Any]) -> None:
    meter = ModuleMeter(has_draft=False, has_vision=False)
    assert meter.see(event) is None


@given(
    st.lists(
        st.builds(
            step,
            st.sampled_from(["model", "draft", "vision", "other"]),
            st.integers(-2, 12),
            st.integers(-2, 12),
            st.sampled_from(["processing", "finished", "?"]),
        )
    ),
    st.booleans(),
    st.booleans(),
)
def test_the_fraction_never_falls_whatever_comes(
    events: list[dict[str, Any]], has_draft: bool, has_vision: bool
) -> None:
    meter = ModuleMeter(has_draft=has_draft, has_vision=has_vision)
    fractions = [sign.fraction or 0.0 for event in events if (sign := meter.see(event))]
    assert fractions == sorted(fractions)
    assert all(0 <= fraction <= READING_SHARE for fraction in fractions)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Insufficient VRAM in split for model and cache", ErrorCode.OUT_OF_MEMORY),
        ("CUDA out of memory. Tried to allocate 2.00 GiB.", ErrorCode.OUT_OF_MEMORY),
        ("torch.OutOfMemoryError", ErrorCode.OUT_OF_MEMORY),
        ("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", ErrorCode.OUT_OF_MEMORY),
        ("Failed to load config.json from /srv/models/x", ErrorCode.LOAD_FAILED),
        ("[Errno 2] No such file or directory: '/srv/models/x/config.json'", ErrorCode.NOT_DOWNLOADED),
        ("Invalid backend 'llama'. Available backends: ['exllamav3']", ErrorCode.BAD_PARAMETER),
        (
            "Models quantized with 'exl2' require the exllamav2 backend, which is no longer supported.",
            ErrorCode.LOAD_FAILED,
        ),
        ("something new", ErrorCode.LOAD_FAILED),
    ],
)
def test_words_become_a_cause(words: str, code: ErrorCode) -> None:
    failure = load_failure(words)
    assert failure.code == code
    assert failure.detail
    assert failure.log_tail == (words,)


def test_paths_of_the_server_stay_out_of_our_own_words() -> None:
    assert "/srv" not in load_failure("Failed to load config.json from /srv/models/x").detail


def test_an_error_without_words_is_told_as_such() -> None:
    assert "gave no reason" in load_failure("").detail


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"error": {"message": "bad\nthing", "trace": None}}, "bad thing"),
        ({"error": {"message": None}}, ""),
        ({"error": "plain"}, "plain"),
        ({"error": None}, ""),
        ({"error": 5}, ""),
        ({"module": 1}, None),
    ],
)
def test_any_error_event_is_an_error(event: dict[str, Any], words: str | None) -> None:
    assert error_message(event) == words


def test_only_a_crossed_unload_is_sent_again() -> None:
    assert is_crossed("'NoneType' object has no attribute 'unload'")
    assert not is_crossed("'NoneType' object has no attribute 'load'")
