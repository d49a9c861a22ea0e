"""What the engine causes, in the database and live: rows of instances, the job's events, the ledger of loads."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from gantry import live
from gantry.engine.effects import LoadMeasure, StepReport
from gantry.hardware.base import MemoryUnreadable
from gantry.planning.states import ErrorCode, InstanceState, JobState, StepState
from gantry.planning.types import PlanStep
from gantry.runtimes.base import LoadRequest, RunningInstance
from gantry.runtimes.exceptions import RuntimeFault
from models_admin import calling, catalog, job_moves, memory, specs
from models_admin.models import LoadRecord, ModelDefinition, ModelInstance, SwitchJob
from models_admin.runtime_access import model_limit

# Progress within a step is told at most this often: pages are rendered for it while the load needs the processor.
REPORT_SECONDS = 0.4
_FIELDS_OF_LOADED = [
    "state",
    "base_url",
    "api_key",
    "pid",
    "process_started_at",
    "held_bytes",
    "held_on",
    "loaded_at",
]
CANCEL_LOOK_SECONDS = 0.2  # how often the row is asked whether to cancel


class DatabaseEffects:
    """Effects of one job. Implements `gantry.engine.effects.Effects`."""

    def __init__(self, job: SwitchJob) -> None:
        self._job = job
        self._begun: set[int] = set()  # steps that have been told of
        self._entering: JobState | None = None
        self._told_at = 0.0
        self._told: tuple[Any, ...] = ()
        self._looked_at = time.monotonic()  # by whoever claimed it
        self._is_cancelled = job.cancel_requested_at is not None
        self._free_before = 0
        self._active_before = set(
            ModelInstance.objects.filter(is_active=True).values_list("model__model_id", flat=True)
        )

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def is_cancelled(self) -> bool:
        """Whether somebody asked for the job to be cancelled, or it was ended from outside."""
        now = time.monotonic()
        if not self._is_cancelled and now - self._looked_at >= CANCEL_LOOK_SECONDS:
            self._looked_at = now
            row = SwitchJob.objects.filter(pk=self._job.pk).values_list("cancel_requested_at", "finished_at").first()
            self._is_cancelled = row is None or any(row)
        return self._is_cancelled

    def is_superseded(self) -> bool:
        """Whether another job takes over from this one."""
        return SwitchJob.objects.filter(pk=self._job.pk, superseded_by__isnull=False).exists()

    def enter(self, state: JobState) -> None:
        """The job goes into a state: kept and told with its next report, which comes at once or with more to tell."""
        self._entering = state

    def add_steps(self, steps: Sequence[PlanStep]) -> None:
        """The plan grew."""
        self._job.steps = [*self._job.steps, *(new_step(step) for step in steps)]

    def report(self, report: StepReport) -> None:
        """A step moved: kept in the job's row and told to every page, progress within a step only now and then."""
        now = time.monotonic()
        begins_or_ends = report.state != StepState.RUNNING or report.index not in self._begun
        sign = (report.index, report.state, int(report.percent), report.text)
        if not begins_or_ends and (now - self._told_at < REPORT_SECONDS or sign == self._told):
            return
        self._told_at, self._told = now, sign
        self._note_step(report)
        entering, self._entering = self._entering, None
        job_moves.record_event(
            self._job,
            state=entering,
            text=report.text,
            step_kind=self._job.steps[report.index]["kind"],
            percent=report.percent,
            eta_seconds=report.eta_seconds,
            bytes_done=report.bytes_done,
            bytes_total=report.bytes_total,
            steps=self._job.steps,
        )

    def _note_step(self, report: StepReport) -> None:
        step = self._job.steps[report.index]
        if report.index not in self._begun:
            self._begun.add(report.index)
            step["started_at"] = (timezone.now() - timedelta(seconds=report.seconds)).isoformat()
        step["state"] = report.state.value
        step["seconds"] = round(report.seconds, 3)
        step["percent"] = 100.0 if report.state == StepState.DONE else round(min(99.0, report.fraction * 100), 1)
        if report.bytes_total:
            step["bytes_done"], step["bytes_total"] = report.bytes_done, report.bytes_total
        if report.state == StepState.DONE and step["bytes_total"]:
            step["bytes_done"] = step["bytes_total"]

    def load_request(self, model_id: str) -> LoadRequest:
        """What to ask the runtime for."""
        target = self._job.target  # read when the job was claimed
        if target is not None and target.model_id == model_id:
            model = target
        else:
            model = ModelDefinition.objects.with_runtime().get(model_id=model_id)
        parameters, devices = self._how_to_load(model)
        return LoadRequest(
            instance_id=str(uuid.uuid4()),
            model_id=model_id,
            path=catalog.resolve_path(model),
            file_bytes=model.size_bytes,
            parameters=parameters,
            extra_args=model.extra_args,
            chat_template=model.chat_template,
            is_embedding=model.is_embedding,
            devices=devices,
        )

    def _how_to_load(self, model: ModelDefinition) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Parameters and devices: the job's own for the target; for what is put back, those it was loaded with and on."""
        if model.pk == self._job.target_id:
            parameters = specs.parameters_for(model, self._job.options.get("context"))
            return parameters, tuple(self._job.plan.get("devices", ()))
        before: dict[str, Any] = next(
            (entry for entry in self._job.unloaded if entry["model_id"] == model.model_id), {}
        )
        parameters = before.get("parameters") or specs.parameters_for(model)
        return parameters, tuple(before.get("devices") or model.devices)

    def instance_loading(self, request: LoadRequest) -> None:
        """Write the record before the process exists."""
        model = ModelDefinition.objects.get(model_id=request.model_id)
        self._free_before = self.free_bytes() if self._shows_what_is_taken else 0
        with transaction.atomic():
            ModelInstance.objects.filter(model=model).delete()
            ModelInstance.objects.create(
                instance_id=request.instance_id,
                model=model,
                runtime=model.runtime,
                state=InstanceState.LOADING,
                parameters=dict(request.parameters),
            )
            # Where a server is full now, no other model of it can be loaded beside what it holds.
            self._models_changed(*(() if model_limit(model.runtime) is not None else (request.model_id,)))

    def instance_loaded(self, instance: RunningInstance, measure: LoadMeasure) -> None:
        """It is verified: keep how to reach it, and what the load took."""
        measured = memory.held_by(instance.pid, instance.memory_bytes) or self._taken_from_pool()
        held_bytes = measured or self._reckoned(instance.model_id)
        held_on = memory.held_on(instance.pid)
        with transaction.atomic():
            row = ModelInstance.objects.select_related("model").get(instance_id=instance.instance_id)
            row.state = InstanceState.LOADED
            row.base_url, row.api_key = instance.base_url, instance.api_key
            row.pid, row.process_started_at = instance.pid, instance.started_at
            row.held_bytes, row.held_on = held_bytes, held_on
            row.loaded_at = timezone.now()
            row.save(update_fields=_FIELDS_OF_LOADED)
            self._keep_unloaded([entry for entry in self._job.unloaded if entry["model_id"] != row.model.model_id])
            LoadRecord.objects.create(
                model=row.model,
                parameters_hash=specs.parameters_hash(row.model, row.parameters),
                host=self._job.pool.host,
                held_bytes=measured,
                file_bytes=row.model.size_bytes,
                load_seconds=measure.seconds,
                reading_seconds=measure.reading_seconds,
                verify_seconds=measure.verify_seconds,
                at_quarter_seconds=measure.at_quarter_seconds,
                expected_seconds=_expected_load(self._job, row.model.model_id),
            )
            self._models_changed(row.model.model_id)

    def instance_unloading(self, instance_id: str) -> None:
        """Nothing new may be sent to it; the job remembers what it takes away, so that it can be put back by whoever comes after."""
        with transaction.atomic():
            row = ModelInstance.objects.select_related("model").filter(instance_id=instance_id).first()
            if row and row.model_id != self._job.target_id:
                entry = {
                    "model_id": row.model.model_id,
                    "name": row.model.name,
                    "was_active": row.is_active,
                    "parameters": row.parameters,
                    "devices": list(row.held_on),
                    "held_bytes": row.held_bytes,
                }
                self._keep_unloaded([*self._job.unloaded, entry])
            ModelInstance.objects.filter(instance_id=instance_id).update(state=InstanceState.UNLOADING, is_active=False)
            self._models_changed()

    def instance_kept(self, instance_id: str) -> None:
        """It would not be unloaded and still answers: as before, also in that it is the active one if it was."""
        with transaction.atomic():
            row = ModelInstance.objects.select_related("model").filter(instance_id=instance_id).first()
            if row is None:
                return
            was_active = self.was_active(row.model.model_id)
            self._keep_unloaded([entry for entry in self._job.unloaded if entry["model_id"] != row.model.model_id])
            others = ModelInstance.objects.filter(is_active=True).exclude(pk=row.pk)
            ModelInstance.objects.filter(pk=row.pk).update(
                state=InstanceState.LOADED, is_active=was_active and not others.exists()
            )
            self._models_changed(row.model.model_id)

    def instance_gone(self, instance_id: str) -> None:
        """Drop the record."""
        with transaction.atomic():
            ModelInstance.objects.filter(instance_id=instance_id).delete()
            self._models_changed()
        memory.refresh_pool(self._job.pool)  # the memory bar loses its segment: its figures must go with it

    def activate(self, model_id: str) -> None:
        """From now on this model is the one that serves."""
        with transaction.atomic():
            ModelInstance.objects.filter(is_active=True).exclude(model__model_id=model_id).update(is_active=False)
            ModelInstance.objects.filter(model__model_id=model_id, state=InstanceState.LOADED).update(is_active=True)
            self._models_changed()

    def was_active(self, model_id: str) -> bool:
        """Whether this model was the one that served when the job began."""
        taken = {entry["model_id"] for entry in self._job.unloaded if entry["was_active"]}
        return model_id in self._active_before | taken

    def active_model(self) -> str:
        """The model that serves now, "" when none does."""
        ids = ModelInstance.objects.filter(is_active=True).values_list("model__model_id", flat=True)
        return ids.first() or ""

    def free_bytes(self, devices: Sequence[str] = ()) -> int:
        """Free memory of these devices, or of the job's whole pool, measured now."""
        try:
            reading = memory.read_pool(self._job.pool)
        except MemoryUnreadable as exc:
            raise RuntimeFault(str(exc), code=ErrorCode.MEMORY_UNREADABLE) from exc
        if not devices:
            return reading.free_bytes
        return sum(device.free_bytes for device in reading.devices if device.device_id in devices)

    def call(self, instance: RunningInstance, is_cancelled: Callable[[], bool]) -> None:
        """Make the one chat call of a call job and keep its answer."""
        answer = calling.make_call(self._job, instance, is_cancelled)
        self._job.result = answer
        self._job.save(update_fields=["result"])

    def _taken_from_pool(self) -> int:
        """What the load took, where the memory itself shows it: on GPUs, whoever's process it is."""
        return max(0, self._free_before - self.free_bytes()) if self._shows_what_is_taken else 0

    @property
    def _shows_what_is_taken(self) -> bool:
        return self._job.pool.kind == "nvml"

    def _reckoned(self, model_id: str) -> int:
        """What it was reckoned to take, or held before it was unloaded: better than nothing where nobody can look."""
        if self._job.plan.get("target_id") == model_id:
            return int(self._job.plan.get("needed_bytes", 0))
        return next((entry.get("held_bytes", 0) for entry in self._job.unloaded if entry["model_id"] == model_id), 0)

    def _keep_unloaded(self, entries: list[dict[str, Any]]) -> None:
        if entries != self._job.unloaded:
            self._job.unloaded = entries
            self._job.save(update_fields=["unloaded"])

    def _models_changed(self, *model_ids: str) -> None:
        live.publish_models_changed(model_ids, event_id=f"models-{uuid.uuid4()}")


def new_step(step: PlanStep) -> live.StepSnapshot:
    """A step that has not begun."""
    return {
        "kind": step.kind.value,
        "model_id": step.model_id,
        "model_name": step.model_name,
        "state": StepState.PENDING.value,
        "percent": 0.0,
        "expected_seconds": round(step.expected_seconds, 2),
        "started_at": None,
        "seconds": None,
        "bytes_done": None,
        "bytes_total": None,
    }


def _expected_load(job: SwitchJob, model_id: str) -> float:
    steps = job.plan.get("steps", [])
    return next((s["expected_seconds"] for s in steps if s["kind"] == "load" and s["model_id"] == model_id), 0.0)
