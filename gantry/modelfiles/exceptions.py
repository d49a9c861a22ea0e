"""What model files can be refused for.

ModelFileInvalid       a GGUF file that cannot be used
ModelsYAMLInvalid      a model file (models.yaml) with errors
"""

from __future__ import annotations

from pathlib import Path

EMPTY = "is empty, as a download that failed leaves it"


class ModelFileInvalid(Exception):
    """A file is not a usable GGUF file. `reason` goes on after "the file" or "it": "is cut off: it should have …", no full stop."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ModelsYAMLInvalid(Exception):
    """A model file has errors: all of them, as (place, message), where a place is "models.yaml line 14, models.x.path"."""

    def __init__(self, errors: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{place}: {message}" for place, message in errors))
        self.errors = errors
