"""TabbyAPI, run by somebody else: Gantry asks it to load and unload, and believes only what it sees.

Other people's clients may do the same at any time. What they load is shown as external and never ended without being asked.
TabbyAPI holds one model, cannot stop a load, and queues loads behind each other.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from gantry.planning.states import ErrorCode
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
from gantry.runtimes.exceptions import (
    LoadCancelled,
    LoadFailed,
    RuntimeAway,
    RuntimeFault,
    RuntimeRefused,
    UnloadFailed,
    VerifyFailed,
)
from gantry.runtimes.registry import RuntimeConfig
from gantry.runtimes.tabby_client import CurrentModel, Key, TabbyAddress, TabbyClient
from gantry.runtimes.tabby_load import LoadTask
from gantry.runtimes.tabby_notes import LoadNote, LoadNotes, shown_name
from gantry.runtimes.tabby_parameters import TabbyParameters, name_error, validate_parameters
from gantry.runtimes.turn import Turn
from gantry.runtimes.typed_fields import ParameterInvalid

NAME = "TabbyAPI"  # as it calls itself
TELL_SECONDS = 0.1  # between two figures of a load, and between two looks at whether it is cancelled
CANCEL_SECONDS = 120.0  # a cancelled load that does not move for so long is given up
ABANDONED_SECONDS = 3600.0  # a load that nobody follows any more may still come to its end within this time
TURN_SECONDS = 10.0  # an unload waits so long for another of Gantry's own loads or unloads


class TabbyRuntime:
    """One TabbyAPI at `config.url`.

    Options: `silence_seconds` (of a load's stream, with pings, before it counts as broken; 60; more where the server's pings are
    turned off) and `cancel_seconds` (how long a cancelled load may stand still before Gantry gives it up; 120).
    """

    kind = "tabby"
    capabilities = Capabilities(
        progress=ProgressKind.STEPS,
        can_cancel_load=False,
        holds_many=False,
        owns_processes=False,
        reports_memory=False,
        lists_models=True,
        counts_answers=False,
        answers_any_name=True,
    )

    def __init__(self, config: RuntimeConfig, transport: httpx.BaseTransport | None = None) -> None:
        """Take address and keys. Asks nobody.

        Args:
            transport: what stands in for the network.
        """
        self._url = config.url.rstrip("/")
        self._api_key = config.api_key
        self._folder = config.state_dir.absolute()
        self._notes = LoadNotes(self._folder)
        silence = config.options.get("silence_seconds")
        self._cancel_seconds = float(config.options.get("cancel_seconds", CANCEL_SECONDS))
        self._client = TabbyClient(TabbyAddress(self._url, config.api_key, config.admin_key), transport, silence)

    # What is there

    def check(self) -> RuntimeHealth:
        """Whether TabbyAPI answers there and takes both keys.

        An engine error in its `/health` is told and does not count: it stays there until the process ends, while the server works on.
        """
        try:
            name = self._client.service_name()
            if name != NAME:
                raise RuntimeAway(f"{name or 'Another program'} answers at its address, not TabbyAPI.")
            self._client.permission(Key.API)
            self._client.require_admin()
            issue = self._client.health_issue()
        except RuntimeFault as exc:
            return RuntimeHealth(False, detail=exc.detail, code=exc.code)
        note = f"It met an engine error since it was started: {issue}" if issue else ""
        return RuntimeHealth(True, version=NAME, detail=note)

    def current(self) -> CurrentModel | None:
        """What is loaded, with its parameters; None when nothing is, or while something loads."""
        return self._client.current()

    def running(self) -> Sequence[RunningInstance]:
        """What is loaded, whoever loaded it, and what Gantry is loading now. What is gone leaves no trace."""
        return self._look(is_loading=Turn(self._folder).is_taken())

    def models(self) -> Sequence[AvailableModel]:
        """Its directories, usable or not; the one that is loaded carries its parameters."""
        names = self._client.names()
        current = self._client.current()
        return tuple(AvailableModel(name, facts=_facts(name, current)) for name in names)

    def busy_count(self, instance_id: str) -> int:
        """0: TabbyAPI tells nobody how many answers it is giving."""
        return 0

    def log_tail(self, instance_id: str, lines: int = 50) -> tuple[str, ...]:
        """None: its log is on its own console."""
        return ()

    def verify(self, instance_id: str) -> Verification:
        """One real token, asked for with the key that chats use."""
        instance = self._find(instance_id)
        if instance is None:
            raise VerifyFailed("It is not loaded any more: somebody else unloaded it, or is loading another model.")
        started = time.monotonic()
        try:
            name, text = self._client.first_token()
        except RuntimeFault as exc:
            code = exc.code if exc.code == ErrorCode.UNAUTHORISED else ErrorCode.VERIFY_FAILED
            raise VerifyFailed(exc.detail, code=code) from exc
        if name != shown_name(instance.model_id):
            raise VerifyFailed(f"{name} answered: somebody else loaded it meanwhile.")
        return Verification(time.monotonic() - started, text)

    # Loading

    def check_load(self, request: LoadRequest) -> None:
        """Whether TabbyAPI has the model, and the parameters mean something.

        Asked for before anything is unloaded, for a name that is no model costs the one that is loaded.
        """
        parameters = _parameters(request)
        names = self._client.names()
        for name, what in ((request.model_id, "model"), (parameters.draft_model or "", "draft model")):
            if name and name.split("/")[0] not in names:
                raise LoadFailed(
                    f"TabbyAPI has no {what} {name} in its model directory.", code=ErrorCode.NOT_DOWNLOADED
                )

    def prefetch(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> int:
        """Nothing: the files are TabbyAPI's."""
        return 0

    def prepare(self, request: LoadRequest) -> None:
        """Nothing: the server that loads it runs already."""

    def drop_prepared(self) -> None:
        """Nothing."""

    def load(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        """Have it loaded and follow it, module by module.

        Where it goes is told by `gpu_split` and its like; `request.devices` mean nothing to TabbyAPI and are not passed on.
        A cancel before TabbyAPI was asked ends at once. After that TabbyAPI loads to the end, and then the model is unloaded.
        When the caller drops the iterator the load goes on, and `running` tells of it under this instance.

        Raises:
            LoadFailed: also when a cancelled load stands still: TabbyAPI may still finish it.
        """
        body = _parameters(request).body(request.model_id)
        turn = Turn(self._folder)
        while not turn.take():
            _stop_if(is_cancelled)
            yield LoadProgress(LoadStage.STARTING, 0.0, detail="Waiting for another load or unload on this TabbyAPI")
            time.sleep(TELL_SECONDS)
        try:
            _stop_if(is_cancelled)
            yield from self._load(request, body, is_cancelled)
        finally:
            turn.give_back()

    def _load(
        self, request: LoadRequest, body: Mapping[str, Any], is_cancelled: Callable[[], bool]
    ) -> Iterator[LoadProgress]:
        note = LoadNote(request.instance_id, request.model_id, dict(body), time.time())
        self._notes.put(note)
        task = LoadTask(self._client, self._notes, note, body, lambda current: self._is_same(note, current))
        task.start()
        try:
            yield from self._follow(task, is_cancelled)
        finally:
            task.abandon()
        if task.fault is not None:
            self._notes.remove(request.instance_id)
            raise task.fault
        yield LoadProgress(LoadStage.READY, 1.0)

    def _follow(self, task: LoadTask, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        was_cancelled = False
        yield task.told
        while (sign := task.next_sign(TELL_SECONDS)) is not None:
            if was_cancelled := was_cancelled or is_cancelled():
                task.cancel()
                self._check_moves(task)
            yield sign

    def _check_moves(self, task: LoadTask) -> None:
        """Give up a cancelled load that will not end.

        Raises:
            LoadFailed: it stands still.
        """
        if time.monotonic() - task.moved_at > self._cancel_seconds:
            words = "TabbyAPI cannot stop a load, and this one stands still. It may still be loaded later."
            raise LoadFailed(words, code=ErrorCode.LOAD_STALLED)

    def _is_same(self, note: LoadNote, current: CurrentModel) -> bool:
        """Whether what is loaded is known to be what a note asks for."""
        others = (each for each in self._notes.all() if each.instance_id != note.instance_id)
        return any(each.is_of(current) and each.parameters == note.parameters for each in others)

    # Ending

    def unload(self, instance_id: str) -> None:
        """Unload it, if it is what is loaded, and return when it is gone. Running answers are cut off.

        Raises:
            UnloadFailed: it is still there.
        """
        turn = Turn(self._folder)
        deadline = time.monotonic() + TURN_SECONDS
        while not turn.take():
            if time.monotonic() > deadline:
                raise UnloadFailed("Gantry is loading another model on this TabbyAPI.")
            time.sleep(TELL_SECONDS)
        try:
            # The turn is ours, so nothing of Gantry's is loading now.
            found = (each for each in self._look(is_loading=False) if each.instance_id == instance_id)
            for instance in found:
                self._unload(instance)
            self._notes.remove(instance_id)
        finally:
            turn.give_back()

    def forget(self, instance_id: str) -> None:
        """Drop the note of a load that is not loaded."""
        note = self._notes.get(instance_id)
        if note is not None and not note.is_loaded:
            self._notes.remove(instance_id)

    def _unload(self, instance: RunningInstance) -> None:
        try:
            self._client.unload()
        except RuntimeRefused:
            raise
        except RuntimeAway as exc:
            # 500 is what it answers when somebody else's unload was faster.
            if self._is_loaded(instance):
                raise UnloadFailed(exc.detail) from exc
        if self._is_loaded(instance):
            raise UnloadFailed("TabbyAPI still shows it as loaded.")

    # Bits

    def _is_loaded(self, instance: RunningInstance) -> bool:
        current = self._client.current()
        return current is not None and current.id == shown_name(instance.model_id)

    def _find(self, instance_id: str) -> RunningInstance | None:
        return next((each for each in self.running() if each.instance_id == instance_id), None)

    def _look(self, *, is_loading: bool) -> tuple[RunningInstance, ...]:
        """What is loaded or loading.

        Args:
            is_loading: whether Gantry may be loading there now, in any of its processes.
        """
        current = self._client.current()
        notes = self._notes.all()
        loading = [self._own(note, is_ready=False) for note in notes if not note.is_loaded and is_loading]
        # In the last step of a load the model is there under its name already.
        if current is None or any(shown_name(each.model_id) == current.id for each in loading):
            loaded = None
        else:
            loaded = self._owner(current, notes)
        if not is_loading:
            self._drop_stale(notes, current)
        return (*([loaded] if loaded else []), *loading)

    def _owner(self, current: CurrentModel, notes: Sequence[LoadNote]) -> RunningInstance:
        """The load that brought in what is loaded; the latest that fits."""
        for note in reversed(notes):
            if note.is_of(current):
                return self._own(note, is_ready=True)
            if not note.is_loaded and note.names(current):
                # The worker that asked for it is gone; TabbyAPI went on to the end.
                return self._own(self._notes.finish(note, current), is_ready=True)
        return self._external(current)

    def _drop_stale(self, notes: Sequence[LoadNote], current: CurrentModel | None) -> None:
        """Forget what was unloaded, and loads that nobody follows and that never came to an end."""
        for note in notes:
            is_old = time.time() - note.began_at > ABANDONED_SECONDS
            if (note.is_loaded and not note.is_of(current)) or (not note.is_loaded and is_old):
                self._notes.remove(note.instance_id)

    def _own(self, note: LoadNote, *, is_ready: bool) -> RunningInstance:
        return RunningInstance(
            instance_id=note.instance_id,
            model_id=note.model_id,
            is_ready=is_ready,
            is_alive=True,
            base_url=self._url,
            api_key=self._api_key,
            started_at=note.began_at,
        )

    def _external(self, current: CurrentModel) -> RunningInstance:
        return RunningInstance(
            instance_id=str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._url}/{current.id}")),
            model_id=current.id,
            is_ready=True,
            is_alive=True,
            base_url=self._url,
            api_key=self._api_key,
            is_external=True,
        )


def _facts(name: str, current: CurrentModel | None) -> dict[str, Any]:
    """What is known of a model beside its name: of one that is loaded, with what."""
    return {"is_loaded": True, **current.parameters} if current is not None and current.id == name else {}


def _parameters(request: LoadRequest) -> TabbyParameters:
    """The parameters of a request that can be sent.

    Raises:
        RuntimeRefused: there is something in it that TabbyAPI cannot be asked for.
    """
    if words := name_error(request.model_id):
        raise RuntimeRefused(words)
    if request.is_embedding:
        raise RuntimeRefused("TabbyAPI loads embedding models from its own configuration only.")
    if request.extra_args:
        raise RuntimeRefused("Further arguments mean nothing to TabbyAPI: it takes parameters only.")
    if request.chat_template:
        raise RuntimeRefused("TabbyAPI takes the name of one of its own templates: set prompt_template instead.")
    try:
        return validate_parameters(request.parameters)
    except ParameterInvalid as exc:
        raise RuntimeRefused(str(exc)) from exc


def _stop_if(is_cancelled: Callable[[], bool]) -> None:
    """End a load that TabbyAPI has not been asked for yet."""
    if is_cancelled():
        raise LoadCancelled
