"""How a model is loaded by llama-server: the typed parameters, and which further arguments are let through.

A value is refused where it is given (form, model file), never when the server is started.
Source of the names and ranges: `llama-server --help`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gantry.runtimes.typed_fields import ParameterInvalid, TypedFields, got

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Numa = Literal["distribute", "isolate", "numactl"]


def _numa(value: Any) -> Any:
    """`true` is the plain wish for it, and spreading over all nodes is what that means."""
    return {True: "distribute", False: None}[value] if isinstance(value, bool) else value


class LlamaParameters(TypedFields):
    """Everything that is typed. None: llama-server's own default."""

    ctx_size: int | None = Field(None, ge=1, le=16_777_216)  # tokens, all slots together
    threads: int | None = Field(None, ge=1, le=1024)
    threads_batch: int | None = Field(None, ge=1, le=1024)
    n_gpu_layers: int | None = Field(None, ge=-1, le=10_000)  # -1: all
    batch_size: int | None = Field(None, ge=1, le=1_048_576)
    parallel: int | None = Field(None, ge=1, le=256)  # requests answered at once
    flash_attn: bool | None = None  # None: where it is possible
    cont_batching: bool | None = None
    embeddings: bool | None = None
    mlock: bool | None = None
    no_mmap: bool | None = None
    numa: Annotated[Numa | None, BeforeValidator(_numa)] = None
    cache_type_k: CacheType | None = None
    cache_type_v: CacheType | None = None


def validate_parameters(data: Mapping[str, Any]) -> LlamaParameters:
    """The parameters, checked.

    Raises:
        ParameterInvalid: carries an error for each parameter that cannot be used.
    """
    return LlamaParameters.checked(data)


def validate_extra_args(arguments: Sequence[Any]) -> list[str]:
    """Further arguments for the command line of llama-server, checked: one flag or value each.

    No shell ever sees them; what a shell would act on is refused all the same, for whoever wrote it expects one.

    Raises:
        ParameterInvalid: carries all errors; the key is `extra_args[n]`, counted from 0.
    """
    errors = [
        (f"extra_args[{index}]", message)
        for index, argument in enumerate(arguments)
        if (message := _argument_error(argument, is_first=index == 0))
    ]
    if errors:
        raise ParameterInvalid(errors)
    return list(arguments)


_UNSAFE = re.compile(r"""[\x00-\x1f\x7f-\x9f\ud800-\udfff;&|`$<>'"]""")
_FLAG = re.compile(r"^--?[A-Za-z]")
_LONGEST_ARGUMENT = 2000

# By every spelling of the flag.
PARAMETER_FLAGS = {
    "-c": "ctx_size",
    "--ctx-size": "ctx_size",
    "-t": "threads",
    "--threads": "threads",
    "-tb": "threads_batch",
    "--threads-batch": "threads_batch",
    "-ngl": "n_gpu_layers",
    "--gpu-layers": "n_gpu_layers",
    "--n-gpu-layers": "n_gpu_layers",
    "-b": "batch_size",
    "--batch-size": "batch_size",
    "-np": "parallel",
    "--parallel": "parallel",
    "-fa": "flash_attn",
    "--flash-attn": "flash_attn",
    "-cb": "cont_batching",
    "-nocb": "cont_batching",
    "--cont-batching": "cont_batching",
    "--no-cont-batching": "cont_batching",
    "--embedding": "embeddings",
    "--embeddings": "embeddings",
    "--mlock": "mlock",
    "--mmap": "no_mmap",
    "--no-mmap": "no_mmap",
    "--load-mode": "no_mmap",
    "--numa": "numa",
    "-ctk": "cache_type_k",
    "--cache-type-k": "cache_type_k",
    "-ctv": "cache_type_v",
    "--cache-type-v": "cache_type_v",
    "--chat-template": "chat_template",
    "--chat-template-file": "chat_template",
}
# Where it listens and who may talk to it, what it loads, where it logs: Gantry could not drive a server on which these differ.
_GANTRY_FLAGS = frozenset(
    [
        "--host",
        "--port",
        "--reuse-port",
        "--api-prefix",
        "--path",
        "--api-key",
        "--api-key-file",
        "--ssl-key-file",
        "--ssl-cert-file",
        "--threads-http",
        "--cors-origins",
        "--cors-methods",
        "--cors-headers",
        "--cors-credentials",
        "-a",
        "--alias",
        "-m",
        "--model",
        "--log-file",
        "--log-disable",
        "-lv",
        "--verbosity",
        "--log-verbosity",
        "-v",
        "--verbose",
        "--log-verbose",
        "--slots",
        "--no-slots",
        "--metrics",
        "--sleep-idle-seconds",
    ]
)
# They end it at once, turn it into a router, fetch models from the internet, or open the host's files and shell to whoever may chat.
_FORBIDDEN_FLAGS = frozenset(
    [
        "-h",
        "--help",
        "--usage",
        "--version",
        "-cl",
        "--cache-list",
        "--completion-bash",
        "--list-devices",
        "--models-dir",
        "--tools-runtime",
        "--mcp-servers-config",
        "--mcp-servers-json",
        "--models-preset",
        "--models-max",
        "--models-autoload",
        "--no-models-autoload",
        "-mu",
        "--model-url",
        "-dr",
        "--docker-repo",
        "-hf",
        "-hfr",
        "--hf-repo",
        "-hff",
        "--hf-file",
        "-hfv",
        "-hfrv",
        "--hf-repo-v",
        "-hffv",
        "--hf-file-v",
        "-hft",
        "--hf-token",
        "-hfd",
        "-hfrd",
        "--spec-draft-hf",
        "--hf-repo-draft",
        "-mmu",
        "--mmproj-url",
        "--props",
        "--tools",
        "-ag",
        "--agent",
        "--ui-mcp-proxy",
        "--webui-mcp-proxy",
        "--media-path",
        "--slot-save-path",
        "--log-prompts-dir",
        "--rpc",
    ]
)
_FETCHES_A_MODEL = re.compile(r"^--(?!spec-default$).+-(default|spec)$")  # --gpt-oss-20b-default and its like


def _argument_error(argument: Any, *, is_first: bool) -> str:
    """What is wrong with one argument; "" when nothing is."""
    if not isinstance(argument, str):
        return f"must be text; put quotes around it {got(argument)}"
    if not argument or len(argument) > _LONGEST_ARGUMENT:
        return f"must have 1 to {_LONGEST_ARGUMENT} characters {got(argument)}"
    if unsafe := _UNSAFE.search(argument):
        return f"must not contain {_character_name(unsafe.group())} {got(argument)}"
    if _FLAG.match(argument):
        return _flag_error(argument)
    return f"must start with a flag such as --top-k {got(argument)}" if is_first else ""


def _flag_error(argument: str) -> str:
    flag = argument.partition("=")[0]
    if any(character.isspace() for character in argument):
        return f"must be one flag or one value; give {flag.split()[0]} and its value as two entries {got(argument)}"
    if parameter := PARAMETER_FLAGS.get(flag):
        return f"{flag} has a place of its own: set {parameter} instead"
    if flag in _GANTRY_FLAGS:
        return f"{flag} is set by Gantry and cannot be given here"
    if flag in _FORBIDDEN_FLAGS or _FETCHES_A_MODEL.match(flag):
        return f"{flag} is not allowed"
    return ""


def _character_name(character: str) -> str:
    if character == "\n":
        return "a line break"
    return f"the character {character}" if character.isprintable() else "control characters"
