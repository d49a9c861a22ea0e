"""A router that Gantry starts itself, and ends when its last model went.

It has a keeper (llama_shim.py) and a folder (llama_instance.py) like every llama-server of Gantry's, so it outlives the worker and any
later one finds it again and proves it. Its preset holds what is loaded and nothing else; a model is added by writing it anew and having
it read again, which leaves alone all whose lines are the same.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import psutil

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadRequest, RuntimeHealth
from gantry.runtimes.exceptions import LoadFailed, RuntimeFault
from gantry.runtimes.llama_binary import BinaryUnusableError, Build, ask_build, find_binary
from gantry.runtimes.llama_client import Health, LlamaClient
from gantry.runtimes.llama_devices import BUS_ORDER, device_arguments
from gantry.runtimes.llama_ending import check_file
from gantry.runtimes.llama_failures import Ending, explain
from gantry.runtimes.llama_flags import model_arguments, router_arguments
from gantry.runtimes.llama_instance import InstanceFolder
from gantry.runtimes.llama_keeper import (
    KILL_SECONDS,
    LOG_LINES,
    POLL_SECONDS,
    end_server,
    is_over,
    listens,
    start_keeper,
)
from gantry.runtimes.llama_preset import preset_text, section_lines, section_name
from gantry.runtimes.llama_router_client import RouterClient
from gantry.runtimes.llama_router_host import ModelProcess
from gantry.runtimes.llama_router_log import lines_of, tail
from gantry.runtimes.llama_router_models import RouterModel
from gantry.runtimes.llama_router_notes import LoadNote, LoadNotes
from gantry.runtimes.llama_shim import read_start
from gantry.runtimes.process import ProcessMark, choose_port, is_taken, wait_gone

FOLDER = "router"  # under the runtime's state_dir
PRESET = "models.ini"
NO_MODELS = (
    "no-models"  # where the router would look for models that were downloaded; there are none, and it is never made
)
READY_SECONDS = 15.0  # for a router to answer; it reads no model
PORT_TRIES = 3
ALL_LINES = 100_000


class OwnRouter:
    """The router in a folder."""

    is_own = True

    def __init__(self, state_dir: Path, binary: Path | None, notes: LoadNotes) -> None:
        """Start nothing."""
        self._state_dir = state_dir
        self._binary = binary
        self._notes = notes
        self._plain = LlamaClient()
        self._clients: dict[tuple[str, str], RouterClient] = {}

    def check(self) -> RuntimeHealth:
        """Whether llama-server is here and runs, and which build it is."""
        try:
            build = ask_build(find_binary(self._binary))
        except BinaryUnusableError as exc:
            return RuntimeHealth(False, detail=exc.detail, code=exc.code)
        if not build.knows("--models-preset"):
            words = f"This llama-server ({build.version}) has no router mode."
            return RuntimeHealth(False, detail=words, code=ErrorCode.RUNTIME_MISSING)
        return RuntimeHealth(True, version=f"llama-server {build.version}")

    def client(self) -> RouterClient | None:
        """How to ask it; None while it does not run."""
        folder = self._folder()
        return self._client_of(folder) if folder.is_alive else None

    def check_load(self, request: LoadRequest) -> None:
        """Whether the file is there and this build understands every parameter."""
        self.note_for(request)

    def note_for(self, request: LoadRequest) -> LoadNote:
        """With its lines in the preset."""
        check_file(request.path)
        return LoadNote(
            request.instance_id,
            request.model_id,
            section_name(request.model_id),
            is_embedding=request.is_embedding,
            path=str(request.path),
            section=tuple(self._lines(self._build(), request)),
        )

    def prepare(self, note: LoadNote, wanted: Sequence[LoadNote]) -> RouterClient:
        """Start it, or have it read its preset again."""
        preset = preset_text((note.name, note.section) for note in wanted)
        folder = self._folder()
        if folder.is_alive:
            folder.write(PRESET, preset)
            client = self._client_of(folder)
            client.models(reload=True)
            return client
        for attempt in range(1, PORT_TRIES + 1):
            try:
                return self._start(preset)
            except LoadFailed as exc:
                if exc.code != ErrorCode.PORT_TAKEN or attempt == PORT_TRIES:
                    raise
        raise AssertionError("unreachable")

    def release(self) -> None:
        """End it: a router without models is of no use, and whoever stops Gantry expects nothing to be left."""
        folder = self._folder()
        if folder.path.exists() and not self._holds_any(folder):
            end_server(folder)
            folder.remove()

    def _holds_any(self, folder: InstanceFolder) -> bool:
        """Whether it runs models that nothing is written of. One that does not answer holds none of use."""
        try:
            return folder.is_alive and any(model.is_running for model in self._client_of(folder).models())
        except RuntimeFault:
            return False

    def processes(self) -> Mapping[str, ModelProcess]:
        """Its children, by the name that each was started with."""
        child = self._folder().child
        if child is None or not child.is_alive:
            return {}
        found = {}
        try:
            for process in psutil.Process(child.pid).children(recursive=True):
                line = process.cmdline()
                options = dict(pairwise(line))
                if name := options.get("--alias"):
                    port = options.get("--port", "")
                    found[name] = ModelProcess(process.pid, int(port) if port.isdecimal() else None)
        except psutil.Error:  # one of them ended while we looked
            pass
        return found

    def kill(self, name: str) -> bool:
        """End the process of a model, which is a child of our own router."""
        process = self.processes().get(name)
        start = read_start(process.pid) if process is not None else None
        if process is None or start is None:
            return True
        mark = ProcessMark(process.pid, start)
        mark.send(signal.SIGKILL)
        return wait_gone([mark], KILL_SECONDS)

    def ending(self) -> Ending | None:
        """How it ended; None while it runs."""
        folder = self._folder()
        return None if folder.is_alive else folder.ending

    def log_of(self, note: LoadNote, lines: int) -> tuple[str, ...]:
        """Those that its process wrote into the router's log."""
        log = self._folder().log_tail(ALL_LINES)
        return tail(lines_of(note.name, log, note.port), lines)

    def file_of(self, model: RouterModel) -> Path | None:
        """What its arguments name."""
        path = model.option("--model", "-m")
        return Path(path) if path else None

    def _folder(self) -> InstanceFolder:
        return InstanceFolder.of(self._state_dir, FOLDER)

    def _client_of(self, folder: InstanceFolder) -> RouterClient:
        key = (folder.base_url, folder.api_key)
        if key not in self._clients:
            self._clients = {key: RouterClient(*key)}  # those of routers before it are of no use
        return self._clients[key]

    def _build(self) -> Build:
        try:
            return ask_build(find_binary(self._binary))
        except BinaryUnusableError as exc:
            raise LoadFailed(exc.detail, code=exc.code) from exc

    def _lines(self, build: Build, request: LoadRequest) -> list[str]:
        template = self._notes.template_path(request.instance_id) if request.chat_template else None
        return section_lines([*model_arguments(build, request, template), *device_arguments(request.devices)])

    def _start(self, preset: str) -> RouterClient:
        build = self._build()
        folder = self._folder()
        folder.remove()
        port = choose_port()
        nowhere = str(self._state_dir / NO_MODELS)
        environment = {**build.environment(), **BUS_ORDER, "LLAMA_CACHE": nowhere, "HF_HUB_CACHE": nowhere}
        spec = {
            "instance_id": FOLDER,
            "is_router": True,
            "port": port,
            "argv": router_arguments(build, folder.path / PRESET, port),
            "env": environment,
        }
        folder.create(spec, secrets.token_urlsafe(32))
        folder.write(PRESET, preset)
        folder = self._folder()
        keeper = start_keeper(folder, environment)
        try:
            self._wait_ready(folder, keeper)
        except BaseException:
            end_server(folder, keeper)
            folder.remove()
            raise
        return self._client_of(folder)

    def _wait_ready(self, folder: InstanceFolder, keeper: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not (listens(folder) and self._plain.health(folder.base_url) == Health.READY):
            if is_over(folder, keeper) or time.monotonic() > deadline:
                raise self._failure(folder)
            time.sleep(POLL_SECONDS)

    @staticmethod
    def _failure(folder: InstanceFolder) -> LoadFailed:
        log = folder.log_tail(200)
        code, detail = explain(folder.ending, log, was_ready=False)
        if code == ErrorCode.LOAD_FAILED and is_taken(folder.spec["port"]):
            code = ErrorCode.PORT_TAKEN
        words = f"The router did not start. {detail}".strip()
        return LoadFailed(words, code=code, log_tail=log[-LOG_LINES:], exit_text=folder.ending.text)
