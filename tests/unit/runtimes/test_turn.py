"""Whose turn it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from gantry.runtimes.exceptions import RuntimeRefused
from gantry.runtimes.turn import Turn


def test_one_has_the_turn_at_a_time(tmp_path: Path) -> None:
    first, second, onlooker = Turn(tmp_path), Turn(tmp_path), Turn(tmp_path)
    assert not onlooker.is_taken()
    assert first.take()
    assert onlooker.is_taken()
    assert not second.take()
    first.give_back()
    assert not onlooker.is_taken()
    assert second.take()
    second.give_back()


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeRefused, match="cannot be written"):
        Turn(tmp_path / "file").take()
