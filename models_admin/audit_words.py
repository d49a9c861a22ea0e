"""Audit entries as sentences: "ann asked for a switch to Gemma 3"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models_admin.audit import AuditEvent
from models_admin.templatetags.gantry_format import seconds

if TYPE_CHECKING:
    from models_admin.models import AuditEntry

_SENTENCES: dict[str, str] = {
    AuditEvent.SWITCH_REQUEST: "asked for a switch to {object}",
    AuditEvent.UNLOAD_REQUEST: "asked to unload {object}",
    AuditEvent.RESTART_REQUEST: "asked for a restart of {object}",
    AuditEvent.PRELOAD_REQUEST: "asked to load {object} in the background",
    AuditEvent.CALL_REQUEST: "asked for one call to {object}",
    AuditEvent.JOB_CANCEL: "cancelled the job for {object}",
    AuditEvent.MODEL_CREATE: "added the model {object}",
    AuditEvent.MODEL_CHANGE: "changed the model {object}",
    AuditEvent.MODEL_DELETE: "deleted the model {object}",
    AuditEvent.MODELS_IMPORT: "imported models from {object}",
    AuditEvent.MODELS_SCAN: "scanned {object}",
    AuditEvent.MODEL_CRASH: "noticed that {object} crashed",
    AuditEvent.MODEL_ADOPT: "took over the running {object}",
    AuditEvent.MODEL_EXTERNAL: "noticed that somebody else loaded {object}",
    AuditEvent.MODEL_EXTERNAL_UNLOAD: "noticed that somebody else unloaded {object}",
    AuditEvent.MODEL_PAUSE: "paused {object}, which keeps crashing",
    AuditEvent.RUNTIME_CREATE: "added the runtime {object}",
    AuditEvent.RUNTIME_CHANGE: "changed the runtime {object}",
    AuditEvent.POLICY_CHANGE: "changed the switch policy",
    AuditEvent.RECOVERY: "asked for a recovery on {object}",
}


def audit_sentence(entry: AuditEntry) -> str:
    """What an entry tells."""
    if entry.event == AuditEvent.JOB_END:
        return _job_end(entry)
    if entry.event == AuditEvent.MODEL_PIN:
        pattern = "pinned {object}" if entry.after.get("is_pinned") else "unpinned {object}"
    else:
        pattern = _SENTENCES.get(entry.event, f"{entry.event} {{object}}")
    return f"{entry.actor_name} {pattern.format(object=entry.object_text)}"


def _job_end(entry: AuditEntry) -> str:
    kind, took = entry.after.get("kind", ""), entry.after.get("seconds")
    noun = {
        "switch": "The switch to",
        "unload": "The unload of",
        "unload_all": "The unload of",
        "restart": "The restart of",
        "preload": "The load of",
        "call": "The call to",
    }.get(kind, "The job for")
    outcome = entry.outcome if entry.outcome in {"succeeded", "failed"} else f"was {entry.outcome}"
    after = f" after {seconds(took)}" if took is not None else ""
    return f"{noun} {entry.object_text} {outcome}{after}"
