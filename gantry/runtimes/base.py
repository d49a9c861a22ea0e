"""The one interface behind which every kind of LLM server stands.

A runtime knows no database. What it owns it can find again by itself (`running`), also after the process
that started it has gone, so that records can always be compared with reality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from gantry.planning.states import ErrorCode


class ProgressKind(StrEnum):
    """Where a runtime's load progress comes from."""

    FRACTION = "fraction"  # the server says how far it is, 0 to 1
    BYTES = "bytes"  # bytes read, counted from outside
    STEPS = "steps"  # module k of n
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind of runtime can do; pages show only what is possible."""

    progress: ProgressKind
    can_cancel_load: bool
    holds_many: bool  # several models at once
    owns_processes: bool  # Gantry starts and ends the servers itself
    reports_memory: bool  # `RunningInstance.memory_bytes` is measured
    lists_models: bool = False  # `models` tells what the server offers by itself
    takes_devices: bool = False  # a load can be told on which GPUs it goes (`LoadRequest.devices`)
    counts_answers: bool = True  # `busy_count` knows of every answer that it gives
    answers_any_name: bool = False  # whatever model a request names, the loaded one answers, under its own name


class LoadStage(StrEnum):
    """Parts of a load, in order."""

    STARTING = "starting"
    READING = "reading"
    INITIALISING = "initialising"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One model to be loaded. `instance_id` is Gantry's own id for this load, a UUID as text."""

    instance_id: str
    model_id: str
    path: Path
    file_bytes: int
    parameters: Mapping[str, Any] = field(default_factory=dict)  # typed names, see llama_parameters.py
    extra_args: Sequence[str] = ()
    chat_template: str = ""
    is_embedding: bool = False
    devices: tuple[str, ...] = ()  # ids as `gantry.hardware` gives them; empty: all there are


@dataclass(frozen=True, slots=True)
class AvailableModel:
    """A model that a server offers by itself, loaded or not."""

    model_id: str  # as the server names it
    size_bytes: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # what else it says, JSON data


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """A real sign of progress. `fraction` is 0 to 1 over the whole load and never falls."""

    stage: LoadStage
    fraction: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    detail: str = ""

    @property
    def read_fraction(self) -> float | None:
        """How much of what has to be read is read, 0 to 1; None where no bytes are told."""
        if self.bytes_done is None or not self.bytes_total:
            return None
        return min(1.0, max(0.0, self.bytes_done / self.bytes_total))


@dataclass(frozen=True, slots=True)
class RunningInstance:
    """A model that the runtime holds (or held until it died), as found in reality."""

    instance_id: str
    model_id: str
    is_ready: bool
    is_alive: bool
    base_url: str = ""  # where its OpenAI-compatible endpoints are, without /v1
    api_key: str = field(default="", repr=False)
    pid: int | None = None
    started_at: float | None = None  # seconds since the epoch
    memory_bytes: int | None = None
    exit_text: str = ""
    exit_code: ErrorCode | None = None  # the cause, when it died
    is_external: bool = False  # somebody else loaded it: it is shown and used, but never ended without being asked
    is_asleep: bool = False  # the server keeps it ready without holding its memory; a request wakes it


@dataclass(frozen=True, slots=True)
class RuntimeHealth:
    """Whether a runtime can be used, and what it is."""

    is_ok: bool
    version: str = ""
    detail: str = ""  # when not ok: what is wrong and what to do
    code: ErrorCode | None = None
    max_models: int | None = None  # so many at once at the most, where a server that holds many has a limit of its own


@dataclass(frozen=True, slots=True)
class Verification:
    """Proof that a model answers: one real generation (or embedding)."""

    seconds: float
    text: str


class Runtime(Protocol):
    """An LLM server that Gantry drives. All calls block; none needs a database.

    Raises (all calls): RuntimeAway, RuntimeRefused.
    """

    kind: str
    capabilities: Capabilities

    def check(self) -> RuntimeHealth:
        """Whether it can be used now. Never raises."""
        ...

    def running(self) -> Sequence[RunningInstance]:
        """Everything it holds now, and what died since it was last forgotten."""
        ...

    def models(self) -> Sequence[AvailableModel]:
        """The models that the server offers by itself; none for one that is given files."""
        ...

    def check_load(self, request: LoadRequest) -> None:
        """Refuse a load that cannot work, as far as that can be told without starting it. Changes nothing.

        Asked before anything is unloaded for the model.

        Raises:
            LoadFailed, RuntimeRefused: with the cause, as `load` would raise it.
        """
        ...

    def prefetch(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> int:
        """Have what a load will read at hand (in the page cache), while something else still holds the memory.

        Takes no memory from anybody, may do nothing, never raises. Blocks until it is done or `is_cancelled`; gives the
        bytes that were read.
        """
        ...

    def prepare(self, request: LoadRequest) -> None:
        """Bring a load as far as it can come without taking memory for its model; `load` of the same request goes on from there.

        Asked while what has to make room for the model is being unloaded. May do nothing, never raises. What was prepared is no
        instance: `running` does not tell of it, and it ends with this process.
        """
        ...

    def drop_prepared(self) -> None:
        """End whatever was prepared and not loaded. Never raises."""
        ...

    def load(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        """Load a model; yields at each sign of progress and ends after `LoadStage.READY`.

        Yields at least every 0.25 s (the last figures again when nothing moved), so that the caller can
        look at its own clock. When `is_cancelled` turns true, stops what it started and raises.

        Raises:
            LoadFailed: with code, exit and log tail; nothing is left running.
            LoadCancelled: nothing is left running.
        """
        ...

    def unload(self, instance_id: str) -> None:
        """End an instance and return when it is gone. Unloading what is not there is not an error.

        Raises:
            UnloadFailed: it would not go.
        """
        ...

    def forget(self, instance_id: str) -> None:
        """Remove what is kept about an instance that is dead, so that `running` stops telling of it."""
        ...

    def verify(self, instance_id: str) -> Verification:
        """One real token (or one embedding) from the instance.

        Raises:
            VerifyFailed: it answered wrongly or not at all within the time limit.
        """
        ...

    def busy_count(self, instance_id: str) -> int:
        """How many requests it is answering now; 0 when that cannot be known."""
        ...

    def log_tail(self, instance_id: str, lines: int = 50) -> tuple[str, ...]:
        """Last lines of its log, oldest first; empty when there is none."""
        ...
