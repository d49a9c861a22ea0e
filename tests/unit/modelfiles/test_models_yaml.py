from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gantry.modelfiles.exceptions import ModelsYAMLInvalid
from gantry.modelfiles.model_entry import ModelEntry, parse_context, parse_size
from gantry.modelfiles.models_yaml import dump_models_yaml, parse_models_yaml
from gantry.modelfiles.yaml_nodes import LARGEST_FILE

EXAMPLE = Path(__file__).resolve().parents[3] / "config" / "models.yaml"


def errors(text: str) -> list[str]:
    with pytest.raises(ModelsYAMLInvalid) as caught:
        parse_models_yaml(text)
    return [f"{place}: {message}" for place, message in caught.value.errors]


def one(body: str) -> ModelEntry:
    """The entry of a model `m` with this body, one `key: value` a line."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return parse_models_yaml(f"models:\n  m:\n{lines}")[0]


def test_example_has_the_three_models() -> None:
    entries = {entry.model_id: entry for entry in parse_models_yaml(EXAMPLE.read_text(encoding="utf-8"))}
    gpt, qwen, glm = (entries[name] for name in ("gpt-oss-20b-mxfp4", "qwen3-coder-next-mxfp4", "glm-4.7-flash-q4"))
    assert [entry.size_bytes / 1e9 for entry in (gpt, qwen, glm)] == [12, 41, 3]
    assert [entry.parameters["ctx_size"] for entry in (gpt, qwen, glm)] == [32_768, 32_768, 131_072]
    assert qwen.parameters["numa"] == "distribute"
    assert glm.parameters["parallel"] == 4
    assert gpt.name == "GPT-OSS 20B (MXFP4)"


def test_parameters_of_the_first_control_panel_are_taken_as_they_stand() -> None:
    entry = one(
        "file: m.gguf\nsize: ~3GB\nparameters: 20B\nserver_params:\n  ctx_size: 32768\n  threads: 8\n  threads_batch: 8\n"
        "  n_gpu_layers: -1\n  batch_size: 2048\n  parallel: 1\n  flash_attn: true\n  cont_batching: true\n"
        "  embeddings: true\n  mlock: false\n  no_mmap: false\n  numa: true"
    )
    assert (entry.path, entry.size_bytes, entry.parameter_label) == ("m.gguf", 3_000_000_000, "20B")
    assert (entry.parameters["embeddings"], entry.parameters["numa"]) == (True, "distribute")


def test_list_and_mapping_mean_the_same() -> None:
    listed = parse_models_yaml("models:\n  - id: a\n    name: A\n  - id: b\n")
    assert listed == parse_models_yaml("models:\n  a: {name: A}\n  b: {}\n")
    assert [entry.name for entry in listed] == ["A", "b"]


def test_what_the_file_speaks_of_is_remembered() -> None:
    assert one("name: M\npinned: false\ndescription:").given == {"name", "is_pinned"}


def test_all_errors_are_told_with_line_and_key() -> None:
    text = """
models:
  - id: gpt-oss-20b
    parameters:
      ctx_size: lots
      paralel: 3
    sampling: {temperature: hot}
    extra_args: ["--top-k", "20; rm -rf /", "--port"]
    size: big
    context: none
    pinned: maybe
    colour: red
    tags: [a/b]
  - id: gpt-oss-20b
    name: first
    name: second
  - name: without id
  - id: has blanks
  - just a word
"""
    told = errors(text)
    assert told[0] == (
        "models.yaml line 5, models.gpt-oss-20b.parameters.ctx_size: "
        'must be a whole number of at least 1 and at most 16777216 (got "lots")'
    )
    assert told[1] == "models.yaml line 6, models.gpt-oss-20b.parameters.paralel: unknown; did you mean parallel?"
    assert [line.split(",")[0].removeprefix("models.yaml line ").split(":")[0] for line in told] == [
        *("5", "6", "7", "8", "8", "9", "10", "11", "12", "13", "14", "16", "17", "18", "19")
    ]
    assert "extra_args[1]: must not contain the character ; " in told[3]
    assert "extra_args[2]: --port is set by Gantry" in told[4]
    assert told[10].endswith("the id is used twice; first on line 3")
    assert told[11].endswith("name: given twice; first on line 15")
    assert told[12] == "models.yaml line 17, models[2]: id is missing"
    assert told[14] == 'models.yaml line 19, models[4]: must be a mapping (key: value) (got "just a word")'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "models.yaml: the file is empty; it needs a list named models"),
        ("# nothing but a comment\n", "models.yaml: the file is empty; it needs a list named models"),
        ("- a\n", "models.yaml line 1: must be a mapping (key: value) (got a list)"),
        ("{}", "models.yaml line 1: it needs a list named models"),
        ("model: []\n", "models.yaml line 1, model: unknown; did you mean models?"),
        ("models:\n", 'models.yaml line 1, models: must be a list (got "")'),
        ("models: []\n  - x", "models.yaml line 2: this is not valid YAML: "),
        ("models:\n  - id: a\n\tname: b\n", "models.yaml line 3: a tab is used to indent; YAML allows spaces only"),
        ("models:\n\t- id: a\n", "models.yaml line 2: a tab is used to indent; YAML allows spaces only"),
        ("models:\n  - id: a\n  \t  name: b\n", "models.yaml line 3: a tab is used to indent; YAML allows spaces only"),
        (
            "models:\n  a: &x {}\n  b: *x\n",
            "models.yaml line 3: this is not valid YAML: aliases (*name) are not supported",
        ),
        ("models: !!python/name:os.system x", "models.yaml line 1: this is not valid YAML: the type "),
        ("--- {}\n--- {}\n", "models.yaml line 2: this is not valid YAML: expected a single document"),
        ('models: "\\UFFFFFFFF"', "models.yaml line 1: this is not valid YAML"),
        ("models:\n  a: \x01", "models.yaml line 2: a character that YAML does not allow"),
        ("[" * 5000, "models.yaml line 1: this is not valid YAML: this is nested too deeply"),
        ("#" * (LARGEST_FILE + 1), "models.yaml: is larger than 1 MiB"),
    ],
    ids=lambda text: text[:40],
)
def test_file_that_cannot_be_read_names_the_place(text: str, told: str) -> None:
    assert [line for line in errors(text) if not line.startswith(told)] == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("parameters: {ctx_size: 2.5}", "must be a whole number"),
        ("parameters: {ctx_size: !!int x}", "cannot be read as a int"),
        ("parameters: {ctx_size: 2024-01-01}", "must be a plain value"),
        ("parameters: {ctx_size: {a: 1}}", "must be a plain value (got a mapping)"),
        ("parameters: [ctx_size]", "must be a mapping"),
        ("parameters: {}\nserver_params: {}", "parameters says the same; give one of the two"),
        ("name: [a]", "must be a text (got a list)"),
        ('name: "a\\0b"', "must not contain control characters"),
        ('name: "\\uD800"', "must not contain control characters"),
        ('name: "a\\nb"', "must be one line"),
        (f"name: {'x' * 201}", "must have at most 200 characters (has 201)"),
        ("extra_args: [5]", "must be text; put quotes around it (got 5)"),
        ("extra_args: --top-k", "must be a list"),
        ("tags: chat", "must be a list"),
        ("sampling: {stop: [1]}", "must be a text or a list of up to 16 texts"),
        ("? [a]\n: b", "a key must be a plain word"),
    ],
)
def test_value_that_cannot_be_used_is_refused(body: str, message: str) -> None:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    told = errors(f"models:\n  m:\n{lines}")
    assert len(told) == 1
    assert message in told[0]


def test_numbers_in_texts_need_no_quotes() -> None:
    entry = one("name: 007\nquantization: 4\nparameter_count: 1.5")
    assert (entry.name, entry.quantization, entry.parameter_label) == ("007", "4", "1.5")


def test_number_with_an_exponent_is_a_number() -> None:
    assert one("sampling: {temperature: 1e-1}").sampling == {"temperature": 0.1}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("12GB", 12_000_000_000),
        ("~3 GB", 3_000_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("980MB", 980_000_000),
        ("123", 123),
        ("2k", 2000),
        ("", None),
        ("-1GB", None),
        ("1e9", None),
    ],
)
def test_sizes(text: str, size_bytes: int | None) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "tokens"), [("32768", 32_768), ("32K", 32_768), ("1M", 1_048_576), ("0", None), ("9999M", None)]
)
def test_contexts(text: str, tokens: int | None) -> None:
    assert parse_context(text) == tokens


lines_of_text = st.text(st.characters(exclude_categories=("Cc", "Cs")) | st.sampled_from("\n\t"), max_size=40)
one_line = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=40)
entries = st.builds(
    ModelEntry,
    model_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,20}", fullmatch=True),
    name=one_line.filter(bool),
    description=lines_of_text,
    path=one_line,
    size_bytes=st.integers(0, 10**12) | st.sampled_from([12 * 10**9, 98 * 10**6]),
    quantization=one_line,
    parameter_label=one_line,
    context_length=st.none() | st.integers(1, 2**31 - 1),
    parameters=st.fixed_dictionaries(
        {},
        optional={
            "ctx_size": st.integers(1, 10**6),
            "n_gpu_layers": st.integers(-1, 99),
            "flash_attn": st.booleans(),
            "numa": st.sampled_from(["distribute", "isolate", "numactl"]),
            "cache_type_k": st.sampled_from(["f16", "q8_0"]),
        },
    ),
    extra_args=st.lists(st.from_regex(r"--[b-z]{3}-[a-z]{3}", fullmatch=True), max_size=3).map(tuple),
    chat_template=lines_of_text,
    sampling=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 5),
            "top_k": st.integers(0, 100),
            "stop": st.lists(lines_of_text.filter(bool), max_size=3),
        },
    ),
    tags=st.lists(st.from_regex(r"[a-z0-9][a-z0-9 .+-]{0,9}", fullmatch=True), max_size=3).map(tuple),
    is_pinned=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(entries, max_size=3, unique_by=lambda entry: entry.model_id))
def test_what_is_written_reads_as_it_was(models: list[ModelEntry]) -> None:
    assert parse_models_yaml(dump_models_yaml(models)) == models


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("models:id a-[]{}\n \t'\"&*!|>%@#,?0~"), max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_models_yaml(text)
    except ModelsYAMLInvalid as exc:
        assert exc.errors  # noqa: PT017 - either outcome is fine


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
keys = ["name", "path", "size", "context", "parameters", "server_params", "extra_args", "sampling", "tags", "pinned"]


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(keys), plain_values, max_size=5))
def test_any_value_under_a_known_key_is_read_or_refused(body: dict[str, object]) -> None:
    text = yaml.dump({"models": {"m": body}})
    try:
        parse_models_yaml(text)
    except ModelsYAMLInvalid as exc:
        assert all(place.startswith("models.yaml line ") for place, _ in exc.errors)  # noqa: PT017 - either is fine
