"""What one look at a host found and mended, in figures for programs and words for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from typing_extensions import override

_WORDS = {
    "jobs_ended": "ended, for its worker is gone: {}",
    "adopted": "taken over, for it runs and had no record: {}",
    "external": "noticed that somebody else loaded {}",
    "crashed": "noticed that {} crashed",
    "paused": "paused, for it keeps crashing: {}",
    "cleared": "cleared away, for it was left half done or nobody wants it: {}",
    "dropped": "noticed that somebody else unloaded {}",
}


@dataclass(slots=True)
class RecoveryReport:
    """One entry for each thing that was put right: a job as people say it, or a model's name."""

    host: str
    jobs_ended: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    external: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RecoveryReport:
        """What `as_dict` gave."""
        return cls(**data)

    @property
    def found(self) -> dict[str, list[str]]:
        """What there was to mend, by kind."""
        lists = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "host"}
        return {name: items for name, items in lists.items() if items}

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """For people, one line for each kind of thing."""
        for name, items in self.found.items():
            yield f"{self.host}: {_WORDS[name].format(', '.join(items))}."
        if not self.found:
            yield f"{self.host}: everything is as recorded."

    @override
    def __str__(self) -> str:
        """All lines."""
        return "\n".join(self.lines())
