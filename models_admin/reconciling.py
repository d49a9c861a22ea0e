"""One runtime: its records compared with what it really holds. Reality wins.

A process is only ended when the runtime itself proves it ours and no record wants it. What somebody else loaded past Gantry is
shown and used, and never ended or fought over.
"""

from __future__ import annotations

import uuid
from datetime import datetime

import structlog
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from gantry import live
from gantry.planning.states import ACTIVE_STATES, InstanceState
from gantry.runtimes.base import AvailableModel, RunningInstance
from gantry.runtimes.base import Runtime as Adapter
from gantry.runtimes.exceptions import RuntimeFault
from models_admin import audit, crashes, memory, server_models
from models_admin.actor import SYSTEM
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, Runtime, SwitchJob
from models_admin.recovery_report import RecoveryReport
from models_admin.usage import note_use

log = structlog.get_logger(__name__)


class RuntimeReconciler:
    """Puts the records of one runtime right, and tells `report` what it did."""

    def __init__(self, row: Runtime, adapter: Adapter, report: RecoveryReport) -> None:
        self._row = row
        self._adapter = adapter
        self._report = report

    def run(self) -> None:
        """Look once and mend. A runtime that cannot be asked, or that a job is changing, is left as it is."""
        began_at = timezone.now()
        known = {str(record.instance_id): record for record in self._row.instances.select_related("model")}
        try:
            found = {instance.instance_id: instance for instance in self._adapter.running()}
        except RuntimeFault as exc:
            log.warning("runtime_unreadable", runtime=self._row.name, reason=str(exc))
            return
        if _was_disturbed(self._row.pool, began_at):
            return
        # What is gone makes room first: for the next one to be active, and for another load of the same model.
        for instance_id, record in known.items():
            self._mend(record, found.get(instance_id))
        for instance_id, instance in found.items():
            if instance_id not in known:
                self._meet(instance)

    def _mend(self, record: ModelInstance, instance: RunningInstance | None) -> None:
        if record.state == InstanceState.CRASHED:
            return
        is_alive = instance is not None and instance.is_alive
        if record.is_external and (not is_alive or record.state != InstanceState.LOADED):
            self._mend_external(record, is_alive=is_alive)
        elif record.state != InstanceState.LOADED:
            self._clear(record)  # half loaded or half unloaded, and no job is at work on it: whoever did it is gone
        elif instance is not None and instance.is_alive:
            if instance.is_ready:  # else it lives and does not answer at this moment: busy is not dead
                self._refresh(record, instance)
        elif instance is None and not self._adapter.capabilities.owns_processes:
            self._drop(record)  # the server is somebody else's, and so are its other clients
        elif crashes.note_crash(record, instance):
            self._note_crash(record.model)

    def _note_crash(self, model: ModelDefinition) -> None:
        self._report.crashed.append(model.name)
        model.refresh_from_db(fields=["paused_until"])
        if crashes.is_paused(model):
            self._report.paused.append(model.name)

    def _mend_external(self, record: ModelInstance, *, is_alive: bool) -> None:
        """Somebody else's: gone with them, or still there after a job of ours that did not come to unload it."""
        if not is_alive:
            self._drop(record)
        elif ModelInstance.objects.filter(pk=record.pk).update(state=InstanceState.LOADED):
            live.publish_models_changed([record.model.model_id], event_id=f"external-{uuid.uuid4()}")

    def _refresh(self, record: ModelInstance, instance: RunningInstance) -> None:
        try:
            busy = self._adapter.busy_count(instance.instance_id)
        except RuntimeFault:
            busy = record.busy_count
        ModelInstance.objects.filter(pk=record.pk).update(
            pid=instance.pid,
            process_started_at=instance.started_at,
            base_url=instance.base_url,
            held_bytes=_held_bytes(instance, record.held_bytes),
            held_on=memory.held_on(instance.pid),
            is_asleep=instance.is_asleep,
            busy_count=busy,
        )
        if busy:
            note_use(record.model.model_id)
        if (busy, instance.is_asleep) != (record.busy_count, record.is_asleep):
            live.publish_models_changed([record.model.model_id], event_id=f"busy-{uuid.uuid4()}")

    def _clear(self, record: ModelInstance) -> None:
        """End what is left of a half-done load or unload, then drop the record."""
        if not self._end(str(record.instance_id), record.model.model_id):
            return
        with transaction.atomic():
            record.delete()
            live.publish_models_changed([record.model.model_id], event_id=f"clear-{record.instance_id}")
        self._report.cleared.append(record.model.name)

    def _drop(self, record: ModelInstance) -> None:
        """Somebody else unloaded it: it is not there any more, and nothing went wrong."""
        with transaction.atomic():
            gone, _ = ModelInstance.objects.filter(pk=record.pk, state=record.state).delete()
            if not gone:
                return
            audit.write(audit.AuditEvent.MODEL_EXTERNAL_UNLOAD, actor=SYSTEM, object_text=record.model.name)
            live.publish_models_changed([record.model.model_id], event_id=f"drop-{record.instance_id}")
        log.info("model_unloaded_elsewhere", model=record.model.model_id, runtime=self._row.name)
        self._report.dropped.append(record.model.name)

    def _meet(self, instance: RunningInstance) -> None:
        """Something without a record: what others loaded is shown, our own that we know is adopted, the rest of ours ended."""
        if not instance.is_alive:
            self._adapter.forget(instance.instance_id)
        elif instance.is_external:
            self._show_external(instance)
        elif (model := self._adoptable(instance)) is not None:
            self._adopt(model, instance)
        else:
            log.warning("orphan_ended", model=instance.model_id, pid=instance.pid)
            if self._end(instance.instance_id, instance.model_id):
                self._report.cleared.append(instance.model_id)

    def _adoptable(self, instance: RunningInstance) -> ModelDefinition | None:
        model = self._row.definitions.filter(model_id=instance.model_id).first()
        is_wanted = model and instance.is_ready and not ModelInstance.objects.filter(model=model).exists()
        return model if is_wanted else None

    def _adopt(self, model: ModelDefinition, instance: RunningInstance) -> None:
        with transaction.atomic():
            self._record(model, instance)
            audit.write(audit.AuditEvent.MODEL_ADOPT, actor=SYSTEM, object_text=model.name, after={"pid": instance.pid})
        log.info("model_adopted", model=model.model_id, pid=instance.pid)
        self._report.adopted.append(model.name)

    def _show_external(self, instance: RunningInstance) -> None:
        """Take in what somebody else loaded, once it can answer; a model that nobody has defined is defined."""
        if not instance.is_ready:
            return
        model = server_models.model_named(self._row, instance.model_id)
        model = model or server_models.define(self._row, AvailableModel(instance.model_id))
        if model is None:  # what it holds is shown as other programs' memory
            return
        with transaction.atomic():
            # A dead one of ours makes way; another one that lives is told of by its own record.
            ModelInstance.objects.filter(model=model, state=InstanceState.CRASHED).delete()
            if ModelInstance.objects.filter(model=model).exists():
                log.warning("loaded_twice", model=model.model_id, runtime=self._row.name)
                return
            record = self._record(model, instance)
            audit.write(
                audit.AuditEvent.MODEL_EXTERNAL,
                actor=SYSTEM,
                object_text=model.name,
                after={"runtime": self._row.name, "is_active": record.is_active},
            )
        log.info("model_loaded_elsewhere", model=model.model_id, runtime=self._row.name)
        self._report.external.append(model.name)

    def _record(self, model: ModelDefinition, instance: RunningInstance) -> ModelInstance:
        """A record of a model that is loaded; the active one when none is. Inside a transaction."""
        record = ModelInstance.objects.create(
            instance_id=instance.instance_id,
            model=model,
            runtime=self._row,
            state=InstanceState.LOADED,
            is_active=not ModelInstance.objects.filter(is_active=True).exists(),
            is_external=instance.is_external,
            is_asleep=instance.is_asleep,
            base_url=instance.base_url,
            api_key=instance.api_key,
            pid=instance.pid,
            process_started_at=instance.started_at,
            held_bytes=_held_bytes(instance, 0),
            held_on=memory.held_on(instance.pid),
            loaded_at=timezone.now(),
        )
        live.publish_models_changed([model.model_id], event_id=f"meet-{instance.instance_id}")
        return record

    def _end(self, instance_id: str, model_id: str) -> bool:
        try:
            self._adapter.unload(instance_id)
            self._adapter.forget(instance_id)
        except RuntimeFault as exc:
            log.warning("leftover_not_ended", model=model_id, reason=str(exc))
            return False
        return True


def _held_bytes(instance: RunningInstance, otherwise: int) -> int:
    """What an instance holds; one that sleeps holds nothing."""
    return 0 if instance.is_asleep else memory.held_by(instance.pid, instance.memory_bytes) or otherwise


def _was_disturbed(pool: MemoryPool, since: datetime) -> bool:
    """Whether a job changed (or is changing) what is loaded while we looked: then the two views do not belong together.

    Asked after both were taken: a job is at work before it changes anything, so none can be missed.
    """
    jobs = SwitchJob.objects.filter(pool=pool)
    return jobs.filter(Q(state__in=ACTIVE_STATES) | Q(finished_at__gte=since)).exists()
