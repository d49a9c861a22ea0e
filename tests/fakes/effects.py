"""Effects that only write down what the engine causes; time passes when it sleeps."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from gantry.engine.effects import LoadMeasure, StepReport
from gantry.planning.states import JobState
from gantry.planning.types import PlanStep
from gantry.runtimes.base import LoadRequest, RunningInstance
from gantry.runtimes.exceptions import LoadCancelled, RuntimeFault

REQUEST_BYTES = 1000


class RecordingEffects:
    """Implements `gantry.engine.effects.Effects` in memory.

    `calls` holds what was caused, in order, by the names of the models. `models` says which instance is of which model: the
    test fills in what was there before. `at` lets something happen once so many seconds have passed.
    """

    def __init__(self, *, free: Callable[[], int] = lambda: 10**12, active: str = "") -> None:
        self.calls: list[str] = []
        self.reports: list[StepReport] = []
        self.states: list[JobState] = []
        self.measures: list[LoadMeasure] = []
        self.looked_at: list[tuple[str, ...]] = []  # the devices of each look at the memory
        self.models: dict[str, str] = {}
        self.slow: set[str] = set()  # calls that take ten seconds
        self.active = active
        self.cancel_when: Callable[[], bool] = lambda: False
        self.superseded_when: Callable[[], bool] = lambda: False
        self.call_fault: RuntimeFault | None = None
        self.free = free
        self._active_before = active
        self._now = 0.0
        self._coming: list[tuple[float, Callable[[], None]]] = []

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something when the engine's clock has reached this."""
        self._coming.append((seconds, action))

    @property
    def texts(self) -> list[str]:
        """What was told, each once in a row of the same step."""
        told = [(report.index, report.text) for report in self.reports]
        return [new[1] for before, new in zip([(-1, ""), *told], told, strict=False) if new != before]

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call in self.slow:
            self.sleep(10.0)

    def monotonic(self) -> float:
        self._now += 0.001
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        due = [entry for entry in self._coming if entry[0] <= self._now]
        self._coming = [entry for entry in self._coming if entry not in due]
        for _, action in due:
            action()

    def is_cancelled(self) -> bool:
        return self.cancel_when()

    def is_superseded(self) -> bool:
        return self.superseded_when()

    def enter(self, state: JobState) -> None:
        if not self.states or self.states[-1] != state:
            self.states.append(state)

    def report(self, report: StepReport) -> None:
        self.reports.append(report)

    def add_steps(self, steps: Sequence[PlanStep]) -> None:
        self.calls.append("add " + " ".join(step.kind for step in steps))

    def load_request(self, model_id: str) -> LoadRequest:
        return LoadRequest(str(uuid.uuid4()), model_id, Path(f"{model_id}.gguf"), REQUEST_BYTES)

    def instance_loading(self, request: LoadRequest) -> None:
        self.models[request.instance_id] = request.model_id
        self._note(f"loading {request.model_id}")

    def instance_loaded(self, instance: RunningInstance, measure: LoadMeasure) -> None:
        self.measures.append(measure)
        self._note(f"loaded {instance.model_id}")

    def instance_unloading(self, instance_id: str) -> None:
        if self.models[instance_id] == self.active:
            self.active = ""
        self._note(f"unloading {self.models[instance_id]}")

    def instance_kept(self, instance_id: str) -> None:
        self._note(f"kept {self.models[instance_id]}")

    def instance_gone(self, instance_id: str) -> None:
        self._note(f"gone {self.models[instance_id]}")

    def activate(self, model_id: str) -> None:
        self.active = model_id
        self._note(f"activate {model_id}")

    def was_active(self, model_id: str) -> bool:
        return model_id == self._active_before

    def active_model(self) -> str:
        return self.active

    def free_bytes(self, devices: Sequence[str] = ()) -> int:
        self.looked_at.append(tuple(devices))
        return self.free()

    def call(self, instance: RunningInstance, is_cancelled: Callable[[], bool]) -> None:
        self._note(f"call {instance.model_id}")
        if is_cancelled():
            raise LoadCancelled
        if self.call_fault is not None:
            raise self.call_fault
