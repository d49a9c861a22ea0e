"""Sentences that the parts of the engine have in common."""

from __future__ import annotations

from collections.abc import Sequence

from gantry.planning.wording import wording
from gantry.runtimes.exceptions import RuntimeFault


def name_list(names: Sequence[str]) -> str:
    """Names in a row: "A", "A and B", "A, B and C"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1] if names else "") if part)


def be(names: Sequence[str], singular: str, plural: str) -> str:
    """The names, with the verb that suits their number."""
    return f"{name_list(names)} {singular if len(names) == 1 else plural}"


def answers(count: int) -> str:
    """How many answers."""
    return f"{count} answer{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time that is still running, coarse enough not to change at every look: "40 s", "3 min"."""
    return f"{int(seconds) // 10 * 10} s" if seconds < 120 else f"{int(seconds) // 60} min"


def gigabytes(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:.1f} GB"


def fault_text(fault: RuntimeFault) -> str:
    """The code's own sentence, and what is known beside it."""
    parts = (wording(fault.code).sentence, fault.detail, fault.exit_text)
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts if part)
