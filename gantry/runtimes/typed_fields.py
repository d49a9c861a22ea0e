"""Mappings of named values as people write them, checked, with messages that say what is wanted."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

Errors = list[tuple[str, str]]  # (key, what is wrong with it)


class ParameterInvalid(Exception):
    """Values cannot be used; `errors` has a (key, message) pair for each."""

    def __init__(self, errors: Errors) -> None:
        super().__init__("; ".join(f"{key}: {message}" for key, message in errors))
        self.errors = errors


class TypedFields(BaseModel):
    """A mapping with known keys. A field is `… | None = None`; None means that it is not set."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def checked(cls, data: Mapping[str, Any]) -> Self:
        """The values, checked.

        Raises:
            ParameterInvalid: carries one error for each key that cannot be used.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as exc:
            keys = dict.fromkeys(str(error["loc"][0]) for error in exc.errors())
            raise ParameterInvalid([(key, cls._error_text(key, data[key])) for key in keys]) from exc

    def as_dict(self) -> dict[str, Any]:
        """Those that are set, as JSON data."""
        return self.model_dump(exclude_none=True)

    @classmethod
    def _error_text(cls, key: str, value: Any) -> str:
        if key not in cls.model_fields:
            return unknown_key_text(key, cls.model_fields)
        schema = cls.model_json_schema()["properties"][key]["anyOf"][0]
        return f"must be {_wanted(schema)} {got(value)}"


def unknown_key_text(key: str, known: Iterable[str]) -> str:
    """What to say of a key that means nothing: the known one it resembles, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"unknown; did you mean {close[0]}?" if close else f"unknown; known are {', '.join(known)}"


def got(value: Any) -> str:
    """A refused value as it is quoted in a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"(got {text if len(text) <= 60 else text[:57] + '…'})"


def _wanted(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "description" in schema:
        return str(schema["description"])
    if "enum" in schema:
        return "one of " + ", ".join(schema["enum"])
    if schema["type"] == "boolean":
        return "true or false"
    noun = "a whole number" if schema["type"] == "integer" else "a number"
    return f"{noun} of at least {schema['minimum']:g} and at most {schema['maximum']:.12g}"
