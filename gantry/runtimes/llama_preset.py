"""The preset file of a router: which models it has, and with which arguments each is started.

Source: llama.cpp tools/server/README.md ("Model presets") and common/preset.cpp, checked on builds 10068 and 11434. A line is `flag = value`
without the dashes; `#` and `;` begin a comment wherever they stand, and there is no way to quote. A name's part after `:` is read as a
quantisation and rewritten, so sections have plain names of their own and a model's id is an alias.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from gantry.runtimes.exceptions import RuntimeRefused

_FLAG = re.compile(r"^--?[A-Za-z]")
_UNSAFE = re.compile(r"[#;\x00-\x1f\x7f]")
_ALIAS = re.compile(r"[^\s,#;=\[\]\x00-\x1f\x7f]{1,200}")
_HEAD = "# Written by Gantry before each load. Changes are lost.\n"


def section_name(model_id: str) -> str:
    """A name for a model's section: readable, and another one for each id.

    Raises:
        RuntimeRefused: the id cannot be an alias.
    """
    if not _ALIAS.fullmatch(model_id):
        raise RuntimeRefused(f"A router cannot name a model {model_id!r}: use no blanks and none of , # ; = [ ].")
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", model_id)[:60]
    return f"{readable}-{hashlib.sha256(model_id.encode()).hexdigest()[:8]}"


def section_lines(arguments: Sequence[str]) -> list[str]:
    """The lines that say a model's arguments.

    Args:
        arguments: flags and their values, as on a command line.

    Raises:
        RuntimeRefused: something in them cannot be said in a preset; names it.
    """
    lines: dict[str, str] = {}
    for flag, values in _pairs(arguments):
        if len(values) > 1:
            raise RuntimeRefused(f"A router takes one value for {flag}, not {len(values)}.")
        if flag in lines:
            raise RuntimeRefused(f"A router takes {flag} once for each model.")
        value = values[0] if values else "true"
        if _UNSAFE.search(value) or value != value.strip() or not value:
            raise RuntimeRefused(f"A router's preset cannot hold this value of {flag}: {value!r}. Use none of # and ;.")
        lines[flag] = f"{flag.lstrip('-')} = {value}"
    return list(lines.values())


def preset_text(sections: Iterable[tuple[str, Sequence[str]]]) -> str:
    """The whole file, from names and lines of its sections."""
    return _HEAD + "".join(f"\n[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in sections)


def _pairs(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each flag with what follows it."""
    pairs: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if _FLAG.match(argument):
            pairs.append((argument, []))
        elif pairs:
            pairs[-1][1].append(argument)
        else:
            raise RuntimeRefused(f"{argument!r} follows no flag.")
    return pairs
