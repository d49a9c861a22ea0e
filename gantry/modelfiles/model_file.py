"""One door to both forms of models: GGUF files, and folders as Hugging Face keeps them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from gantry.modelfiles.gguf_file import GGUFFacts, read_gguf, shard_paths
from gantry.modelfiles.hf_folder import FolderFacts, folder_files, is_model_folder, read_folder

ModelFileFacts = GGUFFacts | FolderFacts


class Form(StrEnum):
    """In what form a model lies on the disk."""

    FILE = "file"  # GGUF: one file, or several that count themselves
    FOLDER = "folder"  # config.json and safetensors


def form_of(path: Path) -> Form | None:
    """The form of what lies there, by a quick look; None when it is neither a file nor a model's folder."""
    try:
        if path.is_file():
            return Form.FILE
    except OSError:  # a name that is too long, a folder that may not be entered
        return None
    return Form.FOLDER if is_model_folder(path) else None


def read_model(path: Path) -> ModelFileFacts:
    """What the model at this path says of itself.

    Raises:
        ModelFileInvalid: there is none that could be used. The reason goes on after "the file" or "the folder", by its form.
    """
    return read_folder(path) if form_of(path) == Form.FOLDER else read_gguf(path)


def model_files(path: Path) -> list[Path]:
    """The files that what a model says of itself is read from: all its shards, or its folder's configuration and weights.

    Raises:
        ModelFileInvalid: a shard is missing.
        OSError: a folder cannot be read.
    """
    return folder_files(path) if form_of(path) == Form.FOLDER else shard_paths(path)
