"""llama-server in process mode: one server for each loaded model, started, watched and ended by Gantry.

Each server has a keeper (llama_shim.py) that lives on when the worker restarts, and a folder under
`state_dir` (llama_instance.py) by which any later worker finds it again, proves it and goes on with it.
"""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_file import read_gguf
from gantry.planning.states import ErrorCode
from gantry.runtimes import llama_shim
from gantry.runtimes.base import (
    Capabilities,
    LoadProgress,
    LoadRequest,
    ProgressKind,
    RunningInstance,
    RuntimeHealth,
    Verification,
)
from gantry.runtimes.exceptions import (
    LoadCancelled,
    LoadFailed,
    RuntimeRefused,
    UnloadFailed,
    VerifyFailed,
)
from gantry.runtimes.llama_binary import BinaryUnusableError, Build, ask_build, find_binary
from gantry.runtimes.llama_client import Health, LlamaClient
from gantry.runtimes.llama_failures import explain
from gantry.runtimes.llama_flags import build_arguments
from gantry.runtimes.llama_instance import InstanceFolder
from gantry.runtimes.llama_progress import LoadMeter, sample_memory
from gantry.runtimes.process import ProcessMark, group_of, listens_on, wait_gone
from gantry.runtimes.registry import RuntimeConfig

POLL_SECONDS = 0.02  # a ready model waits this long at most before it is seen
TELL_SECONDS = 0.1  # between two figures of a load, and between two looks at whether it is cancelled
PORT_TRIES = 3
START_SECONDS = 3.0  # for a keeper to write down whom it started
KILL_SECONDS = 2.0  # for the kernel to take a killed process away; a large one is torn down slowly
# The keeper's own time: the polite line, SIGTERM, SIGKILL, and the writing down.
KEEPER_SECONDS = llama_shim.POLITE_SECONDS + llama_shim.KILL_SECONDS + llama_shim.DRAIN_SECONDS + 1.0
LOG_LINES = 50
READY_STATES = frozenset({"ready", "sleeping"})  # one that sleeps wakes up for the next request


class LlamaServerRuntime:
    """Starts one llama-server for each model. Options: none."""

    kind = "llama_server"
    capabilities = Capabilities(
        progress=ProgressKind.FRACTION,
        can_cancel_load=True,
        holds_many=True,
        owns_processes=True,
        reports_memory=True,
    )

    def __init__(self, config: RuntimeConfig) -> None:
        """Take the folder for instances and the program, if one is configured."""
        self._state_dir = config.state_dir.absolute()
        self._binary = config.binary
        self._client = LlamaClient()

    # What is there

    def check(self) -> RuntimeHealth:
        """Whether llama-server is here and runs, and which build it is."""
        try:
            build = ask_build(find_binary(self._binary))
        except BinaryUnusableError as exc:
            return RuntimeHealth(False, detail=exc.detail, code=exc.code)
        return RuntimeHealth(True, version=f"llama-server {build.version}")

    def running(self) -> Sequence[RunningInstance]:
        """All instances, each proven by pid and start time; the dead until they are forgotten."""
        found = []
        for folder in InstanceFolder.all_in(self._state_dir):
            if folder.is_left_over:
                folder.remove()
            elif folder.spec and (folder.process or folder.has_ended):
                found.append(self._describe(folder))
        return found

    def log_tail(self, instance_id: str, lines: int = LOG_LINES) -> tuple[str, ...]:
        """Last lines of its log, oldest first; for a while also when it is gone."""
        return InstanceFolder.of(self._state_dir, instance_id).log_tail(lines)

    def busy_count(self, instance_id: str) -> int:
        """How many requests it is answering; 0 when it is not there."""
        folder = InstanceFolder.of(self._state_dir, instance_id)
        if not folder.is_alive:
            return 0
        return self._client.busy_count(folder.base_url, folder.api_key)

    def verify(self, instance_id: str) -> Verification:
        """One real token, or one real embedding, within 60 s."""
        folder = InstanceFolder.of(self._state_dir, instance_id)
        if not folder.is_alive:
            raise VerifyFailed(
                "Its process is gone.", log_tail=folder.log_tail(LOG_LINES), exit_text=folder.ending.text
            )
        spec = folder.spec
        try:
            return self._client.verify(
                folder.base_url, folder.api_key, spec["model_id"], is_embedding=spec["is_embedding"]
            )
        except VerifyFailed as exc:
            exc.log_tail = folder.log_tail(LOG_LINES)
            exc.exit_text = folder.ending.text if folder.has_ended else ""
            raise

    # Loading

    def check_load(self, request: LoadRequest) -> None:
        """Whether the file is there and this build understands every parameter."""
        build = self._build()
        _check_file(request.path)
        template = Path("template.jinja") if request.chat_template else None
        build_arguments(build, request, port=1, template=template)

    def load(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        """Start a server with the model and follow it until it answers.

        Raises:
            LoadFailed, LoadCancelled: nothing is left running.
            RuntimeRefused: a parameter means nothing to this build; nothing was started.
        """
        build = self._build()
        _check_file(request.path)
        for attempt in range(1, PORT_TRIES + 1):
            try:
                yield from self._load_once(build, request, is_cancelled)
                return
            except LoadFailed as exc:
                if exc.code != ErrorCode.PORT_TAKEN or attempt == PORT_TRIES:
                    raise

    def _build(self) -> Build:
        try:
            return ask_build(find_binary(self._binary))
        except BinaryUnusableError as exc:
            raise LoadFailed(exc.detail, code=exc.code) from exc

    def _load_once(
        self, build: Build, request: LoadRequest, is_cancelled: Callable[[], bool]
    ) -> Iterator[LoadProgress]:
        folder = self._prepare(build, request)
        keeper: subprocess.Popen[bytes] | None = None
        try:
            keeper = _start_keeper(folder, build)
            yield from self._follow(folder, keeper, request, is_cancelled)
        except BaseException:
            # Also when the caller drops the iterator: a load that nobody follows is ended.
            _end(folder, keeper)
            folder.remove()
            raise

    def _prepare(self, build: Build, request: LoadRequest) -> InstanceFolder:
        folder = InstanceFolder.of(self._state_dir, request.instance_id)
        if folder.is_alive:
            raise RuntimeRefused("This instance is loaded already.")
        folder.remove()
        port = choose_port()
        template = folder.path / "template.jinja" if request.chat_template else None
        spec = {
            "instance_id": request.instance_id,
            "model_id": request.model_id,
            "is_embedding": request.is_embedding,
            "port": port,
            "argv": build_arguments(build, request, port, template),
            "env": build.environment(),
        }
        folder.create(spec, secrets.token_urlsafe(32))
        if template is not None:
            folder.write(template.name, request.chat_template)
        return InstanceFolder(folder.path)

    def _follow(
        self,
        folder: InstanceFolder,
        keeper: subprocess.Popen[bytes],
        request: LoadRequest,
        is_cancelled: Callable[[], bool],
    ) -> Iterator[LoadProgress]:
        """Signs of a load, at most ten a second, until it is ready."""
        meter = LoadMeter(request.path, request.file_bytes)
        told_at = 0.0
        while True:
            if self._is_ready(folder):
                yield meter.ready()
                return
            if _is_over(folder, keeper):
                raise _failure(folder, request.path)
            if time.monotonic() - told_at >= TELL_SECONDS:
                told_at = time.monotonic()
                if is_cancelled():
                    raise LoadCancelled(log_tail=folder.log_tail(LOG_LINES))
                yield self._measure(folder, meter)
            time.sleep(POLL_SECONDS)

    def _is_ready(self, folder: InstanceFolder) -> bool:
        """By the server's own word, confirmed over HTTP; where a build gives no word, by HTTP from its own socket."""
        state = folder.last_state
        if state:
            return state in READY_STATES and self._client.health(folder.base_url) == Health.READY
        # Another program may answer on the port that it could not get.
        return _listens(folder) and self._client.health(folder.base_url) == Health.READY

    def _measure(self, folder: InstanceFolder, meter: LoadMeter) -> LoadProgress:
        child = folder.child
        states = folder.states()
        if child and not states and _listens(folder) and self._client.health(folder.base_url) == Health.LOADING:
            states = [{"state": "loading"}]  # a build that tells nothing, but says over HTTP that it loads
        return meter.read(child.pid if child else None, states)

    # Ending

    def unload(self, instance_id: str) -> None:
        """End it, and return when its processes are gone. Its log stays for a while.

        Raises:
            UnloadFailed: it outlived SIGKILL.
        """
        folder = InstanceFolder.of(self._state_dir, instance_id)
        if folder.path.exists():
            _end(folder)
            folder.remove()

    def forget(self, instance_id: str) -> None:
        """Remove the folder of a dead instance."""
        folder = InstanceFolder.of(self._state_dir, instance_id)
        if folder.path.exists() and not folder.is_alive:
            folder.remove()

    def _describe(self, folder: InstanceFolder) -> RunningInstance:
        child = folder.child
        started_at = (folder.process or {}).get("started_at")
        if child is None or not child.is_alive:
            return _describe_dead(folder, started_at)
        return RunningInstance(
            instance_id=folder.instance_id,
            model_id=folder.spec["model_id"],
            is_ready=folder.last_state in READY_STATES or self._is_ready(folder),
            is_alive=True,
            base_url=folder.base_url,
            api_key=folder.api_key,
            pid=child.pid,
            started_at=started_at,
            memory_bytes=sum(sample_memory(mark.pid).resident for mark in group_of(child)),
        )


def _listens(folder: InstanceFolder) -> bool:
    """Whether the server itself, and nobody else, listens on its port."""
    child = folder.child
    return child is not None and any(listens_on(mark.pid, folder.spec["port"]) for mark in group_of(child))


def choose_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_taken(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection's wait is no listener
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise LoadFailed(f"{path} is not there.", code=ErrorCode.NOT_DOWNLOADED)
    try:
        path.open("rb").close()
    except OSError as exc:
        raise LoadFailed(f"{path} cannot be read: {exc.strerror}.") from exc


def _start_keeper(folder: InstanceFolder, build: Build) -> subprocess.Popen[bytes]:
    """The keeper, in a session of its own so that no signal to the worker's group reaches it."""
    with (folder.path / "server.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-S", "-E", "-s", llama_shim.__file__, str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder.path,
            env=build.environment(),
            start_new_session=True,
        )
    # Collects it when it ends, so that no zombie stays for as long as this worker lives.
    threading.Thread(target=keeper.wait, name=f"keeper-{folder.instance_id}", daemon=True).start()
    return keeper


def _is_over(folder: InstanceFolder, keeper: subprocess.Popen[bytes]) -> bool:
    """Whether the server has ended, or never came to be."""
    if folder.has_ended:
        return True
    return keeper.poll() is not None and not folder.is_alive


def _failure(folder: InstanceFolder, path: Path) -> LoadFailed:
    log = folder.log_tail(200)
    ending = folder.ending
    code, detail = explain(ending, log, was_ready=False)
    # llama-server writes its log from a thread of its own, and may end before the line that names the cause is out.
    if code == ErrorCode.LOAD_FAILED and (damage := _damage(path)):
        code, detail = ErrorCode.FILE_DAMAGED, damage
    if code == ErrorCode.LOAD_FAILED and is_taken(folder.spec["port"]):
        # A server that ends at once may take its last words with it: they are written by a thread of its own.
        code = ErrorCode.PORT_TAKEN
    return LoadFailed(detail, code=code, log_tail=log[-LOG_LINES:], exit_text=ending.text)


def _damage(path: Path) -> str:
    """What is wrong with a model's file, as a sentence; "" when nothing can be seen from its header."""
    try:
        read_gguf(path)
    except ModelFileInvalid as exc:
        return f"It {exc.reason}."
    return ""


def _describe_dead(folder: InstanceFolder, started_at: float | None) -> RunningInstance:
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


def _end(folder: InstanceFolder, starter: subprocess.Popen[bytes] | None = None) -> None:
    """End a server and its keeper, whatever state they are in. Signals go only to processes proven ours.

    Raises:
        UnloadFailed: something outlived SIGKILL.
    """
    if starter is not None:
        _wait_started(folder, starter)
    keeper, child = folder.keeper, folder.child
    group = group_of(child) if child else []
    if keeper is not None and keeper.is_alive:
        keeper.send(signal.SIGTERM)
        is_gone = wait_gone([keeper, *group], KEEPER_SECONDS)
    else:
        _send_all(group, signal.SIGTERM)
        is_gone = wait_gone(group, llama_shim.KILL_SECONDS)
    if not is_gone:
        _kill(folder, [*group, *([keeper] if keeper else [])])


def _wait_started(folder: InstanceFolder, starter: subprocess.Popen[bytes]) -> None:
    """Until the keeper has said whom it started; one that does not say so in time is ended itself."""
    deadline = time.monotonic() + START_SECONDS
    while folder.process is None and starter.poll() is None:
        if time.monotonic() > deadline:
            starter.kill()  # our own child and not collected yet; the server, if any, ends with its stdin
            return
        time.sleep(POLL_SECONDS)


def _kill(folder: InstanceFolder, marks: Sequence[ProcessMark]) -> None:
    _send_all(marks, signal.SIGKILL)
    if not wait_gone(marks, KILL_SECONDS):
        left = ", ".join(str(mark.pid) for mark in marks if mark.is_alive)
        raise UnloadFailed(f"Process {left} outlived SIGKILL.", log_tail=folder.log_tail(LOG_LINES))


def _send_all(marks: Sequence[ProcessMark], number: int) -> None:
    for mark in marks:
        mark.send(number)
