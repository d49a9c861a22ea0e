"""What Gantry does by itself, as the switch policy and each model say: restart what crashed, unload what nobody uses, load at start.

Each is a job in the system's own name: planned, shown, audited and cancellable like any other.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from gantry.planning.states import SERVING_KINDS, InstanceState, JobKind, JobState
from models_admin import crashes, job_moves, job_requests
from models_admin.actor import SYSTEM
from models_admin.exceptions import ActionRefused
from models_admin.models import MemoryPool, ModelDefinition, ModelInstance, SwitchJob, SwitchPolicy
from models_admin.plans import Wish

log = structlog.get_logger(__name__)


def keep_up(host: str) -> list[SwitchJob]:
    """Begin what is due on a host whose records are true: at most one job for each pool, and none while another is unfinished."""
    jobs = []
    for pool in MemoryPool.objects.filter(host=host):
        if SwitchJob.objects.unfinished().filter(pool=pool).exists():
            continue
        job = _restart_crashed(pool) or _unload_idle(pool)
        if job:
            jobs.append(job)
    return jobs


def load_at_start(host: str) -> SwitchJob | None:
    """Load what policy wants when Gantry starts, if nothing serves anywhere and nothing is held or under way on this host."""
    model = _wanted_at_start()
    if model is None or model.runtime.pool.host != host or crashes.is_paused(model):
        return None
    held = ModelInstance.objects.filter(runtime__pool__host=host).exclude(state=InstanceState.CRASHED)
    serves = ModelInstance.objects.filter(is_active=True)
    unfinished = SwitchJob.objects.unfinished().filter(pool__host=host)
    if held.exists() or serves.exists() or unfinished.exists():
        return None
    return _ask(JobKind.SWITCH, model, f"Gantry has started: {model.name} is loaded, as the policy says")


def last_served() -> ModelDefinition | None:
    """The model that a switch or a restart last made the active one."""
    jobs = _serving_jobs().filter(target__isnull=False).select_related("target__runtime__pool")
    job = jobs.order_by("-finished_at", "-id").first()
    return job.target if job else None


def _serving_jobs() -> QuerySet[SwitchJob]:
    """Those that have made their target the active model."""
    return SwitchJob.objects.filter(kind__in=SERVING_KINDS, state=JobState.SUCCEEDED)


def _wanted_at_start() -> ModelDefinition | None:
    policy = SwitchPolicy.current()
    if policy.load_at_start == SwitchPolicy.AtStart.LAST:
        return last_served()
    return policy.default_model if policy.load_at_start == SwitchPolicy.AtStart.DEFAULT else None


def _restart_crashed(pool: MemoryPool) -> SwitchJob | None:
    """Load the model again that served and died, unless another one serves by now."""
    if not SwitchPolicy.current().restart_crashed or ModelInstance.objects.filter(is_active=True).exists():
        return None
    dead = _died_serving()
    if dead is None or dead.runtime.pool_id != pool.pk or crashes.is_paused(dead.model):
        return None
    return _ask(JobKind.RESTART, dead.model, f"{dead.model.name} has crashed and is loaded again, as the policy says")


def _died_serving() -> ModelInstance | None:
    """What is left of the model that served last, when it crashed and no job has made another one active since.

    Goes by what served, not by what somebody switched to: a way back that fails ends in the default model.
    """
    crashed = ModelInstance.objects.filter(state=InstanceState.CRASHED, served_until__isnull=False)
    dead = crashed.select_related("runtime", "model__runtime__pool").order_by("-served_until").first()
    if dead is None or _serving_jobs().filter(finished_at__gt=dead.served_until).exists():
        return None
    return dead


def _unload_idle(pool: MemoryPool) -> SwitchJob | None:
    """Unload the model that has been idle for longer than its definition allows; the one idle longest first."""
    now = timezone.now()
    loaded = ModelInstance.objects.filter(
        runtime__pool=pool,
        state=InstanceState.LOADED,
        is_external=False,  # others decide about theirs
        busy_count=0,
        model__is_pinned=False,
        model__idle_minutes__isnull=False,
    )
    idle = [row for row in loaded.select_related("model__runtime__pool") if _is_idle(row, now)]
    if not idle:
        return None
    model = min(idle, key=_used_at).model
    return _ask(JobKind.UNLOAD, model, f"{model.name} was not used for {model.idle_minutes} min and is unloaded")


def _is_idle(row: ModelInstance, now: datetime) -> bool:
    return now - _used_at(row) >= timedelta(minutes=row.model.idle_minutes or 0)


def _used_at(row: ModelInstance) -> datetime:
    """When it was last of use: it was loaded for somebody, too."""
    return max(row.loaded_at or row.created_at, row.model.last_used_at or row.created_at)


def _ask(kind: JobKind, model: ModelDefinition, why: str) -> SwitchJob | None:
    """A job whose story begins with the reason; None when it cannot be done now."""
    try:
        with transaction.atomic():
            decision = job_requests.request(Wish(kind, model.runtime.pool, model), actor=SYSTEM)
            if decision.status != "accepted" or decision.job is None:
                return None
            job_moves.record_event(decision.job, text=why)
    except ActionRefused as exc:
        log.debug("upkeep_refused", kind=kind, model=model.model_id, reason=str(exc))
        return None
    log.info("upkeep", kind=kind, model=model.model_id, job=decision.job.pk)
    return decision.job
