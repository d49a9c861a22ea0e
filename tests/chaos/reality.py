"""What really runs, seen from outside: /proc, the keepers' notes, and what the model servers say themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from gantry.runtimes.llama_shim import read_start
from gantry.runtimes.process import ProcessMark
from tests.functional.stack import Stack, is_alive

# The processes of `up`, each with words that stand in its command and in no other's.
PARTS = {
    "web": ("daphne",),
    "worker": ("celery", "worker"),
    "scheduler": ("celery", "beat"),
    "broker": ("valkey-server",),
}


@dataclass(frozen=True, slots=True)
class ModelProcess:
    """A model server that was started for an instance, as its keeper wrote it down."""

    instance_id: str
    child: ProcessMark
    keeper: ProcessMark


def model_processes(runtime_dir: Path) -> list[ModelProcess]:
    """Every instance whose keeper has said whom it started; dead ones too."""
    return [found for path in runtime_dir.glob("*/*/process.json") if (found := _read(path)) is not None]


def _read(path: Path) -> ModelProcess | None:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    child, keeper = (ProcessMark(note[name]["pid"], note[name]["start"]) for name in ("child", "keeper"))
    return ModelProcess(path.parent.name, child, keeper)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Every process that lives in a folder or below, which is where keepers and model servers live."""
    return [process for process in psutil.process_iter() if _lives_in(process, folder)]


def _lives_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(f"{folder}/")
    except psutil.Error:
        return False


def instance_of(process: psutil.Process, runtime_dir: Path) -> str:
    """The instance whose folder a process lives in; "" when it has gone meanwhile."""
    try:
        parts = Path(process.cwd().removesuffix(" (deleted)")).relative_to(runtime_dir).parts
    except (psutil.Error, ValueError):
        return ""
    return parts[1] if len(parts) > 1 else ""


def part_of(stack: Stack, name: str) -> psutil.Process | None:
    """The process of `up` of this name (a key of PARTS); None while it is down."""
    for process in stack.children():
        try:
            # Valkey writes its command anew, in one piece.
            command = [Path(word).name for word in " ".join(process.cmdline()).split()]
        except psutil.Error:
            continue
        if is_alive(process) and all(word in command for word in PARTS[name]):
            return process
    return None


def mark_of(pid: int) -> ProcessMark | None:
    """A process by number and start time; None when it is gone."""
    start = read_start(pid)
    return None if start is None else ProcessMark(pid, start)


def serving_problems(base_url: str, api_key: str, model_path: Path) -> Iterator[str]:
    """What keeps the server at an address from being the one that serves this file."""
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        response = httpx.get(f"{base_url}/props", headers=headers, timeout=5)
    except httpx.HTTPError as exc:
        yield f"at {base_url} does not answer: {type(exc).__name__}"
        return
    if response.status_code != httpx.codes.OK:
        yield f"at {base_url} answers {response.status_code} to its own key"
    elif Path(response.json()["model_path"]).resolve() != model_path.resolve():
        yield f"at {base_url} serves {response.json()['model_path']} and not {model_path}"
