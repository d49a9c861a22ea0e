"""Filter and order of the list on the Models tab: the server's half, which also feeds the browser's half (static/js/model_list.js)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gantry.planning.states import ModelState
from models_admin.overview import ModelRow

_Key = Callable[[ModelRow], Any]

STATE_GROUPS: dict[str, tuple[str, frozenset[ModelState]]] = {
    "loaded": (
        "Loaded",
        frozenset(
            {ModelState.ACTIVE, ModelState.LOADED, ModelState.LOADING, ModelState.DRAINING, ModelState.UNLOADING}
        ),
    ),
    "idle": ("Ready to load", frozenset({ModelState.IDLE})),
    "failed": ("Failed", frozenset({ModelState.FAILED, ModelState.CRASHED, ModelState.PAUSED})),
    "not_downloaded": ("Not downloaded", frozenset({ModelState.NOT_DOWNLOADED})),
}
_GROUP_OF = {state: name for name, (_, states) in STATE_GROUPS.items() for state in states}
_STATE_ORDER = {state: number for number, state in enumerate(ModelState)}
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that can be sorted by. `is_number` puts the largest first on the first click."""

    key: str
    label: str
    value: _Key
    is_number: bool = False

    @property
    def minus(self) -> str:
        """The sort parameter for the other way round."""
        return f"-{self.key}"

    @property
    def first(self) -> str:
        """The sort parameter that a first click asks for."""
        return self.minus if self.is_number else self.key


def _count(label: str) -> float:
    """A parameter count: 2e10 for "20B", 0 for what is no count."""
    match = re.match(r"\s*([\d.]+)\s*([KMBT]?)", label.upper())
    try:
        return float(match[1]) * _UNITS[match[2]] if match else 0.0
    except ValueError:
        return 0.0


def _last_used(row: ModelRow) -> float:
    return row.model.last_used_at.timestamp() if row.model.last_used_at else 0.0


COLUMNS = (
    Column("name", "Model", lambda row: row.model.name.casefold()),
    Column("state", "State", lambda row: _STATE_ORDER[row.state]),
    Column("size", "Size", lambda row: row.model.size_bytes, is_number=True),
    Column("quantization", "Quantisation", lambda row: row.model.quantization.casefold()),
    Column("parameters", "Parameters", lambda row: _count(row.model.parameter_label), is_number=True),
    Column("context", "Context", lambda row: row.model.context_length or 0, is_number=True),
    Column("load", "Usual load", lambda row: row.usual_load_seconds or 0, is_number=True),
    Column("used", "Last used", _last_used, is_number=True),
)
_BY_KEY = {column.key: column for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the list with what it is filtered and sorted by."""

    row: ModelRow
    text: str  # lower case; searched
    group: str  # key of STATE_GROUPS
    values: dict[str, Any]  # column key -> sort value
    is_hidden: bool = False  # left out by the filter; it stays in the page, so that the browser can show it again

    @property
    def tags_json(self) -> str:
        """Its tags, for the browser."""
        return json.dumps(self.row.model.tags)

    @property
    def values_json(self) -> str:
        """Its sort values, for the browser."""
        return json.dumps(self.values)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What the list is narrowed to and sorted by. `sort` is a column's key, with "-" in front for the other way round."""

    text: str = ""
    tag: str = ""
    state: str = ""
    sort: str = "name"

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> ListQuery:
        """From q, tag, state and sort of a query string; what is not known is ignored."""
        state, sort = parameters.get("state", ""), parameters.get("sort", "name")
        return cls(
            text=parameters.get("q", "").strip(),
            tag=parameters.get("tag", ""),
            state=state if state in STATE_GROUPS else "",
            sort=sort if sort.removeprefix("-") in _BY_KEY else "name",
        )

    def apply(self, lines: Iterable[Line]) -> list[Line]:
        """All lines in order, those that do not match marked as hidden."""
        words = self.text.casefold().split()
        marked = [replace(line, is_hidden=not self._matches(line, words)) for line in lines]
        key = self.sort.removeprefix("-")
        return sorted(marked, key=lambda line: line.values[key], reverse=self.sort.startswith("-"))

    def _matches(self, line: Line, words: Sequence[str]) -> bool:
        return (
            all(word in line.text for word in words)
            and (not self.tag or self.tag in line.row.model.tags)
            and (not self.state or self.state == line.group)
        )


def lines_of(rows: Iterable[ModelRow]) -> list[Line]:
    """Rows made ready for the list, in the same order."""
    return [
        Line(
            row=row,
            text=_searchable(row),
            group=_GROUP_OF[row.state],
            values={column.key: column.value(row) for column in COLUMNS},
        )
        for row in rows
    ]


def tags_of(rows: Iterable[ModelRow]) -> list[str]:
    """All tags in use, by name."""
    return sorted({tag for row in rows for tag in row.model.tags})


def _searchable(row: ModelRow) -> str:
    model = row.model
    parts = (
        model.name,
        model.model_id,
        model.description,
        model.quantization,
        model.parameter_label,
        model.architecture,
        model.runtime.name,
    )
    return " ".join([*parts, *map(str, model.tags)]).casefold()
