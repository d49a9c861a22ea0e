"""Typed access to the keys of a GGUF header, which may hold anything."""

from __future__ import annotations

from typing import Any

from gguf.constants import Keys

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.gguf_header import GGUFHeader

LARGEST_NUMBER = 2**31 - 1  # what a database's integer takes; every real figure is far below
MOST_LAYERS = 4096


class KeyReader:
    """Reads keys; `{arch}` in a key stands for the model's architecture.

    Raises (all methods): ModelFileInvalid, when a value is of a type or size that makes no sense.
    """

    def __init__(self, header: GGUFHeader) -> None:
        self._header = header
        self.architecture = self.text(Keys.General.ARCHITECTURE, 100)
        if not self.architecture:
            raise ModelFileInvalid(header.path, "does not say of which architecture it is")

    def has(self, key: str) -> bool:
        """Whether the file has the key."""
        return self._key(key) in self._header.values

    def text(self, key: str, limit: int) -> str:
        """A text, cleaned and cut to so many characters; "" when there is none."""
        value = self._get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._senseless(key, value)
        return clean(value)[:limit]

    def whole(self, key: str, default: int, most: int = LARGEST_NUMBER) -> int:
        """A whole number from 0; for an array its largest entry."""
        value = self._get(key)
        numbers = value if isinstance(value, list) else [default if value is None else value]
        return max((self._checked(key, number, most, default) for number in numbers), default=default)

    def flag(self, key: str, *, default: bool) -> bool:
        """Yes or no."""
        value = self._get(key)
        return default if value is None else bool(value)

    def by_layer(self, key: str, layer_count: int, default: int) -> list[int]:
        """One whole number for each layer, whether the file gives one for all or one for each."""
        value = self._get(key)
        if not isinstance(value, list):
            return [self.whole(key, default)] * layer_count
        numbers = [self._checked(key, number, LARGEST_NUMBER, default) for number in value]
        return (numbers + [default] * layer_count)[:layer_count]

    def array_length(self, key: str) -> int:
        """How many entries an array has, kept or not; 0 when it is none."""
        return self._header.lengths.get(self._key(key), 0)

    def _get(self, key: str) -> Any:
        return self._header.values.get(self._key(key))

    def _key(self, key: str) -> str:
        return key.replace("{arch}", self.architecture) if "{arch}" in key else key

    def _checked(self, key: str, value: Any, most: int, default: int) -> int:
        if not isinstance(value, int) or (value != default and not 0 <= value <= most):
            raise self._senseless(key, value)
        return int(value)

    def _senseless(self, key: str, value: Any) -> ModelFileInvalid:
        return ModelFileInvalid(
            self._header.path, f"is damaged: {clean(self._key(key))} is {clean(str(value)[:60])!r}, which cannot be"
        )


def clean(text: str) -> str:
    """Without control and other unprintable characters; white space as single blanks."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())
