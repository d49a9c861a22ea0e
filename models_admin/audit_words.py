"""Audit entries as sentences: "ann switched SmolLM2 → Gemma 3 from the Models tab · 14 s · succeeded"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models_admin.audit import AuditEvent
from models_admin.job_view import VIA_WORDS
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
    AuditEvent.RUNTIME_DELETE: "deleted the runtime {object}",
    AuditEvent.POLICY_CHANGE: "changed the switch policy",
    AuditEvent.RECOVERY: "asked for a recovery on {object}",
    AuditEvent.SIGN_IN: "signed in",
    AuditEvent.SIGN_OUT: "signed out",
    AuditEvent.SIGN_IN_UNLOCKED: "let {object} sign in again before the pause was over",
    AuditEvent.USER_CREATE: "added the user {object}",
    AuditEvent.USER_CHANGE: "changed the user {object}",
    AuditEvent.USER_DELETE: "deleted the user {object}",
    AuditEvent.GROUP_CREATE: "added the group {object}",
    AuditEvent.GROUP_CHANGE: "changed the group {object}",
    AuditEvent.GROUP_DELETE: "deleted the group {object}",
    AuditEvent.AUDIT_EXPORT: "exported audit entries",
    AuditEvent.AUDIT_ARCHIVE: "archived audit entries to {object}",
    AuditEvent.AUDIT_SIGN: "signed the end of the audit chain",
    AuditEvent.KEY_CREATE: "made the key {object}",
    AuditEvent.KEY_REVOKE: "revoked the key {object}",
    AuditEvent.MODEL_ASK: "asked operators for {object}",
    AuditEvent.MODEL_ASK_APPROVE: "switched to {object} for {asked_by}",
    AuditEvent.MODEL_ASK_DECLINE: "declined {object} to {asked_by}",
    AuditEvent.MODEL_ASK_WITHDRAW: "no longer asks for {object}",
    AuditEvent.MODEL_ASK_EXPIRE: "let a request for {object} by {asked_by} lapse, which nobody answered",
    AuditEvent.WEB_RESTART: "restarted the web server",
}
# A job that ended well, and one that failed.
_JOB_VERBS = {
    "switch": ("switched {from_to}", "tried to switch {from_to}"),
    "unload": ("unloaded {object}", "tried to unload {object}"),
    "unload_all": ("unloaded {object}", "tried to unload {object}"),
    "restart": ("restarted {object}", "tried to restart {object}"),
    "preload": ("loaded {object} in the background", "tried to load {object} in the background"),
    "call": ("made one call to {object}", "tried to make one call to {object}"),
}
_JOB_NOUNS = {
    "switch": "The switch {from_to}",
    "unload": "The unload of {object}",
    "unload_all": "The unload of {object}",
    "restart": "The restart of {object}",
    "preload": "The background load of {object}",
    "call": "The call to {object}",
}
_OF_MODELS = ("model:", "job:")
_ELSEWHERE = {**VIA_WORDS, "page": "in the admin", "system": ""}


def audit_sentence(entry: AuditEntry) -> str:
    """What an entry tells: who did what."""
    if entry.event == AuditEvent.JOB_END:
        return _job_end(entry)
    if entry.event == AuditEvent.JOB_ROLLBACK:
        return _rollback(entry)
    if entry.event in {AuditEvent.SIGN_IN_FAILED, AuditEvent.SIGN_IN_LOCKED}:
        return _refused_sign_in(entry)
    if entry.event == AuditEvent.MODEL_PIN:
        pattern = "pinned {object}" if _after(entry).get("is_pinned") else "unpinned {object}"
    else:
        pattern = _SENTENCES.get(entry.event, f"{entry.event} {{object}}")
    return f"{who(entry)} {_filled(pattern, entry)}"


def who(entry: AuditEntry) -> str:
    """Whoever did it, as the subject of a sentence."""
    if entry.actor_id is None and entry.actor_name == "system":
        return "The command line" if entry.via == "command" else "Gantry"
    return entry.actor_name


def through_words(entry: AuditEntry) -> str:
    """Through what, as the end of the sentence; empty where the sentence says it already."""
    if entry.actor_id is None and entry.via in {"system", "command"}:
        return ""
    if entry.event.startswith("user:session:"):
        return ""
    if entry.event.startswith("key:") and entry.via == "page":
        return "on the page of API keys"
    words = VIA_WORDS if entry.event.startswith(_OF_MODELS) else _ELSEWHERE
    return words.get(entry.via, entry.via)


def took_words(entry: AuditEntry) -> str:
    """How long it took, where it took time."""
    took = _after(entry).get("seconds")
    return seconds(took) if isinstance(took, int | float) else ""


def event_words(event: str) -> str:
    """A kind of event for a list of choices: "asked for a switch"."""
    special = {
        AuditEvent.JOB_END: "ended a job",
        AuditEvent.JOB_ROLLBACK: "put models back",
        AuditEvent.MODEL_PIN: "pinned or unpinned a model",
        AuditEvent.SIGN_IN_FAILED: "failed to sign in",
        AuditEvent.SIGN_IN_LOCKED: "was kept from signing in",
        AuditEvent.SIGN_IN_UNLOCKED: "let somebody sign in again",
        AuditEvent.MODEL_PAUSE: "paused a model that keeps crashing",
        AuditEvent.CALL_REQUEST: "asked for one call to a model",
        AuditEvent.USER_CREATE: "added a user",
        AuditEvent.USER_CHANGE: "changed a user",
        AuditEvent.USER_DELETE: "deleted a user",
        AuditEvent.GROUP_CREATE: "added a group",
        AuditEvent.GROUP_CHANGE: "changed a group",
        AuditEvent.GROUP_DELETE: "deleted a group",
        AuditEvent.RUNTIME_CREATE: "added a runtime",
        AuditEvent.RUNTIME_CHANGE: "changed a runtime",
        AuditEvent.MODELS_IMPORT: "imported models",
        AuditEvent.MODELS_SCAN: "scanned a folder",
        AuditEvent.AUDIT_ARCHIVE: "archived audit entries",
        AuditEvent.RECOVERY: "asked for a recovery",
        AuditEvent.KEY_CREATE: "made a key",
        AuditEvent.KEY_REVOKE: "revoked a key",
        AuditEvent.MODEL_ASK_APPROVE: "switched for somebody who had asked",
        AuditEvent.MODEL_ASK_EXPIRE: "let a request lapse that nobody answered",
        AuditEvent.MODEL_ASK_DECLINE: "declined what somebody had asked for",
    }
    words = special.get(event) or _SENTENCES.get(event, event.replace(":", " "))  # type: ignore[call-overload]
    return str(words).replace("the model {object}", "a model").replace("{object}", "a model")


def _job_end(entry: AuditEntry) -> str:
    kind = str(_after(entry).get("kind", ""))
    verbs = _JOB_VERBS.get(kind, ("ended the job for {object}", "tried to do the job for {object}"))
    if entry.outcome == "succeeded":
        return f"{who(entry)} {_filled(verbs[0], entry)}"
    if entry.outcome == "failed":
        return f"{who(entry)} {_filled(verbs[1], entry)}"
    noun = _filled(_JOB_NOUNS.get(kind, "The job for {object}"), entry)
    return f"{noun} was {entry.outcome}" if entry.outcome else f"{noun} ended"


def _rollback(entry: AuditEntry) -> str:
    aftermath = str(_after(entry).get("aftermath") or "").rstrip(".")
    did = f"{who(entry)} cleaned up after the job for {entry.object_text}"
    return f"{did}: {aftermath}" if aftermath else did


def _refused_sign_in(entry: AuditEntry) -> str:
    if entry.event == AuditEvent.SIGN_IN_LOCKED:
        return f"Too many failed sign-ins as {entry.object_text}: sign-in is paused"
    return f"Somebody failed to sign in as {entry.object_text}"


def _filled(pattern: str, entry: AuditEntry) -> str:
    before = entry.before.get("active") if isinstance(entry.before, dict) else ""
    name = entry.object_text
    from_to = f"{before} → {name}" if before and before != name else f"to {name}"
    asked_by = _after(entry).get("asked_by", "somebody")
    return pattern.format(object=name, from_to=from_to, asked_by=asked_by)


def _after(entry: AuditEntry) -> dict[str, object]:
    return entry.after if isinstance(entry.after, dict) else {}
