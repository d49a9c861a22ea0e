"""A null runtime that holds `old`, effects that write down, and plans made by hand: the engine does what the plan says."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from gantry.engine.runner import Limits, Outcome, run_plan
from gantry.planning.states import JobKind, LoadOrder, StepKind
from gantry.planning.types import LoadedModel, PlanStep, SwitchPlan, TimeRange
from gantry.runtimes.base import LoadRequest, RunningInstance, Runtime
from gantry.runtimes.null import NullRuntime, NullWorld, null_world
from gantry.runtimes.registry import RuntimeConfig
from tests.fakes.effects import RecordingEffects

GB = 10**9
HELD = 6 * GB
TOTAL = 20 * GB
NOTHING = TimeRange(0.0, 0.0, 0.0, 0)


class Bench:
    """Everything a run needs. `old` is loaded and active."""

    def __init__(self, folder: Path) -> None:
        self.world: NullWorld = null_world(folder)
        self.null = NullRuntime(RuntimeConfig("null", "null", state_dir=folder))
        self.runtime: Runtime = self.null
        self.effects = RecordingEffects(active="old")
        self.limits = Limits()
        self.owed: list[PlanStep] = []
        self.fallback = ""
        self.hold("old")

    # What there is

    def hold(self, model_id: str) -> str:
        """Load a model as if it had been there all the time."""
        request = LoadRequest(str(uuid.uuid4()), model_id, Path(f"{model_id}.gguf"), HELD)
        list(self.null.load(request, lambda: False))
        self.effects.models[request.instance_id] = model_id
        return request.instance_id

    @property
    def held(self) -> list[str]:
        """Models that are loaded and alive."""
        return sorted(one.model_id for one in self.world.instances.values() if one.is_alive)

    @property
    def calls(self) -> list[str]:
        """What was caused."""
        return self.effects.calls

    def instance(self, model_id: str) -> RunningInstance:
        """The one instance of a model."""
        return next(one for one in self.world.instances.values() if one.model_id == model_id)

    def loaded(self, *model_ids: str) -> tuple[LoadedModel, ...]:
        """Loaded models as a plan knows them."""
        return tuple(
            LoadedModel(
                self.instance(model_id).instance_id,
                model_id,
                model_id.capitalize(),
                HELD,
                0.0,
                is_active=model_id == self.effects.active,
                reload_seconds=3.0,
            )
            for model_id in model_ids
        )

    # Plans

    def switch(
        self,
        *evicted: str,
        target: str = "new",
        kind: JobKind = JobKind.SWITCH,
        order: LoadOrder = LoadOrder.FREE_FIRST,
        devices: tuple[str, ...] = (),
    ) -> SwitchPlan:
        """Load the target in place of the evicted (without any: of `old`)."""
        models = self.loaded(*(evicted or ("old",)))
        return self._plan(kind, target, models, self._in_order(order, target, models), order, devices)

    def preload(self, target: str = "new") -> SwitchPlan:
        """Load the target beside what is there."""
        return self._plan(JobKind.PRELOAD, target, (), load_steps(target))

    def call(self, *evicted: str, target: str = "new") -> SwitchPlan:
        """Call the target, which is loaded for that unless it is there."""
        models = self.loaded(*evicted)
        steps = [] if target in self.held else self._in_order(LoadOrder.FREE_FIRST, target, models)
        return self._plan(JobKind.CALL, target, models, [*steps, step(StepKind.CALL, target)])

    def unload(self, *evicted: str) -> SwitchPlan:
        """Unload models and load none."""
        models = self.loaded(*evicted)
        kind = JobKind.UNLOAD if len(models) == 1 else JobKind.UNLOAD_ALL
        return self._plan(kind, "", models, unload_steps(models))

    def activate(self, target: str) -> SwitchPlan:
        """Switch to a model that is loaded."""
        return self._plan(JobKind.SWITCH, target, (), [])

    @staticmethod
    def _in_order(order: LoadOrder, target: str, models: Sequence[LoadedModel]) -> list[PlanStep]:
        if order == LoadOrder.LOAD_FIRST:
            return [*load_steps(target), *unload_steps(models)]
        return [*unload_steps(models), *load_steps(target)]

    @staticmethod
    def _plan(
        kind: JobKind,
        target: str,
        evicted: tuple[LoadedModel, ...],
        steps: Sequence[PlanStep],
        order: LoadOrder = LoadOrder.FREE_FIRST,
        devices: tuple[str, ...] = (),
    ) -> SwitchPlan:
        loads = any(one.kind == StepKind.LOAD for one in steps)
        return SwitchPlan(
            kind=kind,
            target_id=target,
            target_name=target.capitalize() if target else "all models",
            steps=tuple(steps),
            evicted=evicted,
            needed_bytes=HELD if loads else 0,
            free_bytes=4 * GB,
            freed_bytes=sum(model.held_bytes for model in evicted),
            total_bytes=TOTAL,
            load_time=TimeRange(2.0, 1.0, 3.0, 2) if loads else NOTHING,
            order=order,
            devices=devices,
        )

    # Running

    def run(self, plan: SwitchPlan | None = None) -> Outcome:
        """Carry a plan out; the plain switch from `old` to `new` when none is given."""
        return run_plan(
            plan or self.switch(),
            self.runtime,
            self.effects,
            self.limits,
            owed=self.owed,
            fallback=self.fallback,
            fallback_name=self.fallback.capitalize(),
        )

    def cancel_at(self, text: str) -> None:
        """Somebody cancels as soon as this is told. A first token takes its time then: one that comes at once is not announced."""
        self.world.verify_seconds = 0.3
        self.effects.cancel_when = lambda: any(text in report.text for report in self.effects.reports)

    def when_unloading(self, action: Callable[[str], None]) -> None:
        """Do something in the place of unloading; it is given the instance's id."""
        self.null.unload = action  # type: ignore[method-assign,assignment]


def step(kind: StepKind, model_id: str, instance_id: str = "") -> PlanStep:
    """One step, expected to take a second."""
    return PlanStep(kind, model_id, model_id.capitalize(), instance_id, 1.0)


def load_steps(target: str) -> list[PlanStep]:
    """What it takes to load."""
    return [step(StepKind.LOAD, target), step(StepKind.VERIFY, target)]


def unload_steps(models: Sequence[LoadedModel]) -> list[PlanStep]:
    """All drained, all unloaded, then the memory; nothing for nothing."""
    return [
        *(step(StepKind.DRAIN, model.model_id, model.instance_id) for model in models),
        *(step(StepKind.UNLOAD, model.model_id, model.instance_id) for model in models),
        *([PlanStep(StepKind.FREE, "", "", "", 0.3)] if models else []),
    ]
