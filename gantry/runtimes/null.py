"""A runtime without a server: models are entries in memory. For development and for tests.

Everything it does can be set while it runs, through `null_world(state_dir)`: how long loads take, which
fail and where, what is busy, what crashes. Runtimes with the same `state_dir` share one world, so a test
reaches the one that the code under test built for itself. Nothing outlives the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

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
    RuntimeRefused,
    UnloadFailed,
    VerifyFailed,
)
from gantry.runtimes.registry import RuntimeConfig

STEP_SECONDS = 0.02  # how often a load gives a sign
READING_SHARE = 0.9  # of a load; the rest is initialising


class Failure(NamedTuple):
    """How a load is to fail."""

    code: ErrorCode = ErrorCode.LOAD_FAILED
    fraction: float = 0.0  # how far it comes before


@dataclass
class NullWorld:
    """What a null runtime holds and how it behaves. Change the fields at any time."""

    load_seconds: float = 0.0
    unload_seconds: float = 0.0
    verify_seconds: float = 0.0
    prefetch_seconds: float = 0.0
    is_away: bool = False  # every call raises RuntimeAway
    failures: dict[str, Failure] = field(default_factory=dict)  # model id -> how its load fails
    refused: dict[str, ErrorCode] = field(default_factory=dict)  # model id -> why it is refused before anything happens
    stalls: dict[str, float] = field(default_factory=dict)  # model id -> fraction at which its load stands still
    stuck_unloads: set[str] = field(default_factory=set)  # model ids that will not unload
    silent: set[str] = field(default_factory=set)  # model ids that fail to answer when verified
    hanging: set[str] = field(default_factory=set)  # model ids that let a verification wait for as long as they live
    busy: dict[str, int] = field(default_factory=dict)  # model id -> requests in flight
    # model id -> requests in flight at one look after the other; when they are used up, `busy` counts
    busy_next: dict[str, list[int]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)  # model id -> bytes; else the size of its file
    offers: list[AvailableModel] = field(default_factory=list)  # what it says it has by itself
    base_url: str = ""  # told with every instance, for tests that put a server behind it
    instances: dict[str, RunningInstance] = field(default_factory=dict)
    loads: list[LoadRequest] = field(default_factory=list)  # every load asked for, in order
    prefetched: list[str] = field(default_factory=list)  # model ids whose files were to be read ahead
    prefetches_ended: list[str] = field(default_factory=list)  # "cancelled" or "done", in the order in which they ended
    prepared: dict[str, str] = field(default_factory=dict)  # instance id -> model id, until it is loaded or dropped
    drops: list[str] = field(default_factory=list)  # model ids that were prepared and not loaded
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def put(self, instance: RunningInstance) -> None:
        """Let an instance exist, as if it had been found or had changed by itself."""
        with self.lock:
            self.instances[instance.instance_id] = instance

    def crash(self, instance_id: str, code: ErrorCode = ErrorCode.KILLED, text: str = "killed by signal 9") -> None:
        """Let an instance die; `running` tells of it until it is forgotten.

        Raises:
            KeyError: there is no such instance.
        """
        with self.lock:
            dead = replace(
                self.instances[instance_id],
                is_alive=False,
                is_ready=False,
                memory_bytes=None,
                exit_text=text,
                exit_code=code,
            )
            self.instances[instance_id] = dead


_worlds: dict[Path, NullWorld] = {}
_worlds_lock = threading.Lock()


def null_world(state_dir: Path) -> NullWorld:
    """The world that all null runtimes with this folder share; made on first use."""
    with _worlds_lock:
        return _worlds.setdefault(state_dir, NullWorld())


def reset_null_worlds() -> None:
    """Forget all worlds, as between two tests."""
    with _worlds_lock:
        _worlds.clear()


class NullRuntime:
    """Keeps the whole contract of a runtime without starting anything.

    Options: `load_seconds`, `unload_seconds`, `verify_seconds` (for trying pages by hand).
    """

    kind = "null"
    capabilities = Capabilities(
        progress=ProgressKind.FRACTION,
        can_cancel_load=True,
        holds_many=True,
        owns_processes=False,
        reports_memory=True,
        lists_models=True,
        takes_devices=True,
    )

    def __init__(self, config: RuntimeConfig) -> None:
        """Build on the world of `config.state_dir`."""
        self._state_dir = config.state_dir
        for name in ("load_seconds", "unload_seconds", "verify_seconds"):
            if name in config.options:
                setattr(self.world, name, float(config.options[name]))

    @property
    def world(self) -> NullWorld:
        """What it holds; looked up each time, so that a reset reaches runtimes already built."""
        return null_world(self._state_dir)

    def check(self) -> RuntimeHealth:
        """Healthy unless the world says it is away."""
        if self.world.is_away:
            return RuntimeHealth(
                False, detail="The null runtime was told to be away.", code=ErrorCode.RUNTIME_UNREACHABLE
            )
        return RuntimeHealth(True, version="null")

    def running(self) -> Sequence[RunningInstance]:
        """All instances, dead ones too."""
        world = self._reach()
        with world.lock:
            return tuple(world.instances.values())

    def models(self) -> Sequence[AvailableModel]:
        """None, for it is given files, unless the world says otherwise."""
        return tuple(self._reach().offers)

    def prefetch(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> int:
        """Pretend to read for the world's `prefetch_seconds`."""
        world = self.world
        world.prefetched.append(request.model_id)
        deadline = time.monotonic() + world.prefetch_seconds
        while time.monotonic() < deadline:
            if is_cancelled():
                world.prefetches_ended.append("cancelled")
                return 0
            time.sleep(STEP_SECONDS)
        world.prefetches_ended.append("done")
        return request.file_bytes

    def prepare(self, request: LoadRequest) -> None:
        """Note it."""
        self.world.prepared[request.instance_id] = request.model_id

    def drop_prepared(self) -> None:
        """Note that too."""
        world = self.world
        world.drops.extend(world.prepared.values())
        world.prepared.clear()

    def check_load(self, request: LoadRequest) -> None:
        """Refuse what the world says it refuses."""
        code = self._reach().refused.get(request.model_id)
        if code is not None:
            raise RuntimeRefused("The null runtime was told to refuse this model.", code=code)

    def load(self, request: LoadRequest, is_cancelled: Callable[[], bool]) -> Iterator[LoadProgress]:
        """Pretend to load, in small steps, for the world's `load_seconds`."""
        world = self._reach()
        with world.lock:
            self._refuse_second(world, request)
            world.loads.append(request)
            world.prepared.pop(request.instance_id, None)
            world.put(self._instance(world, request, is_ready=False))
        try:
            yield from self._steps(world, request, is_cancelled)
            world.put(self._instance(world, request, is_ready=True))
        except BaseException:
            # Also when the caller drops the iterator: nothing half loaded is left.
            world.instances.pop(request.instance_id, None)
            raise
        yield _progress(request, LoadStage.READY, 1.0)

    def unload(self, instance_id: str) -> None:
        """Take an instance out after the world's `unload_seconds`."""
        world = self._reach()
        instance = world.instances.get(instance_id)
        if instance is None:
            return
        if instance.is_alive and instance.model_id in world.stuck_unloads:
            raise UnloadFailed("The null runtime was told to keep this model.")
        if instance.is_alive:
            time.sleep(world.unload_seconds)
        with world.lock:
            world.instances.pop(instance_id, None)

    def forget(self, instance_id: str) -> None:
        """Drop a dead instance; a living one stays."""
        world = self._reach()
        with world.lock:
            instance = world.instances.get(instance_id)
            if instance is not None and not instance.is_alive:
                del world.instances[instance_id]

    def verify(self, instance_id: str) -> Verification:
        """Answer, unless the world says the model is silent or hangs, or it is not there (any more)."""
        world = self._reach()
        began_at = time.monotonic()
        while True:
            instance = world.instances.get(instance_id)
            left = world.verify_seconds - (time.monotonic() - began_at)
            is_silent = left <= 0 and instance is not None and instance.model_id in world.silent
            if instance is None or not instance.is_ready or is_silent:
                raise VerifyFailed("The model gave no token.")
            if left <= 0 and instance.model_id not in world.hanging:
                return Verification(seconds=world.verify_seconds, text="ok")
            time.sleep(STEP_SECONDS if left <= 0 else min(STEP_SECONDS, left))

    def busy_count(self, instance_id: str) -> int:
        """As set in the world for the instance's model."""
        world = self._reach()
        instance = world.instances.get(instance_id)
        if instance is None or not instance.is_alive:
            return 0
        coming = world.busy_next.get(instance.model_id)
        return coming.pop(0) if coming else world.busy.get(instance.model_id, 0)

    def log_tail(self, instance_id: str, lines: int = 50) -> tuple[str, ...]:
        """One line for each instance that is known."""
        instance = self.world.instances.get(instance_id)
        return (f"null: {instance.model_id}",)[:lines] if instance else ()

    def _reach(self) -> NullWorld:
        world = self.world
        if world.is_away:
            raise RuntimeAway("The null runtime was told to be away.")
        return world

    @staticmethod
    def _refuse_second(world: NullWorld, request: LoadRequest) -> None:
        known = world.instances.get(request.instance_id)
        if known is not None and known.is_alive:
            raise RuntimeRefused("This instance is loaded already.")

    @staticmethod
    def _instance(world: NullWorld, request: LoadRequest, *, is_ready: bool) -> RunningInstance:
        return RunningInstance(
            instance_id=request.instance_id,
            model_id=request.model_id,
            is_ready=is_ready,
            is_alive=True,
            base_url=world.base_url,
            started_at=time.time(),
            memory_bytes=world.memory.get(request.model_id, request.file_bytes),
        )

    def _steps(
        self, world: NullWorld, request: LoadRequest, is_cancelled: Callable[[], bool]
    ) -> Iterator[LoadProgress]:
        started = time.monotonic()
        fraction = 0.0
        while True:
            if is_cancelled():
                raise LoadCancelled
            self._fail_if_due(world, request, fraction)
            if fraction >= 1:
                return
            yield _progress(request, LoadStage.STARTING if fraction == 0 else None, fraction)
            time.sleep(min(STEP_SECONDS, world.load_seconds))
            reached = (time.monotonic() - started) / world.load_seconds if world.load_seconds > 0 else 1.0
            fraction = self._limit(world, request, max(fraction, min(reached, 1.0)))

    @staticmethod
    def _fail_if_due(world: NullWorld, request: LoadRequest, fraction: float) -> None:
        failure = world.failures.get(request.model_id)
        if failure is not None and fraction >= failure.fraction:
            raise LoadFailed(code=failure.code, log_tail=(f"null: {request.model_id} was told to fail",))
        if world.is_away:
            raise RuntimeAway("The null runtime was told to be away.")
        instance = world.instances.get(request.instance_id)
        if instance is None or not instance.is_alive:
            raise LoadFailed(code=ErrorCode.KILLED, exit_text="killed by signal 9")

    @staticmethod
    def _limit(world: NullWorld, request: LoadRequest, fraction: float) -> float:
        stall = world.stalls.get(request.model_id)
        if stall is None:
            return fraction
        time.sleep(STEP_SECONDS)  # a stalled load never ends by itself: do not spin
        return min(fraction, stall)


def _progress(request: LoadRequest, stage: LoadStage | None, fraction: float) -> LoadProgress:
    if stage is None:
        stage = LoadStage.READING if fraction < READING_SHARE else LoadStage.INITIALISING
    done = min(1.0, fraction / READING_SHARE)
    return LoadProgress(stage, fraction, int(request.file_bytes * done), request.file_bytes)
