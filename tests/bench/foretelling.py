"""How well the end of a load is foretold, on a model that takes some seconds to load."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import gguf
import numpy as np

from tests.bench.person import Person
from tests.bench.rows import Job, read_jobs, read_models
from tests.functional.stack import Stack, start_stack
from tests.tiny_gguf import write_tiny_model

AIM_PERCENT = 25.0
LEARNED_FROM = 5  # loads before anything is judged
MIB = 1024**2

_DEFINE = """
from models_admin.actor import COMMAND
from models_admin.definitions import save_definition
from models_admin.models import ModelDefinition, Runtime
fields = {{"path": {path!r}, "runtime": Runtime.objects.get(), "name": "Large", "parameters": {{"ctx_size": 512, "no_mmap": True}}}}
save_definition(ModelDefinition(model_id="large", **fields), changed=["model_id", *fields], actor=COMMAND)
"""


@dataclass(frozen=True, slots=True)
class Load:
    """One load, and what was foretold while it ran; seconds."""

    is_cold: bool
    took: float
    at_quarter: float | None  # its whole length, as foretold when a quarter of it was done; None: no word was ventured
    quarter_at: float  # when that was

    @property
    def error_percent(self) -> float:
        """How far that was off. To venture no word counts as wholly wrong."""
        return 100.0 if self.at_quarter is None else 100 * abs(self.at_quarter - self.took) / self.took


def measure(folder: Path, size: int, runs: int, learned_from: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Load a model of `size` bytes `learned_from` times, then `runs` times with its file in memory and as often without."""
    say(f"writing a model of {size / 1e9:.1f} GB")
    path = write_large_model(folder / "large.gguf", size)
    stack = start_stack(folder / "data-large", {"GANTRY_MEMORY": f"fixed:{2 * size + 1024 * MIB}"})
    try:
        loads = _load_again_and_again(stack, path, runs, learned_from, say)
        version = read_models(stack)[1]
    finally:
        stack.stop()
    return {
        "llama_server": version,
        "file_bytes": path.stat().st_size,
        "learned_from": learned_from,
        "aim_percent": AIM_PERCENT,
        **{
            name: _figures([load for load in loads if name in {"all", _name(load)}]) for name in ("warm", "cold", "all")
        },
    }


def _load_again_and_again(
    stack: Stack, path: Path, runs: int, learned_from: int, say: Callable[[str], None]
) -> list[Load]:
    done = stack.manage("shell", "-v", "0", "-c", _DEFINE.format(path=str(path)))
    assert done.returncode == 0, done.stderr
    [model] = read_models(stack)[0]
    jobs: list[tuple[int, bool]] = []
    with Person(stack.url) as person:
        person.switch(model.pk)
        for number in range(1, learned_from):
            person.restart(model.pk)
            say(f"load {number + 1} of {learned_from} to learn from")
        for number in range(2 * runs):
            is_cold = bool(number % 2)
            if is_cold:
                forget_cached(path)
            jobs.append((person.restart(model.pk).job, is_cold))
            say(f"load {number + 1} of {2 * runs}, {'cold' if is_cold else 'warm'}")
    rows = read_jobs(stack)
    return [load_of(rows[job], is_cold=is_cold) for job, is_cold in jobs]


def load_of(job: Job, *, is_cold: bool) -> Load:
    """What was foretold at a quarter of a job's load, from its events."""
    began, ended = job.told("load")
    kinds = list(job.expected_seconds)
    index = kinds.index("load")
    expected, whole = list(job.expected_seconds.values()), sum(job.expected_seconds.values())
    before, after = sum(expected[:index]), sum(expected[index + 1 :])
    events = [event for event in job.events if event.kind == "load"]
    quarter = next(e for e in events if e.percent / 100 * whole >= before + 0.25 * expected[index] or e is events[-1])
    elapsed = quarter.at - began
    # The time left that is stored is that of the whole job.
    foretold = None if quarter.eta_seconds is None else elapsed + quarter.eta_seconds - after
    return Load(is_cold, ended - began, foretold, elapsed)


def write_large_model(path: Path, size: int) -> Path:
    """A model whose weights are really on the disk: `size` bytes of small random numbers where the tiny one has holes."""
    write_tiny_model(path, padding_bytes=size, n_layers=16, name="Large")
    block = (np.random.default_rng(1).standard_normal(MIB) * 1e-3).astype(np.float32).tobytes()
    with path.open("r+b") as file:
        for tensor in gguf.GGUFReader(path).tensors:
            if ".ffn_" in tensor.name:
                file.seek(int(tensor.data_offset))
                for start in range(0, int(tensor.n_bytes), len(block)):
                    file.write(block[: int(tensor.n_bytes) - start])
        file.flush()
        os.fsync(file.fileno())  # what is not on the disk yet cannot be dropped from memory
    return path


def forget_cached(path: Path) -> None:
    """Have the next reader of a file take it from the disk."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _name(load: Load) -> str:
    return "cold" if load.is_cold else "warm"


def _figures(loads: list[Load]) -> dict[str, Any]:
    return {
        "count": len(loads),
        "load_seconds": round(median(load.took for load in loads), 3),
        "error_percent": round(median(load.error_percent for load in loads), 1),
        "worst_percent": round(max(load.error_percent for load in loads), 1),
        "quarter_at_percent": round(100 * median(load.quarter_at / load.took for load in loads), 1),
    }
