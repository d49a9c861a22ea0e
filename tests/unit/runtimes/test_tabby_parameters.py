"""Parameters of a load by TabbyAPI: what is taken, what is refused in which words, and the request that they become."""

from __future__ import annotations

from typing import Any

import pytest

from gantry.runtimes.tabby_parameters import name_error, validate_parameters
from gantry.runtimes.typed_fields import ParameterInvalid

EVERY = {
    "max_seq_len": 8192,
    "cache_size": 16384,
    "cache_mode": "Q8",
    "gpu_split_auto": False,
    "gpu_split": [20, 24.5],
    "autosplit_reserve": [96.0],
    "tensor_parallel": True,
    "rope_alpha": 1,
    "chunk_size": 2048,
    "prompt_template": "chatml",
    "vision": True,
    "draft_model": "draft-1b",
}


def test_every_parameter_is_taken_and_becomes_the_request() -> None:
    body = validate_parameters(EVERY).body("family/big")
    assert body == {**EVERY, "model_name": "family/big", "draft_model": {"draft_model_name": "draft-1b"}}


def test_nothing_set_asks_for_the_model_alone() -> None:
    assert validate_parameters({}).body("alpha") == {"model_name": "alpha"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_seq_len", "much", 'must be a whole number of at least 256 and at most 16777216 (got "much")'),
        ("max_seq_len", 255, "at least 256"),
        ("max_seq_len", True, "must be a whole number"),
        ("cache_size", 1000, "must be a multiple of 256, at least 256 and at most 16777216 (got 1000)"),
        ("cache_mode", "Q5", 'must be FP16, Q8, Q6, Q4, or the bits of keys and values such as "8,6" (got "Q5")'),
        ("cache_mode", "9,9", "must be FP16"),
        ("gpu_split", [], "must be a list of GB, one number of 0 to 4096 for each GPU (got [])"),
        ("gpu_split", ["20"], "must be a list of GB"),
        ("gpu_split", [-1], "must be a list of GB"),
        ("gpu_split", "20,24", "must be a list of GB"),
        ("autosplit_reserve", [float("nan")], "must be a list of MB"),
        ("gpu_split_auto", "yes", 'must be true or false (got "yes")'),
        ("tensor_parallel", 1, "must be true or false (got 1)"),
        ("rope_alpha", 0, "must be a number of at least 0.01 and at most 1000 (got 0)"),
        ("rope_alpha", float("inf"), "must be a number"),
        ("chunk_size", 10, "must be a whole number of at least 256"),
        ("prompt_template", "../secret", "must be the name of one of TabbyAPI's templates"),
        ("draft_model", "a/b", "must be the name of a directory that TabbyAPI lists"),
        ("draft_model", {"draft_model_name": "x"}, "must be the name of a directory"),
        ("vision", None, ""),
        ("max_seqlen", 4096, "unknown; did you mean max_seq_len?"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_in_words(name: str, value: Any, words: str) -> None:
    if not words:
        assert validate_parameters({name: value}).as_dict() == {}
        return
    with pytest.raises(ParameterInvalid) as caught:
        validate_parameters({name: value})
    ((key, message),) = caught.value.errors
    assert key == name
    assert words in message


@pytest.mark.parametrize(
    ("parameters", "key", "words"),
    [
        ({"gpu_split": [20], "gpu_split_auto": True}, "gpu_split", "cannot be combined with gpu_split_auto: true"),
        ({"max_seq_len": 8192, "cache_size": 4096}, "cache_size", "at least max_seq_len (8192)"),
        ({"max_seq_len": 2048}, "max_seq_len", "must be at least 2304, or lower chunk_size: no chat would fit"),
        ({"cache_size": 2048}, "cache_size", "must be at least 2304"),
        ({"max_seq_len": 4096, "chunk_size": 4096}, "max_seq_len", "must be at least 4352"),
    ],
)
def test_values_that_clash_are_refused(parameters: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ParameterInvalid) as caught:
        validate_parameters(parameters)
    assert [(key, True)] == [(name, words in message) for name, message in caught.value.errors]


def test_a_small_context_goes_with_a_small_chunk() -> None:
    assert validate_parameters({"max_seq_len": 2048, "chunk_size": 512}).as_dict() == {
        "max_seq_len": 2048,
        "chunk_size": 512,
    }


@pytest.mark.parametrize("name", ["alpha-7b", "family/4.0bpw", "Ä model (v2)", "a.b"])
def test_names_below_the_model_directory_may_be_sent(name: str) -> None:
    assert name_error(name) == ""


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../up", "/abs", "a/", "a//b", "a/./b", "a\x00b", "a\nb", "a\\b", "x" * 501]
)
def test_other_names_may_not(name: str) -> None:
    assert name_error(name)
