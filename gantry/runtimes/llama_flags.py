"""From typed parameters to the flags that the installed build understands.

Flag names change between builds: `--mlock` and `--no-mmap` gave way to `--load-mode`, `--flash-attn` learnt
to take a value, `--no-webui` became `--no-ui`. So each build is asked (llama_binary.py), and every parameter
is said in the words it knows. What it does not know is refused before anything is started.

Source: `llama-server --help` of builds 10068 and 11434.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadRequest
from gantry.runtimes.exceptions import RuntimeRefused
from gantry.runtimes.llama_binary import Build

HTTP_THREADS = 64  # with fewer, three idle keep-alive connections hold up new requests for 5 s
VERBOSITY = 4  # prints the stages of a load and the sizes of all buffers; prompts appear at 5
# Prompts kept in RAM beside the model's own context: up to 8 GiB by default, which no plan knows of. A model for
# which it is worth the memory can have it by a further argument, which stands later and wins.
CACHE_RAM_MIB = 0

Parameters = Mapping[str, Any]
Translate = Callable[[Build, Parameters], list[str]]


def build_arguments(build: Build, request: LoadRequest, port: int, template: Path | None) -> list[str]:
    """The whole command line for a model, program first.

    Args:
        build: the program, with the flags it knows.
        request: what is to be loaded, and how.
        port: where it is to listen, on loopback.
        template: a file with the chat template, None for the model's own.

    Raises:
        RuntimeRefused: a parameter or a further argument means nothing to this build; names it.
    """
    return [str(build.path), *_identity(request), *_standing(build, port), *_settings(build, request, template)]


def router_arguments(build: Build, preset: Path, port: int) -> list[str]:
    """The whole command line for a router, program first. Its models inherit what is said here.

    Args:
        preset: the file that says which models it has, and how each is started (llama_preset.py).
        port: where it is to listen, on loopback.

    Raises:
        RuntimeRefused: this build has no router mode.
    """
    arguments = [str(build.path), *_standing(build, port)]
    arguments += [_required(build, "router mode", "--models-preset"), str(preset)]
    # How many fit is a question of memory, which Gantry answers; nothing is loaded because somebody chats.
    return [*arguments, "--models-max", "0", "--no-models-autoload"]


def model_arguments(build: Build, request: LoadRequest, template: Path | None) -> list[str]:
    """What is said of one model to a router, which knows the rest. Raises as `build_arguments` does."""
    return [*_identity(request), *_settings(build, request, template)]


def _identity(request: LoadRequest) -> list[str]:
    return ["--model", str(request.path), "--alias", request.model_id]


def _settings(build: Build, request: LoadRequest, template: Path | None) -> list[str]:
    return [
        *(["--cache-ram", str(CACHE_RAM_MIB)] if "--cache-ram" in build.options else []),
        *_template(build, template),
        *_translate(build, request),
        *_checked(build, request.extra_args),
    ]


def _standing(build: Build, port: int) -> list[str]:
    """What every server is started with."""
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--threads-http", str(HTTP_THREADS)]
    for flags in (("--slots",), ("--metrics",), ("--no-ui", "--no-webui"), ("--offline",)):
        flag = build.first_known(*flags)
        arguments += [flag] if flag and build.options else []
    return arguments + (["--verbosity", str(VERBOSITY)] if "--verbosity" in build.options else [])


def _template(build: Build, template: Path | None) -> list[str]:
    if template is None:
        return []
    # Builds in which jinja is not the default take only a few templates without it, and it must stand before.
    jinja = ["--jinja"] if "--jinja" in build.options else []
    return [*jinja, _required(build, "chat template", "--chat-template-file"), str(template)]


def _translate(build: Build, request: LoadRequest) -> list[str]:
    parameters = {name: value for name, value in request.parameters.items() if value is not None}
    arguments: list[str] = []
    for translate in _TRANSLATIONS:
        arguments += translate(build, parameters)
    if request.is_embedding:
        # Never for a chat model, whatever its parameters say: the flag restricts the server to embeddings.
        arguments.append(_required(build, "embeddings", "--embeddings", "--embedding"))
    return arguments


def _value(name: str, *flags: str) -> Translate:
    """A parameter that is a flag with a value."""

    def translate(build: Build, parameters: Parameters) -> list[str]:
        if name not in parameters:
            return []
        return [_required(build, name, *flags), str(parameters[name])]

    return translate


def _gpu_layers(build: Build, parameters: Parameters) -> list[str]:
    layers = parameters.get("n_gpu_layers")
    if layers is None:
        return []
    flag = _required(build, "n_gpu_layers", "--n-gpu-layers", "--gpu-layers")
    if layers >= 0:
        return [flag, str(layers)]
    takes_all = "'all'" in build.options[flag].text if flag in build.options else False
    return [flag, "all" if takes_all else "999"]  # no model has 999 layers; older builds take a number only


def _flash_attention(build: Build, parameters: Parameters) -> list[str]:
    wanted = parameters.get("flash_attn")
    if wanted is None:
        return []
    flag = _required(build, "flash_attn", "--flash-attn")
    if flag in build.options and not build.options[flag].value:
        return [flag] if wanted else []  # older builds: a bare switch, off unless given
    return [flag, "on" if wanted else "off"]


def _continuous_batching(build: Build, parameters: Parameters) -> list[str]:
    wanted = parameters.get("cont_batching")
    if wanted is None:
        return []
    return [_required(build, "cont_batching", "--cont-batching" if wanted else "--no-cont-batching")]


def _load_mode(build: Build, parameters: Parameters) -> list[str]:
    """`mlock` and `no_mmap`, which newer builds join into one mode."""
    mlock, no_mmap = bool(parameters.get("mlock")), bool(parameters.get("no_mmap"))
    if not (mlock or no_mmap):
        return []
    if "--load-mode" in build.options:
        return [
            "--load-mode",
            {(True, True): "mlock", (True, False): "mmap+mlock", (False, True): "none"}[mlock, no_mmap],
        ]
    arguments = [_required(build, "mlock", "--mlock")] if mlock else []
    return arguments + ([_required(build, "no_mmap", "--no-mmap")] if no_mmap else [])


def _numa(build: Build, parameters: Parameters) -> list[str]:
    wanted = parameters.get("numa")
    if not wanted:
        return []
    return [_required(build, "numa", "--numa"), "distribute" if wanted is True else str(wanted)]


_TRANSLATIONS: tuple[Translate, ...] = (
    _value("ctx_size", "--ctx-size"),
    _value("threads", "--threads"),
    _value("threads_batch", "--threads-batch"),
    _value("batch_size", "--batch-size"),
    _value("parallel", "--parallel"),
    _value("cache_type_k", "--cache-type-k"),
    _value("cache_type_v", "--cache-type-v"),
    _gpu_layers,
    _flash_attention,
    _continuous_batching,
    _load_mode,
    _numa,
)


def _required(build: Build, name: str, *flags: str) -> str:
    flag = build.first_known(*flags)
    if flag is None:
        raise _refused(f"This llama-server ({build.version}) does not know {name} ({flags[0]}).")
    return flag


_FLAG = re.compile(r"^--?[A-Za-z]")


def _checked(build: Build, extra_args: Sequence[str]) -> list[str]:
    for argument in extra_args:
        if _FLAG.match(argument) and not build.knows(argument):
            raise _refused(f"This llama-server ({build.version}) does not know {argument}.")
    return list(extra_args)


def _refused(detail: str) -> RuntimeRefused:
    return RuntimeRefused(detail, code=ErrorCode.BAD_PARAMETER)
