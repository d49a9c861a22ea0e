"""Effects that only write down what the engine causes; time passes when it sleeps."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from gantry.engine.effects import StepReport
from gantry.planning.states import JobState
from gantry.planning.types import PlanStep
from gantry.runtimes.base import LoadRequest, RunningInstance


class RecordingEffects:
    """Implements `gantry.engine.effects.Effects` in memory."""

    def __init__(self, *, free: Callable[[], int] = lambda: 10**12, active: str = "") -> None:
        self.calls: list[str] = []
        self.reports: list[StepReport] = []
        self.states: list[JobState] = []
        self.active = active
        self.cancel_when: Callable[[], bool] = lambda: False
        self.superseded = False
        self._active_before = active
        self._free = free
        self._now = 0.0

    def monotonic(self) -> float:
        self._now += 0.001
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def pass_time(self, seconds: float) -> None:
        self._now += seconds

    def is_cancelled(self) -> bool:
        return self.cancel_when()

    def is_superseded(self) -> bool:
        return self.superseded

    def enter(self, state: JobState, text: str) -> None:
        if not self.states or self.states[-1] != state:
            self.states.append(state)

    def report(self, report: StepReport) -> None:
        self.reports.append(report)

    def add_steps(self, steps: Sequence[PlanStep]) -> None:
        self.calls.append("add " + " ".join(step.kind for step in steps))

    def load_request(self, model_id: str) -> LoadRequest:
        return LoadRequest(str(uuid.uuid4()), model_id, Path(f"{model_id}.gguf"), 1000)

    def instance_loading(self, request: LoadRequest) -> None:
        self.calls.append(f"loading {request.model_id}")

    def instance_loaded(self, instance: RunningInstance, seconds: float) -> None:
        self.calls.append(f"loaded {instance.model_id}")

    def instance_unloading(self, instance_id: str) -> None:
        self.calls.append(f"unloading {instance_id}")

    def instance_gone(self, instance_id: str) -> None:
        self.calls.append("gone")

    def activate(self, model_id: str) -> None:
        self.active = model_id
        self.calls.append(f"activate {model_id}")

    def was_active(self, model_id: str) -> bool:
        return model_id == self._active_before

    def free_bytes(self) -> int:
        return self._free()
