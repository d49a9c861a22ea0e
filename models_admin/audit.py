"""Writing audit entries."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from models_admin.models import AuditEntry, SwitchJob

if TYPE_CHECKING:
    from models_admin.actor import Actor


class AuditEvent(StrEnum):
    """Everything that is written down: source:subject:action."""

    SWITCH_REQUEST = "model:switch:request"
    UNLOAD_REQUEST = "model:unload:request"
    RESTART_REQUEST = "model:restart:request"
    PRELOAD_REQUEST = "model:preload:request"
    CALL_REQUEST = "model:call:request"
    JOB_CANCEL = "job:cancel:request"
    JOB_END = "job:end"
    MODEL_PIN = "model:pin:change"
    MODEL_CREATE = "model:definition:create"
    MODEL_CHANGE = "model:definition:change"
    MODEL_DELETE = "model:definition:delete"
    MODELS_IMPORT = "model:file:import"
    MODELS_SCAN = "model:folder:scan"
    MODEL_CRASH = "model:process:crash"
    MODEL_ADOPT = "model:process:adopt"
    MODEL_EXTERNAL = "model:load:external"
    MODEL_EXTERNAL_UNLOAD = "model:unload:external"
    MODEL_PAUSE = "model:process:pause"
    RUNTIME_CREATE = "runtime:create"
    RUNTIME_CHANGE = "runtime:change"
    RUNTIME_DELETE = "runtime:delete"
    POLICY_CHANGE = "policy:change"
    RECOVERY = "recovery:request"
    JOB_ROLLBACK = "job:rollback:end"
    SIGN_IN = "user:session:start"
    SIGN_IN_FAILED = "user:session:fail"
    SIGN_IN_LOCKED = "user:session:lock"
    SIGN_IN_UNLOCKED = "user:session:unlock"
    SIGN_OUT = "user:session:end"
    USER_CREATE = "user:account:create"
    USER_CHANGE = "user:account:change"
    USER_DELETE = "user:account:delete"
    GROUP_CREATE = "group:create"
    GROUP_CHANGE = "group:change"
    GROUP_DELETE = "group:delete"
    AUDIT_EXPORT = "audit:entries:export"
    AUDIT_ARCHIVE = "audit:entries:archive"
    AUDIT_SIGN = "audit:chain:sign"
    KEY_CREATE = "key:create"
    KEY_REVOKE = "key:revoke"
    MODEL_ASK = "model:switch:ask"
    MODEL_ASK_APPROVE = "model:ask:approve"
    MODEL_ASK_DECLINE = "model:ask:decline"
    MODEL_ASK_WITHDRAW = "model:ask:withdraw"
    MODEL_ASK_EXPIRE = "model:ask:expire"
    WEB_RESTART = "runtime:web:restart"


def write(
    event: AuditEvent,
    *,
    actor: Actor,
    object_text: str,
    job: SwitchJob | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    outcome: str = "",
    name: str = "",
) -> AuditEntry:
    """Add one entry; call it in the transaction of the mutation it tells of.

    Args:
        name: of the actor, when it is nobody with an account.
    """
    return AuditEntry.objects.create(
        actor=actor.user,
        actor_name=name or actor.name,
        via=actor.via,
        address=actor.address,
        event=event,
        object_text=object_text,
        job=job,
        before=before or {},
        after=after or {},
        outcome=outcome,
    )


def stages(job: SwitchJob) -> list[dict[str, Any]]:
    """How long each step of a job took, in seconds; those that were not begun are left out."""
    return [
        {"step": step["kind"], "model": step["model_name"], "seconds": step["seconds"], "state": step["state"]}
        for step in job.steps
        if step["seconds"] is not None
    ]
