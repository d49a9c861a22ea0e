"""A plan in words: for the dialog before a switch and for the page after it. Made from `SwitchPlan.as_dict()`, which is what a job keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gantry.planning.states import JobKind, LoadOrder
from models_admin.job_view import step_label
from models_admin.templatetags.gantry_format import seconds


@dataclass(frozen=True, slots=True)
class EvictedView:
    """A model that will be unloaded: how many answers it is writing now, and how many people got one in the last five minutes."""

    name: str
    held_bytes: int
    answers: int
    is_busy: bool
    people: int = 0


@dataclass(frozen=True, slots=True)
class PlanView:
    """What will happen. Bytes; percents are of the pool's total."""

    title: str
    verb: str  # what the button says: "Unload SmolLM2 and load Gemma 3"
    evicted: tuple[EvictedView, ...]
    steps: tuple[tuple[str, float], ...]  # label, expected seconds
    target_name: str
    loads: bool
    needed_bytes: int
    free_bytes: int
    freed_bytes: int
    total_bytes: int
    expected_seconds: float
    range_text: str  # "usually 1.2–1.8 s, from 5 loads"
    is_need_known: bool
    is_time_known: bool
    wait_text: str  # who has to wait for how long: "Nobody has to wait: SmolLM2 answers until Gemma 3 does."

    @property
    def room_bytes(self) -> int:
        """What the target may use: free now, and freed by what is unloaded."""
        return self.free_bytes + self.freed_bytes

    @property
    def used_now_bytes(self) -> int:
        """Used before."""
        return max(0, self.total_bytes - self.free_bytes)

    @property
    def used_after_bytes(self) -> int:
        """Used afterwards."""
        return min(self.total_bytes, max(0, self.used_now_bytes - self.freed_bytes + self.needed_bytes))

    @property
    def used_now_percent(self) -> float:
        """Percent used before."""
        return round(100 * self.used_now_bytes / max(1, self.total_bytes), 1)

    @property
    def used_after_percent(self) -> float:
        """Percent used afterwards."""
        return round(100 * self.used_after_bytes / max(1, self.total_bytes), 1)


def plan_view(
    plan: Mapping[str, Any],
    answers: Mapping[str, int] | None = None,
    former: str = "",
    people: Mapping[str, int] | None = None,
) -> PlanView:
    """The plan as people read it.

    Args:
        plan: `SwitchPlan.as_dict()`.
        answers: model id -> answers that it is writing now.
        former: name of the model that is active now, if any.
        people: model id -> people who use it.
    """
    people = people or {}
    answers = answers or {}
    kind = JobKind(plan["kind"])
    evicted = tuple(
        EvictedView(
            item["name"],
            item["held_bytes"],
            answers.get(item["model_id"], 0),
            item["is_busy"],
            people.get(item["model_id"], 0),
        )
        for item in plan["evicted"]
    )
    return PlanView(
        title=_title(kind, plan["target_name"], evicted),
        verb=_verb(kind, plan["target_name"], evicted, loads=_loads(plan)),
        evicted=evicted,
        steps=tuple((step_label(step["kind"], step["model_name"]), step["expected_seconds"]) for step in plan["steps"]),
        target_name=plan["target_name"],
        loads=_loads(plan),
        needed_bytes=plan["needed_bytes"],
        free_bytes=plan["free_bytes"],
        freed_bytes=plan["freed_bytes"],
        total_bytes=plan["total_bytes"],
        expected_seconds=plan["expected_seconds"],
        range_text=_range(plan),
        is_need_known=plan.get("is_need_known", True),
        is_time_known=plan.get("is_time_known", True),  # plans of older jobs do not say
        wait_text=_wait(plan, kind, former or next((m["name"] for m in plan["evicted"] if m.get("is_active")), "")),
    )


def _loads(plan: Mapping[str, Any]) -> bool:
    return any(step["kind"] == "load" for step in plan["steps"])


def _title(kind: JobKind, target: str, evicted: tuple[EvictedView, ...]) -> str:
    if kind in {JobKind.UNLOAD, JobKind.UNLOAD_ALL}:
        return f"Unload {target or _names(evicted)}?"
    return {
        JobKind.RESTART: f"Restart {target}?",
        JobKind.PRELOAD: f"Load {target} in the background?",
        JobKind.CALL: f"One call to {target}?",
    }.get(kind, f"Switch to {target}?")


def _verb(kind: JobKind, target: str, evicted: tuple[EvictedView, ...], *, loads: bool) -> str:
    if kind in {JobKind.UNLOAD, JobKind.UNLOAD_ALL}:
        return f"Unload {target or _names(evicted)}"
    if kind == JobKind.RESTART:
        return f"Restart {target}"
    if kind == JobKind.PRELOAD:
        return f"Load {target}"
    if not loads:
        return f"Make {target} active"
    return f"Unload {_names(evicted)} and load {target}" if evicted else f"Load {target}"


def _names(evicted: tuple[EvictedView, ...]) -> str:
    if len(evicted) > 2:
        return f"{len(evicted)} models"
    return " and ".join(model.name for model in evicted)


def _wait(plan: Mapping[str, Any], kind: JobKind, former: str) -> str:
    """Plans of older jobs do not say; nor does one that loads nothing or has nobody to keep waiting."""
    if not former or not _loads(plan) or "interrupts" not in plan or kind == JobKind.PRELOAD:
        return ""
    if plan["interrupts"]:
        if not plan.get("is_time_known", True):
            return "Everybody's chat waits until it answers."
        return f"Everybody's chat waits for about {seconds(plan['downtime_seconds'])} of it."
    if plan["target_name"] == former:
        return ""
    if plan.get("order") == LoadOrder.LOAD_FIRST:
        return f"Nobody has to wait: {former} answers until {plan['target_name']} does, then it is unloaded."
    return f"Nobody has to wait: {former} answers until {plan['target_name']} does, and stays loaded."


def _range(plan: Mapping[str, Any]) -> str:
    samples, low, high = plan["load_samples"], plan["load_low_seconds"], plan["load_high_seconds"]
    if not _loads(plan):
        return ""
    if not plan.get("is_time_known", True):
        return "nobody knows before its first load"
    if not samples:
        return "first load: estimated from its size"
    loads = "1 load" if samples == 1 else f"{samples} loads"
    if seconds(low) == seconds(high):
        return f"loading it usually takes {seconds(low)}, from {loads}"
    low_text = seconds(low).removesuffix(" s") if high < 60 else seconds(low)
    return f"loading it usually takes {low_text}–{seconds(high)}, from {loads}"
