"""llama-server in router mode: one server that starts and ends a process for each model.

With an address it is somebody else's router: what it offers is what can be loaded, in the way its owner set it up, and what other clients
load there is shown as external. Without one Gantry starts a router of its own for what it is given, and ends it with its last model.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from gantry.runtimes.base import (
    AvailableModel,
    Capabilities,
    LoadProgress,
    LoadRequest,
    LoadStage,
    ProgressKind,
    RunningInstance,
    RuntimeHealth,
    Verification,
)
from gantry.runtimes.exceptions import LoadCancelled, RuntimeAway, RuntimeRefused, UnloadFailed, VerifyFailed
from gantry.runtimes.llama_failures import Ending, explain
from gantry.runtimes.llama_keeper import LOG_LINES
from gantry.runtimes.llama_progress import sample_memory
from gantry.runtimes.llama_router_attached import AttachedRouter
from gantry.runtimes.llama_router_client import RouterClient
from gantry.runtimes.llama_router_host import ModelProcess, RouterHost
from gantry.runtimes.llama_router_load import (
    GONE_SECONDS,
    STALL_SECONDS,
    TICK_SECONDS,
    RouterLoad,
    end_model,
    release_when_unused,
)
from gantry.runtimes.llama_router_models import RouterModel, parameters_in
from gantry.runtimes.llama_router_notes import Intent, LoadNote, LoadNotes
from gantry.runtimes.llama_router_process import OwnRouter
from gantry.runtimes.prefetch import files_of, free_room, prefetch_files
from gantry.runtimes.registry import RuntimeConfig
from gantry.runtimes.turn import Turn

Processes = Mapping[str, ModelProcess]  # by the router's name of the model


class LlamaRouterRuntime:
    """One router: at `config.url`, or of Gantry's own where that is empty.

    Options: `stall_seconds` (without any sign of progress, before a load is given up; 600) and `reload` (have somebody else's router look
    for new models each time it is asked for them; that ends those of its models whose entry its owner has changed; false). On which GPUs
    a model is put is the business of whoever runs the router; one of Gantry's own is told.
    """

    kind = "llama_router"
    # Of the kind in general. One that somebody else runs differs, and says so itself.
    capabilities = Capabilities(
        progress=ProgressKind.FRACTION,
        can_cancel_load=True,
        holds_many=True,
        owns_processes=True,
        reports_memory=True,
        takes_devices=True,
    )

    def __init__(self, config: RuntimeConfig, transport: httpx.BaseTransport | None = None) -> None:
        """Take the configuration. Starts nothing and asks nobody.

        Args:
            transport: what stands in for the network, where the router is somebody else's.
        """
        self._state_dir = config.state_dir.absolute()
        self._notes = LoadNotes(self._state_dir / "loads")
        self._reloads = bool(config.options.get("reload", False))
        self._stall_seconds = float(config.options.get("stall_seconds", STALL_SECONDS))
        self._attached = AttachedRouter(config.url, config.api_key, transport) if config.url else None
        self._host: RouterHost = self._attached or OwnRouter(self._state_dir, config.binary, self._notes)
        self._space = config.url.rstrip("/") or str(self._state_dir)  # in which names of models mean something
        if self._attached is not None:
            self.capabilities = replace(
                self.capabilities,
                owns_processes=False,
                reports_memory=False,
                lists_models=True,
                takes_devices=False,
            )

    # What is there

    def check(self) -> RuntimeHealth:
        """Whether it can be used, and which build it is. A router of our own is started by its first load."""
        health = self._host.check()
        if self._attached is not None:
            self.capabilities = replace(self.capabilities, holds_many=self._attached.max_models != 1)
        return health

    def running(self) -> Sequence[RunningInstance]:
        """What is loaded or being loaded, whoever asked for it; of Gantry's own also what died, until it is forgotten."""
        client, models = self._listed()
        processes = self._host.processes()
        found, known = [], set[str]()
        for note in self._notes.all():
            if note.is_stale:
                self._notes.remove(note.instance_id)
            if not note.is_wanted:
                continue
            model = next((model for model in models if model.answers_to(note.name)), None)
            instance = self._describe(note, model, client, processes)
            if instance is not None:
                found.append(instance)
                known.add(model.name if model else note.name)
        others = (model for model in models if model.is_running and model.name not in known)
        return [*found, *(self._describe_other(model, client, processes) for model in others)]

    def models(self) -> Sequence[AvailableModel]:
        """What somebody else's router offers; none from one of our own, which is given files."""
        if self._attached is None:
            return ()
        called_off = {note.name for note in self._notes.all() if note.intent == Intent.CANCELLED}
        models = self._attached.client().models(reload=self._reloads)
        for name in called_off - {model.name for model in models if model.has_failed}:
            self._notes.forget_cancelled(name)
        return tuple(self._offer(model, called_off) for model in models)

    def busy_count(self, instance_id: str) -> int:
        """How many requests it is answering; 0 where asking would keep it from going to sleep."""
        client, model = self._find(instance_id)
        if client is None or model is None or not model.is_ready or model.falls_asleep:
            return 0
        return client.busy_count(model.name)

    def log_tail(self, instance_id: str, lines: int = LOG_LINES) -> tuple[str, ...]:
        """Its lines in the log of a router of our own; somebody else's router keeps its log to itself."""
        note = self._notes.get(instance_id)
        return self._host.log_of(note, lines) if note is not None else ()

    def verify(self, instance_id: str) -> Verification:
        """One real token, or one real embedding, within 60 s. Wakes one that sleeps."""
        client, model = self._find(instance_id)
        if client is None or model is None or not model.is_running:
            raise VerifyFailed("It is not loaded any more.", log_tail=self.log_tail(instance_id))
        note = self._notes.get(instance_id)
        is_embedding = note.is_embedding if note is not None else model.is_embedding
        try:
            return client.verify(model.name, is_embedding=is_embedding)
        except VerifyFailed as exc:
            exc.log_tail = self.log_tail(instance_id)
            raise

    # Loading

    def check_load(self, request: LoadRequest) -> None:
        """Whether the model is there, and can be started as the request wants it."""
        self._host.check_load(request)

    def prefetch(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> int:
        """Read a model's file into the page cache, while there is room; nothing where the files are somebody else's."""
        if not self._host.is_own:
            return 0
        return prefetch_files(files_of(request.path), self._room, is_cancelled)

    def _room(self) -> int:
        return free_room([process.pid for process in self._host.processes().values()])

    def prepare(self, request: LoadRequest) -> None:
        """Nothing: the server that loads it runs already."""

    def drop_prepared(self) -> None:
        """Nothing."""

    def load(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        """Have it loaded and follow it until it answers.

        What somebody else has loaded meanwhile is taken over as it is. When the caller drops the iterator, the load is ended.
        """
        note = replace(self._host.note_for(request), began_at=time.time())
        task = RouterLoad(
            self._host,
            self._notes,
            Turn(self._state_dir),
            note,
            request,
            lambda: self._refuse(request),
            self._stall_seconds,
        )
        if is_cancelled():
            raise LoadCancelled
        task.start()
        try:
            while not task.done.wait(TICK_SECONDS):
                if is_cancelled():
                    task.cancel()
                yield task.progress
        finally:
            task.cancel()
            task.done.wait(GONE_SECONDS)
        if task.fault is not None:
            raise task.fault
        yield LoadProgress(LoadStage.READY, 1.0, task.progress.bytes_total, task.progress.bytes_total)

    def _refuse(self, request: LoadRequest) -> None:
        """Refuse what cannot be loaded, and what is: a router holds a model once, another load of it would end with the first."""
        for instance in self.running():
            if not instance.is_alive or instance.is_external:
                continue
            if instance.instance_id == request.instance_id:
                raise RuntimeRefused("This instance is loaded already.")
            if instance.model_id == request.model_id:
                raise RuntimeRefused("This model is loaded already, and a router holds each model once.")
        self._host.check_load(request)

    # Ending

    def unload(self, instance_id: str) -> None:
        """End it, and return when its process is gone.

        Raises:
            UnloadFailed: it is still there.
        """
        try:
            self._end(instance_id)
        except RuntimeRefused as fault:
            raise UnloadFailed(fault.detail, code=fault.code) from fault
        except RuntimeAway:
            note = self._notes.get(instance_id)
            if note is None or not self._host.kill(note.name):
                raise
        self._notes.remove(instance_id)
        release_when_unused(self._host, self._notes, Turn(self._state_dir))

    def _end(self, instance_id: str) -> None:
        client, model = self._find(instance_id)
        if client is None or model is None or not model.is_running:
            return
        if not end_model(client, model.name):
            raise UnloadFailed(f"The router still runs it after {GONE_SECONDS:.0f} seconds.")

    def forget(self, instance_id: str) -> None:
        """Drop the note of one that is not there any more."""
        instance = next((each for each in self.running() if each.instance_id == instance_id), None)
        if instance is None or not instance.is_alive:
            self._notes.remove(instance_id)
            release_when_unused(self._host, self._notes, Turn(self._state_dir))

    # Bits

    def _find(self, instance_id: str) -> tuple[RouterClient | None, RouterModel | None]:
        """The router, and the model that an instance is of, running or not."""
        client, models = self._listed()
        note = self._notes.get(instance_id)
        for model in models:
            is_it = model.answers_to(note.name) if note is not None else self._other_id(model) == instance_id
            if is_it:
                return client, model
        return client, None

    def _listed(self) -> tuple[RouterClient | None, list[RouterModel]]:
        """The router with its models; none of both while one of our own does not run."""
        client = self._host.client()
        try:
            return client, client.models() if client is not None else []
        except RuntimeAway:
            if self._host.client() is None:  # it ended while it was asked
                return None, []
            raise

    def _describe(
        self, note: LoadNote, model: RouterModel | None, client: RouterClient | None, processes: Processes
    ) -> RunningInstance | None:
        """One of Gantry's own; None when it went without a trace of trouble."""
        instance = RunningInstance(
            note.instance_id, note.model_id, is_ready=False, is_alive=True, started_at=note.began_at
        )
        if model is not None and model.is_running:
            return _alive(instance, model, client, processes)
        if note.intent == Intent.ASKING:
            return instance
        ending = Ending(code=model.exit_code) if model is not None and model.has_failed else self._host.ending()
        if ending is None:  # somebody else unloaded it
            self._notes.remove(note.instance_id)
            return None
        code, _ = explain(ending, self._host.log_of(note, LOG_LINES), was_ready=note.intent == Intent.LOADED)
        return replace(instance, is_alive=False, exit_text=ending.text, exit_code=code)

    def _describe_other(self, model: RouterModel, client: RouterClient | None, processes: Processes) -> RunningInstance:
        name = model.aliases[0] if self._host.is_own and model.aliases else model.name
        is_external = not self._host.is_own
        other = RunningInstance(self._other_id(model), name, is_ready=False, is_alive=True, is_external=is_external)
        return _alive(other, model, client, processes)

    def _other_id(self, model: RouterModel) -> str:
        """The same in every process and at every look."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._space}/{model.name}"))

    def _offer(self, model: RouterModel, called_off: set[str]) -> AvailableModel:
        facts: dict[str, Any] = {"status": model.status, "parameters": parameters_in(model.arguments)}
        if model.has_failed and model.name not in called_off:
            facts["failure"] = f"Its last load ended: its process exited with {model.exit_code}."
        context, size = model.meta.get("n_ctx_train"), model.meta.get("size")
        if _is_count(context):
            facts["context_length"] = context
        return AvailableModel(model.name, size if _is_count(size) else self._file_bytes(model), facts)

    def _file_bytes(self, model: RouterModel) -> int | None:
        path = self._host.file_of(model) or Path()
        try:
            return sum(part.stat().st_size for part in files_of(path)) if path.is_file() else None
        except OSError:
            return None


def _alive(
    instance: RunningInstance, model: RouterModel, client: RouterClient | None, processes: Processes
) -> RunningInstance:
    process = processes.get(model.name)
    return replace(
        instance,
        is_ready=model.is_ready,
        is_asleep=model.is_asleep,
        base_url=client.url if client is not None else "",
        api_key=client.api_key if client is not None else "",
        pid=process.pid if process else None,
        memory_bytes=sample_memory(process.pid).resident if process else None,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 62
