"""llama-server in process mode: one server for each loaded model, started, watched and ended by Gantry.

Each server has a keeper (llama_shim.py) that lives on when the worker restarts, and a folder under
`state_dir` (llama_instance.py) by which any later worker finds it again, proves it and goes on with it.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import (
    AvailableModel,
    Capabilities,
    LoadProgress,
    LoadRequest,
    ProgressKind,
    RunningInstance,
    RuntimeHealth,
    Verification,
)
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeFault, RuntimeRefused, VerifyFailed
from gantry.runtimes.llama_binary import BinaryUnusableError, Build, ask_build, find_binary
from gantry.runtimes.llama_client import Health, LlamaClient
from gantry.runtimes.llama_ending import READY_STATES, check_file, describe_dead, load_failure
from gantry.runtimes.llama_flags import build_arguments
from gantry.runtimes.llama_instance import UNSTARTED_SECONDS, InstanceFolder
from gantry.runtimes.llama_keeper import (
    LOG_LINES,
    POLL_SECONDS,
    dismiss,
    end_server,
    is_over,
    let_go,
    listens,
    ready_keeper,
    start_keeper,
)
from gantry.runtimes.llama_progress import LoadMeter, sample_memory
from gantry.runtimes.prefetch import files_of, free_room, prefetch_files
from gantry.runtimes.process import choose_port, group_of
from gantry.runtimes.registry import RuntimeConfig

TELL_SECONDS = 0.1  # between two figures of a load, and between two looks at whether it is cancelled
PORT_TRIES = 3
# For which the word of a server counts that it is idle: a switch asks when it drains, and unloads at once.
IDLE_SECONDS = 0.1
# A server that has waited longer for its load is not used: its folder may be taken for a left-over.
WAITING_SECONDS = UNSTARTED_SECONDS / 2


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A server that waits to be let go."""

    request: LoadRequest
    folder: InstanceFolder
    keeper: subprocess.Popen[bytes]
    began_at: float


class LlamaServerRuntime:
    """Starts one llama-server for each model. Options: none."""

    kind = "llama_server"
    capabilities = Capabilities(
        progress=ProgressKind.FRACTION,
        can_cancel_load=True,
        holds_many=True,
        owns_processes=True,
        reports_memory=True,
        takes_devices=True,
        answers_any_name=True,
    )

    def __init__(self, config: RuntimeConfig) -> None:
        """Take the folder for instances and the program, if one is configured."""
        self._state_dir = config.state_dir.absolute()
        self._binary = config.binary
        self._client = LlamaClient()
        self._idle_at: dict[str, float] = {}  # by instance id: when it said that it works on nothing
        self._prepared: dict[str, _Prepared] = {}  # by instance id

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

    def models(self) -> Sequence[AvailableModel]:
        """None: it is given files."""
        return ()

    def log_tail(self, instance_id: str, lines: int = LOG_LINES) -> tuple[str, ...]:
        """Last lines of its log, oldest first; for a while also when it is gone."""
        return InstanceFolder.of(self._state_dir, instance_id).log_tail(lines)

    def busy_count(self, instance_id: str) -> int:
        """How many requests it is answering; 0 when it is not there."""
        folder = InstanceFolder.of(self._state_dir, instance_id)
        if not folder.is_alive:
            return 0
        busy = self._client.busy_count(folder.base_url, folder.api_key)
        if not busy:
            self._idle_at[instance_id] = time.monotonic()
        return busy

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
        check_file(request.path)
        template = Path("template.jinja") if request.chat_template else None
        build_arguments(build, request, port=1, template=template)
        ready_keeper()  # it comes up while something else is drained and unloaded

    def prefetch(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> int:
        """Read the model's file, all its parts and what further arguments name beside it into the page cache, while there is room."""
        beside = [Path(argument) for argument in request.extra_args if argument.endswith(".gguf")]
        return prefetch_files([*files_of(request.path), *beside], self._room, is_cancelled)

    def _room(self) -> int:
        children = (folder.child for folder in InstanceFolder.all_in(self._state_dir))
        return free_room([child.pid for child in children if child is not None and child.is_alive])

    def prepare(self, request: LoadRequest) -> None:
        """Start its server, which waits with all its flags read and looks at no model yet (llama_shim.py)."""
        with contextlib.suppress(RuntimeFault, OSError):
            folder = self._new_folder(self._build(), request)
            keeper = start_keeper(folder, folder.spec["env"], waits=True)
            self._prepared[request.instance_id] = _Prepared(request, folder, keeper, time.monotonic())

    def drop_prepared(self) -> None:
        """End the servers that wait, and remove their folders."""
        while self._prepared:
            _, prepared = self._prepared.popitem()
            dismiss(prepared.keeper)
            prepared.folder.remove()

    def load(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        """Start a server with the model, or let the one go on that was prepared, and follow it until it answers.

        Raises:
            LoadFailed, LoadCancelled: nothing is left running.
            RuntimeRefused: a parameter means nothing to this build; nothing was started.
        """
        build = self._build()
        check_file(request.path)
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
        prepared = self._let_go(request)
        folder = prepared.folder if prepared else self._new_folder(build, request)
        keeper = prepared.keeper if prepared else None
        try:
            keeper = keeper or start_keeper(folder, folder.spec["env"])
            yield from self._follow(folder, keeper, request, is_cancelled)
        except BaseException:
            # Also when the caller drops the iterator: a load that nobody follows is ended.
            end_server(folder, keeper)
            folder.remove()
            raise

    def _let_go(self, request: LoadRequest) -> _Prepared | None:
        """The server that waits for this load, if there is one: it waits no more."""
        prepared = self._prepared.pop(request.instance_id, None)
        if prepared is None:
            return None
        is_fresh = time.monotonic() - prepared.began_at < WAITING_SECONDS and prepared.request == request
        if is_fresh and let_go(prepared.folder, prepared.keeper):
            return prepared
        dismiss(prepared.keeper)
        prepared.folder.remove()
        return None

    def _new_folder(self, build: Build, request: LoadRequest) -> InstanceFolder:
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
            "env": build.environment(request.devices),
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
        told_at, told_bytes, state = 0.0, 0, ""
        while True:
            # Read only where there is something new: it is looked at far more often than it changes.
            if folder.told_bytes != told_bytes:
                told_bytes, state = folder.told_bytes, folder.last_state
            if self._is_ready(folder, state):
                yield meter.ready()
                return
            if is_over(folder, keeper):
                raise load_failure(folder, request.path)
            if time.monotonic() - told_at >= TELL_SECONDS:
                told_at = time.monotonic()
                if is_cancelled():
                    raise LoadCancelled(log_tail=folder.log_tail(LOG_LINES))
                yield self._measure(folder, meter)
            time.sleep(POLL_SECONDS)

    def _is_ready(self, folder: InstanceFolder, state: str) -> bool:
        """By the server's own word, its last state, confirmed over HTTP; where a build gives no word, by HTTP from its own socket."""
        if state:
            return state in READY_STATES and self._client.health(folder.base_url) == Health.READY
        # Another program may answer on the port that it could not get.
        return listens(folder) and self._client.health(folder.base_url) == Health.READY

    def _measure(self, folder: InstanceFolder, meter: LoadMeter) -> LoadProgress:
        child = folder.child
        states = folder.states()
        if child and not states and listens(folder) and self._client.health(folder.base_url) == Health.LOADING:
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
            end_server(folder, is_idle=self._is_idle(folder))
            folder.remove()

    def _is_idle(self, folder: InstanceFolder) -> bool:
        """Whether it says itself that it is ready and works on nothing, or has said so a moment ago: nobody sends it anything now."""
        if time.monotonic() - self._idle_at.get(folder.instance_id, float("-inf")) < IDLE_SECONDS:
            return True
        with contextlib.suppress(RuntimeFault):
            return folder.last_state in READY_STATES and self.busy_count(folder.instance_id) == 0
        return False

    def forget(self, instance_id: str) -> None:
        """Remove the folder of a dead instance."""
        folder = InstanceFolder.of(self._state_dir, instance_id)
        if folder.path.exists() and not folder.is_alive:
            folder.remove()

    def _describe(self, folder: InstanceFolder) -> RunningInstance:
        child = folder.child
        started_at = (folder.process or {}).get("started_at")
        if child is None or not child.is_alive:
            return describe_dead(folder, started_at)
        return RunningInstance(
            instance_id=folder.instance_id,
            model_id=folder.spec["model_id"],
            is_ready=folder.last_state in READY_STATES or self._is_ready(folder, folder.last_state),
            is_alive=True,
            base_url=folder.base_url,
            api_key=folder.api_key,
            pid=child.pid,
            started_at=started_at,
            memory_bytes=sum(sample_memory(mark.pid).resident for mark in group_of(child)),
        )
