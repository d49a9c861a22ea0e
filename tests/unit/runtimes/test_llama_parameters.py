from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gantry.modelfiles.sampling import validate_sampling
from gantry.planning.estimates import CACHE_TYPE_BYTES, LoadSettings
from gantry.runtimes.llama_parameters import LlamaParameters, validate_extra_args, validate_parameters
from gantry.runtimes.typed_fields import ParameterInvalid


def parameter_errors(**data: Any) -> list[tuple[str, str]]:
    with pytest.raises(ParameterInvalid) as caught:
        validate_parameters(data)
    return caught.value.errors


def argument_error(argument: Any, *before: str) -> str:
    with pytest.raises(ParameterInvalid) as caught:
        validate_extra_args([*before, argument])
    [(key, message)] = caught.value.errors
    assert key == f"extra_args[{len(before)}]"
    return message


def test_parameters_that_are_set_are_kept() -> None:
    data = {"ctx_size": 32768, "n_gpu_layers": -1, "flash_attn": True, "mlock": False, "cache_type_v": "q8_0"}
    assert validate_parameters(data).as_dict() == data


@pytest.mark.parametrize(
    ("given_value", "meant"), [(True, {"numa": "distribute"}), (False, {}), ("isolate", {"numa": "isolate"})]
)
def test_numa_may_be_a_plain_wish(given_value: Any, meant: dict[str, str]) -> None:
    assert validate_parameters({"numa": given_value}).as_dict() == meant


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ctx_size", "lots", 'must be a whole number of at least 1 and at most 16777216 (got "lots")'),
        ("ctx_size", 0, "must be a whole number of at least 1 and at most 16777216 (got 0)"),
        ("ctx_size", 4096.0, "must be a whole number of at least 1 and at most 16777216 (got 4096.0)"),
        ("ctx_size", True, "must be a whole number of at least 1 and at most 16777216 (got true)"),
        ("n_gpu_layers", -2, "must be a whole number of at least -1 and at most 10000 (got -2)"),
        ("flash_attn", "on", 'must be true or false (got "on")'),
        ("mlock", 1, "must be true or false (got 1)"),
        ("numa", "all", 'must be one of distribute, isolate, numactl (got "all")'),
        ("ctx_sise", 1, "unknown; did you mean ctx_size?"),
    ],
)
def test_parameter_out_of_its_range_says_what_is_wanted(key: str, value: Any, message: str) -> None:
    assert parameter_errors(**{key: value}) == [(key, message)]


def test_all_errors_are_told() -> None:
    assert [key for key, _ in parameter_errors(parallel=0, threads=-1, xyz=1)] == ["threads", "parallel", "xyz"]


def test_cache_types_are_those_that_estimates_know() -> None:
    schema = LlamaParameters.model_json_schema()["properties"]["cache_type_k"]["anyOf"][0]
    assert set(schema["enum"]) == set(CACHE_TYPE_BYTES)
    assert set(LoadSettings.__dataclass_fields__) <= set(LlamaParameters.model_fields)


def test_arguments_that_may_pass() -> None:
    arguments = ["--rope-scaling", "yarn", "--seed", "-1", "-ot", r"blk\.[0-9]+\.ffn_.*=CPU", "--spec-default"]
    assert validate_extra_args(arguments) == arguments
    assert validate_extra_args([]) == []


@pytest.mark.parametrize("character", list(";&|`$<>'\""))
def test_shell_characters_are_refused_by_name(character: str) -> None:
    message = argument_error(f"--top-k{character}rm", "--no-warmup")
    assert message.startswith(f"must not contain the character {character} (got ")


@pytest.mark.parametrize("character", ["\x00", "\t", "\x1b", "\x7f", "\x85", "\ud800"])
def test_control_characters_are_refused(character: str) -> None:
    assert argument_error(f"--a{character}").startswith("must not contain control characters")
    assert argument_error("--a\n").startswith("must not contain a line break")


@pytest.mark.parametrize(
    "flag", ["--host", "--port", "--api-key", "--model", "-m", "--alias", "--log-file", "--port=80"]
)
def test_flags_that_gantry_sets_are_refused(flag: str) -> None:
    assert argument_error(flag) == f"{flag.partition('=')[0]} is set by Gantry and cannot be given here"


@pytest.mark.parametrize(
    "flag", ["-hf", "--tools", "--models-dir", "--rpc", "--gpt-oss-20b-default", "--fim-qwen-7b-spec"]
)
def test_flags_that_would_do_harm_are_refused(flag: str) -> None:
    assert argument_error(flag) == f"{flag} is not allowed"


@pytest.mark.parametrize(
    ("flag", "name"), [("-c", "ctx_size"), ("--no-mmap", "no_mmap"), ("--chat-template", "chat_template")]
)
def test_flags_with_a_parameter_of_their_own_name_it(flag: str, name: str) -> None:
    assert argument_error(flag) == f"{flag} has a place of its own: set {name} instead"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (5, "must be text; put quotes around it (got 5)"),
        (None, "must be text; put quotes around it (got null)"),
        ("", "must have 1 to 2000 characters"),
        ("20", 'must start with a flag such as --top-k (got "20")'),
        ("--top-k 20", "must be one flag or one value; give --top-k and its value as two entries"),
    ],
)
def test_other_arguments_that_cannot_be_used(argument: Any, message: str) -> None:
    assert argument_error(argument).startswith(message)


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2)


@given(st.dictionaries(st.sampled_from(sorted(LlamaParameters.model_fields)) | st.text(max_size=8), anything))
def test_any_values_are_taken_or_refused(data: dict[str, Any]) -> None:
    try:
        assert set(validate_parameters(data).as_dict()) <= set(data)
    except ParameterInvalid as exc:
        assert {key for key, _ in exc.errors} <= set(data)  # noqa: PT017 - either outcome is fine


@given(st.lists(anything, max_size=4))
def test_any_arguments_are_taken_or_refused(arguments: list[Any]) -> None:
    try:
        assert validate_extra_args(arguments) == arguments
    except ParameterInvalid as exc:
        assert exc.errors  # noqa: PT017 - either outcome is fine


def test_sampling_defaults() -> None:
    data = {"temperature": 1, "stop": "\n", "top_k": 40}
    assert validate_sampling(data).as_dict() == {"temperature": 1.0, "top_k": 40, "stop": ["\n"]}


@pytest.mark.parametrize(
    "data", [{"temperature": -1}, {"top_p": 1.5}, {"top_k": 1.5}, {"stop": [""]}, {"min_p": float("nan")}]
)
def test_sampling_out_of_range_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ParameterInvalid):
        validate_sampling(data)
