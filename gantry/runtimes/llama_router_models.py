"""What a router says of its models: GET /models, read with distrust.

Source: llama.cpp tools/server/README.md ("Using multiple models") and server-models.cpp, checked on builds 10068 and 11434. There is no
status "failed": a load that failed is "unloaded" with an exit code, and so is one that somebody cancelled, for that kills its process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeGuard

from gantry.runtimes.bounded_reading import UnreadableError
from gantry.runtimes.llama_parameters import PARAMETER_FLAGS

RUNNING = frozenset({"loading", "loaded", "sleeping"})
READY = frozenset({"loaded", "sleeping"})  # one that sleeps wakes up for the next request
_LONGEST_NAME = 500
_ALL_LAYERS = 999


@dataclass(frozen=True, slots=True)
class RouterModel:
    """One model of a router."""

    name: str  # the router's id of it
    status: str
    aliases: tuple[str, ...] = ()
    exit_code: int | None = None  # of its last process, when that failed
    arguments: tuple[str, ...] = ()  # what its process is started with, program first
    meta: Mapping[str, Any] = field(default_factory=dict)  # told while it runs: n_ctx, n_ctx_train, size …

    @property
    def is_running(self) -> bool:
        """Whether it has a process."""
        return self.status in RUNNING

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self.status in READY

    @property
    def is_asleep(self) -> bool:
        """Whether it has given its memory back until the next request."""
        return self.status == "sleeping"

    @property
    def has_failed(self) -> bool:
        """Whether its last process ended badly, or was killed."""
        return not self.is_running and self.exit_code is not None

    def answers_to(self, name: str) -> bool:
        """Whether a request for `name` reaches it."""
        return name == self.name or name in self.aliases

    def option(self, *flags: str) -> str:
        """The value of the first of these flags among its arguments; "" when there is none."""
        return next((value for flag, value in pairwise(self.arguments) if flag in flags), "")

    @property
    def falls_asleep(self) -> bool:
        """Whether it goes to sleep by itself; then each question about its work would keep it awake."""
        return self.option("--sleep-idle-seconds") not in {"", "-1", "0"}

    @property
    def is_embedding(self) -> bool:
        """Whether it is started for embeddings only."""
        return bool({"--embedding", "--embeddings"} & set(self.arguments))


def read_models(data: Any) -> list[RouterModel]:
    """The models of an answer, in its order. Entries without a usable name are left out.

    Raises:
        UnreadableError: it is no list of models.
    """
    rows = data.get("data") if isinstance(data, Mapping) else None
    if not isinstance(rows, list):
        raise UnreadableError("the answer is no list of models")
    found = {model.name: model for row in rows if (model := _read_model(row))}
    return list(found.values())


def _read_model(row: Any) -> RouterModel | None:
    if not isinstance(row, Mapping) or not is_name(row.get("id")):
        return None
    status = row.get("status")
    status = status if isinstance(status, Mapping) else {}
    value, meta = status.get("value"), row.get("meta")
    return RouterModel(
        name=row["id"],
        status=value if is_name(value) else "",
        aliases=tuple(alias for alias in _texts(row.get("aliases")) if is_name(alias)),
        exit_code=read_exit_code(status.get("exit_code")) if status.get("failed") is True else None,
        arguments=_texts(status.get("args")),
        meta=meta if isinstance(meta, Mapping) else {},
    )


def is_name(value: Any) -> TypeGuard[str]:
    """Whether something can be a model's name."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable()


def read_exit_code(value: Any) -> int:
    """An exit code; 1, as for any failure, when it makes no sense."""
    is_code = isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
    return value if is_code else 1


def _texts(value: Any) -> tuple[str, ...]:
    """The texts of a list; one that cannot be shown on a line leaves its place empty."""
    items = value if isinstance(value, list) else []
    return tuple(item if item.isprintable() else "" for item in items if isinstance(item, str))


def parameters_in(arguments: Sequence[str]) -> dict[str, Any]:
    """The typed parameters (llama_parameters.py) that a command line sets, as far as it can be understood."""
    found: dict[str, Any] = {}
    for flag, value in pairwise([*arguments, ""]):
        if flag == "--load-mode":
            found |= {"mlock": "mlock" in value, "no_mmap": "mmap" not in value}
        elif (name := PARAMETER_FLAGS.get(flag)) is not None:
            found[name] = _value(name, flag, value)
    return found


_SWITCHES = {"--mlock": True, "--no-mmap": True, "--mmap": False}


def _value(name: str, flag: str, value: str) -> Any:
    """A parameter's value as people give it, from its flag and what follows."""
    if flag in _SWITCHES:
        return _SWITCHES[flag]
    if name in {"cont_batching", "embeddings"}:
        return not flag.startswith(("--no-", "-no"))
    if name == "flash_attn":
        return {"on": True, "1": True, "off": False, "0": False}.get(value)
    if name == "n_gpu_layers" and (value == "all" or (value.isdecimal() and int(value) >= _ALL_LAYERS)):
        return -1
    return int(value) if value.removeprefix("-").isdecimal() and len(value) < 12 else value
