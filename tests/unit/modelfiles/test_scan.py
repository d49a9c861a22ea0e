from __future__ import annotations

from pathlib import Path

import pytest

from gantry.modelfiles.scan import default_folder, scan_folder
from tests.unit.modelfiles.files import write_gguf, write_shards


def test_models_are_found_in_folders_of_folders(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    write_gguf(tmp_path / "one.gguf")
    write_gguf(deep / "two.GGUF")
    (tmp_path / "notes.txt").write_text("no model")
    result = scan_folder(tmp_path)
    assert [facts.path.name for facts in result.models] == ["two.GGUF", "one.gguf"]
    assert result.problems == ()


def test_shards_count_as_one(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    result = scan_folder(tmp_path)
    assert [facts.path for facts in result.models] == [shards[0]]


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_missing_shard_is_told_once(tmp_path: Path, missing: int) -> None:
    write_shards(tmp_path)[missing].unlink()
    result = scan_folder(tmp_path)
    assert result.models == ()
    assert [f"part {missing + 1} is missing" in why for _, why in result.problems] == [True]


def test_what_is_no_model_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    write_gguf(tmp_path / "good.gguf")
    write_gguf(tmp_path / "mmproj-good.gguf", arch="clip")
    (tmp_path / "bad.gguf").write_bytes(b"<html>")
    result = scan_folder(tmp_path)
    assert [facts.path.name for facts in result.models] == ["good.gguf"]
    assert result.problems == (
        (tmp_path / "bad.gguf", "is not a GGUF file"),
        (tmp_path / "mmproj-good.gguf", "is an image or sound projector of another model, not a model"),
    )


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_gguf(tmp_path / "one.gguf")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "loop.gguf").symlink_to(tmp_path / "loop.gguf")
    assert len(scan_folder(tmp_path).models) == 1


def test_file_under_two_names_is_one_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "one.gguf")
    (tmp_path / "other.gguf").symlink_to(tmp_path / "one.gguf")
    (tmp_path / "nowhere.gguf").symlink_to(tmp_path / "gone")
    assert len(scan_folder(tmp_path).models) == 1


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    assert scan_folder(tmp_path / "no").problems == ((tmp_path / "no", "is not there"),)
    file = tmp_path / "file"
    file.touch()
    assert scan_folder(file).problems == ((file, "is not a folder"),)


def test_default_folder_is_the_cache_of_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_folder() == Path("/cache/llama.cpp")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "llama.cpp"
    monkeypatch.setenv("LLAMA_CACHE", "/big/models")
    assert default_folder() == Path("/big/models")
