"""Folders as Hugging Face keeps them, found among others."""

from __future__ import annotations

import os
from pathlib import Path

from gantry.modelfiles.scan import ScanResult, scan_folder
from tests.tiny_safetensors import write_folder
from tests.unit.modelfiles.files import write_gguf

REPOSITORY = "models--mistralai--Mistral-7B-v0.1"


def write_snapshot(cache: Path, revision: str, *, repository: str = REPOSITORY, changed_at: int | None = None) -> Path:
    """A revision as the hub's cache keeps it: links to blobs."""
    snapshot = write_folder(cache / repository / "snapshots" / revision)
    blobs = cache / repository / "blobs"
    blobs.mkdir(exist_ok=True)
    for file in list(snapshot.iterdir()):
        blob = blobs / f"{revision}-{file.name}"
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, snapshot))
    if changed_at is not None:
        os.utime(snapshot, ns=(changed_at, changed_at))
    return snapshot


def test_folders_are_found_among_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "models" / "Tiny-exl3", parts=2)
    file = write_gguf(tmp_path / "models" / "one.gguf")
    beside = write_gguf(folder / "same-folder.gguf")
    result = scan_folder(tmp_path)
    assert [facts.path for facts in result.models] == [folder, beside, file]
    assert result.problems == ()


def test_folder_itself_may_be_the_model(tmp_path: Path) -> None:
    write_folder(tmp_path)
    assert [facts.path for facts in scan_folder(tmp_path).models] == [tmp_path]


def test_damaged_folder_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "good")
    bad = write_folder(tmp_path / "bad", parts=2)
    (bad / "model-00001-of-00002.safetensors").unlink()
    result = scan_folder(tmp_path)
    assert [facts.name for facts in result.models] == ["good"]
    assert result.problems == ((bad, "is missing a part that its index names: model-00001-of-00002.safetensors"),)


def test_hub_cache_gives_the_repository_s_name(tmp_path: Path) -> None:
    snapshot = write_snapshot(tmp_path, "26bca36b")
    [facts] = scan_folder(tmp_path).models
    assert (facts.path, facts.name) == (snapshot, "mistralai/Mistral-7B-v0.1")


def test_of_several_revisions_the_one_that_main_names_counts(tmp_path: Path) -> None:
    old = write_snapshot(tmp_path, "old", changed_at=1)
    write_snapshot(tmp_path, "new", changed_at=2)
    refs = tmp_path / REPOSITORY / "refs"
    refs.mkdir()
    (refs / "main").write_text("old\n")
    assert [facts.path for facts in scan_folder(tmp_path).models] == [old]


def test_without_a_usable_main_the_last_revision_counts(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "z-old", changed_at=1)
    new = write_snapshot(tmp_path, "a-new", changed_at=2)
    assert [facts.path for facts in scan_folder(tmp_path).models] == [new]
    refs = tmp_path / REPOSITORY / "refs"
    refs.mkdir()
    for text in (b"gone", b"", b"../../../etc", b"\0\xff", b"x" * 5000):
        (refs / "main").write_bytes(text)
        assert [facts.path for facts in scan_folder(tmp_path).models] == [new]


def test_gguf_files_of_older_revisions_still_count(tmp_path: Path) -> None:
    write_snapshot(tmp_path, "new", changed_at=2)
    older = tmp_path / REPOSITORY / "snapshots" / "old"
    older.mkdir()
    file = write_gguf(older / "m.gguf")
    assert file in [facts.path for facts in scan_folder(tmp_path).models]


def test_link_to_a_folder_is_no_second_model(tmp_path: Path) -> None:
    write_folder(tmp_path / "m")
    (tmp_path / "again").symlink_to(tmp_path / "m")
    assert len(scan_folder(tmp_path).models) == 1


def test_what_version_control_and_caches_keep_is_not_looked_through(tmp_path: Path) -> None:
    for name in (".git", ".no_exist", "node_modules"):
        write_folder(tmp_path / name / "m")
    assert scan_folder(tmp_path).models == ()


def test_other_folders_with_a_config_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "weights.bin").write_bytes(b"x")
    assert scan_folder(tmp_path) == ScanResult((), ())
