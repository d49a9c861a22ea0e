"""Notes of own loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from gantry.runtimes.exceptions import RuntimeRefused
from gantry.runtimes.tabby_client import CurrentModel
from gantry.runtimes.tabby_notes import LoadNote, LoadNotes


def test_notes_are_kept_in_order_and_found_by_another(tmp_path: Path) -> None:
    notes = LoadNotes(tmp_path)
    late, early = LoadNote("b", "beta", {}, 2.0), LoadNote("a", "alpha", {"x": [1]}, 1.0)
    notes.put(late)
    notes.put(early)
    assert LoadNotes(tmp_path).all() == [early, late]
    notes.remove("a")
    assert notes.get("a") is None
    assert notes.get("b") == late


def test_a_damaged_note_is_no_note(tmp_path: Path) -> None:
    notes = LoadNotes(tmp_path)
    notes.put(LoadNote("a", "alpha"))
    (tmp_path / "loads" / "b.json").write_text("{")
    (tmp_path / "loads" / "c.json").write_text('{"other": 1}')
    (tmp_path / "loads" / "d.json").write_text("[]")
    assert [note.instance_id for note in notes.all()] == ["a"]


def test_a_finished_note_knows_its_model_by_name_and_figures(tmp_path: Path) -> None:
    notes = LoadNotes(tmp_path)
    note = LoadNote("a", "family/big", {}, 1.0)
    current = CurrentModel("big", {"max_seq_len": 4096})
    assert note.names(current)
    assert not note.is_of(current)
    done = notes.finish(note, current)
    assert done.is_of(current)
    assert not done.is_of(CurrentModel("big", {"max_seq_len": 8192}))
    assert not done.is_of(CurrentModel("small", {"max_seq_len": 4096}))
    assert not done.is_of(None)
    assert notes.get("a") == done


@pytest.mark.parametrize("name", ["../x", "", "a/b", "a.json"])
def test_an_id_that_is_no_file_name_is_never_one(tmp_path: Path, name: str) -> None:
    notes = LoadNotes(tmp_path)
    assert notes.get(name) is None
    notes.remove(name)
    with pytest.raises(RuntimeRefused):
        notes.put(LoadNote(name, "alpha"))


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeRefused, match="cannot be written"):
        LoadNotes(tmp_path / "file").put(LoadNote("a", "alpha"))
