"""JSON from files that may hold anything, read within fixed bounds of time and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gantry.modelfiles.exceptions import ModelFileInvalid

LARGEST_JSON = 64 * 1024**2  # bytes; the index of a model with 100,000 tensors takes about 10 MB
MOST_PARTS = 1_000_000  # brackets and commas, of which a tensor has eight; each costs up to 200 bytes once it is read


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelFileInvalid: it cannot be read, is too large, or is no JSON object. The reason names the file.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise ModelFileInvalid(path, f"has no {path.name}")
        with path.open("rb") as file:
            data = file.read(LARGEST_JSON + 1)
    except OSError as exc:
        raise ModelFileInvalid(path, f"has a {path.name} that cannot be read: {exc.strerror or exc}") from exc
    if len(data) > LARGEST_JSON:
        raise ModelFileInvalid(path, f"has a {path.name} that is larger than {LARGEST_JSON // 1024**2} MiB")
    try:
        return json_object(data)
    except ValueError as exc:
        raise ModelFileInvalid(path, f"has a {path.name} that {exc}") from exc


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes.

    Raises:
        ValueError: there is none; its text goes on after "that": "is not JSON".
    """
    if sum(data.count(sign) for sign in (b"{", b"[", b",")) > MOST_PARTS:
        raise ValueError("has far too many entries")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as exc:
        raise ValueError(str(exc) if isinstance(exc, _Doubled) else "is not JSON") from exc
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 - it is what the bytes hold that is wrong
    return value


class _Doubled(ValueError):
    """A name stands twice in an object, and nobody can tell which is meant."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Doubled("has a name twice")
    return values
