"""How a llama-server that serves one model ended, told from its folder and from its model's file."""

from __future__ import annotations

from pathlib import Path

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_file import read_gguf
from gantry.planning.states import ErrorCode
from gantry.runtimes.base import RunningInstance
from gantry.runtimes.exceptions import LoadFailed
from gantry.runtimes.llama_failures import explain
from gantry.runtimes.llama_instance import InstanceFolder
from gantry.runtimes.llama_keeper import LOG_LINES
from gantry.runtimes.process import is_taken

READY_STATES = frozenset({"ready", "sleeping"})  # one that sleeps wakes up for the next request


def check_file(path: Path) -> None:
    """Refuse a file that is not there or may not be read.

    Raises:
        LoadFailed: with the cause.
    """
    if not path.is_file():
        raise LoadFailed(f"{path} is not there.", code=ErrorCode.NOT_DOWNLOADED)
    try:
        path.open("rb").close()
    except OSError as exc:
        raise LoadFailed(f"{path} cannot be read: {exc.strerror}.") from exc


def load_failure(folder: InstanceFolder, path: Path) -> LoadFailed:
    """Why a load ended, from its server's last words and, where these say nothing, from the file."""
    log = folder.log_tail(200)
    ending = folder.ending
    code, detail = explain(ending, log, was_ready=False)
    # llama-server writes its log from a thread of its own, and may end before the line that names the cause is out.
    if code == ErrorCode.LOAD_FAILED and (found := damage(path)):
        code, detail = ErrorCode.FILE_DAMAGED, found
    if code == ErrorCode.LOAD_FAILED and is_taken(folder.spec["port"]):
        # A server that ends at once may take its last words with it: they are written by a thread of its own.
        code = ErrorCode.PORT_TAKEN
    return LoadFailed(detail, code=code, log_tail=log[-LOG_LINES:], exit_text=ending.text)


def damage(path: Path) -> str:
    """What is wrong with a model's file, as a sentence; "" when nothing can be seen from its header."""
    try:
        read_gguf(path)
    except ModelFileInvalid as exc:
        return f"It {exc.reason}."
    return ""


def describe_dead(folder: InstanceFolder, started_at: float | None) -> RunningInstance:
    """An instance whose process is gone, with the cause."""
    ending = folder.ending
    was_ready = folder.last_state in READY_STATES
    code, _ = explain(ending, folder.log_tail(LOG_LINES), was_ready=was_ready)
    return RunningInstance(
        instance_id=folder.instance_id,
        model_id=folder.spec["model_id"],
        is_ready=False,
        is_alive=False,
        started_at=started_at,
        exit_text=ending.text,
        exit_code=code,
    )
