"""Rules about the files themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 400  # lines; then a file is split by noun
CODE = ("gantry", "models_admin", "requirements")


def python_files() -> Iterator[Path]:
    """All code, migrations left out."""
    for folder in CODE:
        yield from (path for path in (ROOT / folder).rglob("*.py") if "migrations" not in path.parts)


def test_no_file_is_too_long() -> None:
    assert not [str(path.relative_to(ROOT)) for path in python_files() if _lines(path) > LONGEST]


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_every_module_says_what_it_is() -> None:
    bare = [path for path in python_files() if path.stat().st_size and not _first_line(path).startswith('"""')]
    assert not [str(path.relative_to(ROOT)) for path in bare if not _first_line(path).startswith("#!")]


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0]


@pytest.mark.parametrize("name", [".ci/run", "docker/entrypoint.sh", "manage.py"])
def test_program_can_be_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


def test_locks_name_hashes_and_no_index() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert text.count("==") <= text.count("--hash=sha256:")
        assert "://" not in text
        assert "index" not in text
