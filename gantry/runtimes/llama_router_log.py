"""The lines of one model in its router's log.

Source: llama.cpp server-models.cpp, checked on builds 10068 and 11434: the router starts each line of a model's process with its port in
brackets, and says which model it starts on which port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gantry.runtimes.llama_shim import STATE_PREFIX

_SPAWN = re.compile(r"spawning server instance with name=(?P<name>.+) on port (?P<port>\d+)$")
_OF_MODEL = re.compile(r"^\[(?P<port>\d+)\] ?(?P<text>.*)$")
_STATE = STATE_PREFIX.decode()


def lines_of(name: str, log: Iterable[str], port: int | None = None) -> list[str]:
    """What the latest process of a model has written, oldest first, and what the router says of its end.

    Args:
        port: of that process, should the log begin after its start; None where that is not known.
    """
    return _lines_of(name, log, str(port or ""))


def _lines_of(name: str, log: Iterable[str], port: str) -> list[str]:
    found: list[str] = []
    for line in log:
        if spawn := _SPAWN.search(line):
            if spawn["name"] == name:
                port, found = spawn["port"], []
            elif spawn["port"] == port:
                port = ""  # given to another one since
        elif (of_model := _OF_MODEL.match(line)) is not None:
            if of_model["port"] == port and not of_model["text"].startswith(_STATE):
                found.append(of_model["text"])
        elif f"name={name} " in line:
            found.append(line)
    return found


def tail(lines: Sequence[str], count: int) -> tuple[str, ...]:
    """The last so many."""
    return tuple(lines[-count:]) if count > 0 else ()
