"""Typed parameters in the words of several builds.

help/build_10068.txt is what that build prints, shortened. help/build_11434.txt is the same with what later
builds changed (from llama.cpp's tools/server/README.md); OLD is what builds of early 2025 printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadRequest
from gantry.runtimes.exceptions import RuntimeRefused
from gantry.runtimes.llama_binary import Build, Option, parse_help
from gantry.runtimes.llama_flags import build_arguments, model_arguments, router_arguments

HELP = Path(__file__).parent / "help"
OLD = """
-t,    --threads N                      number of threads to use during generation (default: -1)
-c,    --ctx-size N                     size of the prompt context (default: 4096, 0 = loaded from model)
-fa,   --flash-attn                     enable Flash Attention (default: disabled)
                                        (env: LLAMA_ARG_FLASH_ATTN)
--mlock                                 force system to keep model in RAM rather than swapping or compressing
--no-mmap                               do not memory-map model (slower load but may reduce pageouts if not using mlock)
-ngl,  --gpu-layers, --n-gpu-layers N   number of layers to store in VRAM
-nocb, --no-cont-batching               disable continuous batching
--no-webui                              Disable the Web UI (default: enabled)
--slots                                 enable slots monitoring endpoint (default: disabled)
--jinja                                 use jinja template for chat (default: disabled)
--embedding, --embeddings               restrict to only support embedding use case
"""


def build(name: str) -> Build:
    text = OLD if name == "old" else (HELP / f"build_{name}.txt").read_text()
    return Build(Path("/opt/llama-server"), name, parse_help(text))


def arguments(name: str, parameters: dict[str, Any], **changes: Any) -> list[str]:
    request = LoadRequest("id", "model", Path("/models/m.gguf"), 1, parameters, **changes)
    return build_arguments(build(name), request, 4321, changes.get("template"))


def told(name: str, parameters: dict[str, Any], **changes: Any) -> str:
    """What the parameters add to the command line."""
    return " ".join(arguments(name, parameters, **changes)[len(arguments(name, {})) :])


def test_help_gives_every_spelling_with_its_value() -> None:
    options = build("10068").options
    assert options["-fa"] == options["--flash-attn"]
    assert options["--flash-attn"].value == "[on|off|auto]"
    assert options["--mlock"] == Option("", options["--mlock"].text)
    assert options["-nocb"].text.startswith("whether to enable continuous batching")
    assert options["--chat-template-file"].value == "JINJA_TEMPLATE_FILE"
    assert "--listen" not in options


def test_every_model_gets_the_standing_arguments() -> None:
    line = " ".join(arguments("10068", {}))
    assert line.startswith("/opt/llama-server --model /models/m.gguf --alias model --host 127.0.0.1 --port 4321")
    for part in ("--threads-http 64", "--slots", "--metrics", "--no-ui", "--offline", "--verbosity 4", "--cache-ram 0"):
        assert part in line
    assert "--api-key" not in line


def test_old_build_gets_only_what_it_knows() -> None:
    line = " ".join(arguments("old", {}))
    assert "--no-webui" in line
    for part in ("--no-ui", "--metrics", "--offline", "--verbosity", "--cache-ram"):
        assert part not in line.split()


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("10068", {"ctx_size": 4096, "threads": 4}, "--ctx-size 4096 --threads 4"),
        ("10068", {"threads_batch": 8, "batch_size": 256}, "--threads-batch 8 --batch-size 256"),
        ("10068", {"parallel": 2}, "--parallel 2"),
        ("10068", {"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, "--cache-type-k q8_0 --cache-type-v q8_0"),
        ("10068", {"n_gpu_layers": -1}, "--n-gpu-layers all"),
        ("old", {"n_gpu_layers": -1}, "--n-gpu-layers 999"),
        ("10068", {"n_gpu_layers": 0}, "--n-gpu-layers 0"),
        ("10068", {"flash_attn": True}, "--flash-attn on"),
        ("10068", {"flash_attn": False}, "--flash-attn off"),
        ("old", {"flash_attn": True}, "--flash-attn"),
        ("old", {"flash_attn": False}, ""),
        ("10068", {"cont_batching": False}, "--no-cont-batching"),
        ("10068", {"cont_batching": True}, "--cont-batching"),
        ("10068", {"mlock": True, "no_mmap": True}, "--mlock --no-mmap"),
        ("11434", {"mlock": True, "no_mmap": True}, "--load-mode mlock"),
        ("11434", {"mlock": True}, "--load-mode mmap+mlock"),
        ("11434", {"no_mmap": True}, "--load-mode none"),
        ("11434", {"mlock": False, "no_mmap": False}, ""),
        ("10068", {"numa": "isolate"}, "--numa isolate"),
        ("10068", {"numa": True}, "--numa distribute"),
        ("10068", {"numa": False, "ctx_size": None}, ""),
        ("10068", {"embeddings": True}, ""),  # would leave a chat model without chat
    ],
)
def test_parameter_in_the_words_of_the_build(name: str, parameters: dict[str, Any], expected: str) -> None:
    assert told(name, parameters) == expected


def test_embedding_model_is_restricted_to_embeddings() -> None:
    assert told("10068", {}, is_embedding=True) == "--embeddings"


def test_further_arguments_stand_last_and_win() -> None:
    line = arguments("10068", {"ctx_size": 512}, extra_args=("--cache-ram", "2048", "--top-k", "-1"))
    assert line[-4:] == ["--cache-ram", "2048", "--top-k", "-1"]


@pytest.mark.parametrize(
    ("parameters", "extra_args", "named"),
    [({"numa": "isolate"}, (), "numa"), ({"parallel": 2}, (), "parallel"), ({}, ("--wobble", "3"), "--wobble")],
)
def test_what_the_build_does_not_know_is_refused_by_name(
    parameters: dict[str, Any], extra_args: tuple[str, ...], named: str
) -> None:
    with pytest.raises(RuntimeRefused, match=named) as refusal:
        arguments("old", parameters, extra_args=extra_args)
    assert refusal.value.code == ErrorCode.BAD_PARAMETER


def test_chat_template_comes_as_a_file_behind_jinja() -> None:
    request = LoadRequest("id", "model", Path("/m.gguf"), 1)
    line = " ".join(build_arguments(build("10068"), request, 1, Path("/run/t.jinja")))
    assert "--jinja --chat-template-file /run/t.jinja" in line


def test_build_whose_help_cannot_be_read_is_given_current_names() -> None:
    request = LoadRequest("id", "model", Path("/m.gguf"), 1, {"ctx_size": 512, "flash_attn": True}, ("--anything",))
    line = " ".join(build_arguments(Build(Path("/x"), "unknown"), request, 1, None))
    assert "--ctx-size 512 --flash-attn on --anything" in line


def test_router_gets_the_standing_arguments_and_its_models_the_rest() -> None:
    build_here = Build(Path("/opt/llama-server"), "silent")  # one whose help could not be read is believed to know all
    line = " ".join(router_arguments(build_here, Path("/run/models.ini"), 4321))
    assert line.startswith("/opt/llama-server --host 127.0.0.1 --port 4321 --threads-http 64")
    assert line.endswith("--models-preset /run/models.ini --models-max 0 --no-models-autoload")
    request = LoadRequest("id", "model", Path("/models/m.gguf"), 1, {"ctx_size": 512, "no_mmap": True})
    told = " ".join(model_arguments(build("10068"), request, None))
    assert told == "--model /models/m.gguf --alias model --cache-ram 0 --ctx-size 512 --no-mmap"
    assert "--port" not in told


def test_build_without_router_mode_is_refused() -> None:
    with pytest.raises(RuntimeRefused, match="router mode"):
        router_arguments(build("old"), Path("/run/models.ini"), 4321)
