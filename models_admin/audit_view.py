"""Audit entries and the state of their chain as the review page shows them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from django.utils import timezone

from models_admin.audit import AuditEvent
from models_admin.audit_words import audit_sentence, event_words, through_words, took_words
from models_admin.models import AuditEntry, AuditHead, SwitchJob
from models_admin.templatetags.gantry_format import seconds

Tone = Literal["green", "amber", "red", "grey"]

_TONES: dict[str, Tone] = {
    "succeeded": "green",
    "failed": "red",
    "interrupted": "red",
    "cancelled": "amber",
    "superseded": "amber",
}
# Title of a group of events, and how their names begin.
_GROUPS = (
    ("Switches and loads", ("model:switch", "model:unload:request", "model:restart", "model:preload", "model:call", "job:")),
    ("By themselves", ("model:process", "model:load:external", "model:unload:external", "recovery:")),
    ("Models and settings", ("model:", "runtime:", "policy:")),
    ("People", ("user:", "group:", "key:", "request:")),
    ("Audit", ("audit:",)),
)  # fmt: skip
NOTHING = "–"
_SHOWN_APART = ("plan", "stages", "kind", "seconds")


@dataclass(frozen=True, slots=True)
class EntryView:
    """One line of the page: "ann switched SmolLM2 → Gemma 3 from the Models tab · 14 s · succeeded"."""

    entry: AuditEntry
    sentence: str
    through: str
    took: str
    tone: Tone
    job: SwitchJob | None  # None also when it was deleted

    @property
    def whole(self) -> str:
        """Sentence, time and outcome as one line."""
        said = " ".join(part for part in (self.sentence, self.through) if part)
        return " · ".join(part for part in (said, self.took, self.entry.outcome) if part)


@dataclass(frozen=True, slots=True)
class ChainView:
    """The state of the chain, as the last look through it found it."""

    words: str
    tone: Tone
    hint: str


@dataclass(frozen=True, slots=True)
class Change:
    """One value before and after."""

    name: str
    before: str
    after: str


def entry_view(entry: AuditEntry) -> EntryView:
    """The line of an entry."""
    return EntryView(
        entry=entry,
        sentence=audit_sentence(entry),
        through=through_words(entry),
        took=took_words(entry),
        tone=_TONES.get(entry.outcome, "grey"),
        job=entry.job,
    )


def chain_view(head: AuditHead) -> ChainView:
    """As in "12,480 entries, verified today 04:00"."""
    if head.broken_text:
        hint = f"Looked at {_when(head.verified_at)}. manage.py audit_verify tells more."
        return ChainView(f"The chain is broken: {head.broken_text}.", "red", hint)
    if not head.is_genuine:
        hint = "Rows were rewritten, or SECRET_KEY was changed. manage.py audit_verify tells which."
        return ChainView("The end of the chain is not signed.", "red", hint)
    count = f"{head.count:,} {'entry' if head.count == 1 else 'entries'}"
    if head.verified_at is None:
        return ChainView(f"{count}, not verified yet", "grey", "Done every night, and by manage.py audit_verify.")
    return ChainView(f"{count}, verified {_when(head.verified_at)}", "green", "Each names the hash of the one before.")


def event_choices() -> list[tuple[str, list[tuple[str, str]]]]:
    """Every kind of event with its words, in groups."""
    left = list(AuditEvent)
    groups = []
    for title, beginnings in _GROUPS:
        inside = [event for event in left if event.startswith(beginnings)]
        left = [event for event in left if event not in inside]
        groups.append((title, [(event.value, event_words(event)) for event in inside]))
    return [*groups, *([("Other", [(event.value, event_words(event)) for event in left])] if left else [])]


def changes(entry: AuditEntry) -> list[Change]:
    """What is kept of before and after, value by value; plan and stages have places of their own."""
    before, after = _dict(entry.before), _dict(entry.after)
    names = [name for name in {**before, **after} if name not in _SHOWN_APART]
    found = [Change(name.replace("_", " "), _text(before.get(name)), _text(after.get(name))) for name in names]
    return [change for change in found if {change.before, change.after} != {NOTHING}]


def stage_lines(entry: AuditEntry) -> list[tuple[str, str]]:
    """(what was done, how long it took) of each stage of a job."""
    stages = _dict(entry.after).get("stages")
    known = [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    return [(f"{stage.get('step', '')} {stage.get('model', '')}".strip(), _seconds(stage)) for stage in known]


def plan_text(entry: AuditEntry) -> str:
    """The plan as JSON, or nothing."""
    plan = _dict(entry.after).get("plan")
    return json.dumps(plan, indent=2, ensure_ascii=False) if plan else ""


def _seconds(stage: dict[str, Any]) -> str:
    took = stage.get("seconds")
    return seconds(took) if isinstance(took, int | float) else "unknown"


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _when(moment: datetime | None) -> str:
    """As in "today 04:00", "yesterday 04:00" or "12 Nov 2026 04:00"."""
    if moment is None:
        return "never"
    local, today = timezone.localtime(moment), timezone.localdate()
    day = {today: "today", today - timedelta(days=1): "yesterday"}.get(local.date(), f"{local:%-d %b %Y}")
    return f"{day} {local:%H:%M}"
