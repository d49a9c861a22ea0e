"""From the last words of a llama-server to the cause that people are told.

Source: llama.cpp's own messages, recorded from build 10068 on a CPU (tests/unit/runtimes/test_llama_failures.py);
those of GPU backends from ggml/src/ggml-cuda and ggml-vulkan at build 11434.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gantry.planning.states import ErrorCode

# The most telling first: an allocation that fails is followed by "failed to load model" too.
_CAUSES: tuple[tuple[re.Pattern[str], ErrorCode], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        (r"couldn't bind (HTTP )?server socket|address already in use", ErrorCode.PORT_TAKEN),
        (r"cudaMalloc failed|out of memory|OutOf(Device|Host)Memory|insufficient memory", ErrorCode.OUT_OF_MEMORY),
        (r"cannot allocate memory|(unable|failed) to allocate|bad_alloc", ErrorCode.OUT_OF_MEMORY),
        (r"^error: invalid argument|error while handling argument|^error: unknown", ErrorCode.BAD_PARAMETER),
        (r"chat template is not supported|V cache quantization requires", ErrorCode.BAD_PARAMETER),
        (r"failed to open (GGUF file )?.*No such file or directory", ErrorCode.NOT_DOWNLOADED),
        (
            r"invalid magic|failed to read magic|not within the file bounds|corrupted or incomplete",
            ErrorCode.FILE_DAMAGED,
        ),
        (r"unexpectedly reached end of file|failed to read (key|tensor|header)", ErrorCode.FILE_DAMAGED),
        (r"error while loading shared libraries", ErrorCode.RUNTIME_MISSING),
    )
)
_TELLING = re.compile(r"error loading model|^error|failed|invalid|unsupported", re.IGNORECASE)
_HEAD = re.compile(r"^\d+\.\d\d\.\d{3}\.\d{3} [A-Z] ")  # "0.00.005.682 E "
_SPEAKER = re.compile(r"^(\w+\s+)?\w+(\(\))?:\s+")  # "llama_model_load: ", "srv    load_model: "


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended, as its keeper wrote it down."""

    code: int | None = None
    signal: int | None = None
    errno: int | None = None  # it could not even be started
    is_known: bool = True  # False: it is gone and nobody saw how

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> Ending:
        """From exit.json; None when there is none."""
        if record is None:
            return cls(is_known=False)
        return cls(record.get("code"), record.get("signal"), record.get("errno"))

    @property
    def text(self) -> str:
        """In words: "exited with 1"."""
        if not self.is_known:
            return "gone without a trace"
        if self.errno is not None:
            return "could not be started"
        return f"killed by signal {self.signal}" if self.signal is not None else f"exited with {self.code}"


def explain(ending: Ending, log: Sequence[str], *, was_ready: bool) -> tuple[ErrorCode, str]:
    """Why it ended, and the line of its log that says so ("" when none does)."""
    if code := _from_ending(ending):
        return code, ""
    for pattern, code in _CAUSES:
        for line in log:
            if pattern.search(clean(line)):
                return code, _without_speaker(line)
    if was_ready:
        return ErrorCode.CRASHED, ""
    return ErrorCode.LOAD_FAILED, next((_without_speaker(line) for line in log if _TELLING.search(clean(line))), "")


def clean(line: str) -> str:
    """A log line without time and level."""
    return _HEAD.sub("", line).strip()


def _without_speaker(line: str) -> str:
    text = clean(line)
    return text if text.startswith("error") else _SPEAKER.sub("", text)


def _from_ending(ending: Ending) -> ErrorCode | None:
    if not ending.is_known or ending.signal in (signal.SIGKILL, signal.SIGTERM):
        return ErrorCode.KILLED
    if ending.signal == signal.SIGILL or ending.errno == errno.ENOEXEC:
        return ErrorCode.WRONG_CPU
    return ErrorCode.RUNTIME_MISSING if ending.errno is not None else None
