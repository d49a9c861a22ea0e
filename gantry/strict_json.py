"""JSON that people and programs send: without what Python alone takes for it, and what neither a database nor a page can hold."""

from __future__ import annotations

import json
from typing import Any

MOST_DIGITS = 100  # of a whole number; Python itself refuses thousands, with another sentence


class NotStrictJSON(ValueError):
    """It is no JSON, or none that can be kept. `str(exc)` is a sentence for people."""


def decode(text: str) -> Any:
    """The value.

    Raises:
        NotStrictJSON: there is none.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_whole_number, object_pairs_hook=_mapping)
        json.dumps(value, ensure_ascii=False).encode()
    except NotStrictJSON:
        raise
    except json.JSONDecodeError as exc:
        raise NotStrictJSON(f"This is not JSON: line {exc.lineno}, column {exc.colno}: {exc.msg}.") from exc
    except UnicodeEncodeError as exc:
        raise NotStrictJSON(
            r"An escape such as \ud800 stands for half a character only, which cannot be stored."
        ) from exc
    except RecursionError as exc:
        raise NotStrictJSON("This is nested too deeply.") from exc
    return value


def _refuse_constant(name: str) -> Any:
    raise NotStrictJSON(f"This is not JSON: {name} is no number.")


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise NotStrictJSON("A number has too many digits.")
    return int(digits)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise NotStrictJSON(f"{key} is given twice.")
        values[key] = value
    return values
