"""A file's header is read once, and again as soon as the file has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gantry.modelfiles import gguf_file
from gantry.modelfiles.exceptions import ModelFileInvalid
from tests.tiny_gguf import write_tiny_model


def test_file_that_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_tiny_model(path)
    first = gguf_file.read_gguf(path)
    assert gguf_file.read_gguf(path) is first


def test_file_that_was_cut_off_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_tiny_model(path)
    gguf_file.read_gguf(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileInvalid):
        gguf_file.read_gguf(path)


def test_file_that_was_made_whole_again_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(ModelFileInvalid):
        gguf_file.read_gguf(path)
    write_tiny_model(path)
    assert gguf_file.read_gguf(path).layer_count > 0
