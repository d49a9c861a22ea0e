"""What the tests of folders of Hugging Face share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gantry.modelfiles.exceptions import ModelFileInvalid
from gantry.modelfiles.hf_folder import FolderFacts, read_folder
from tests.tiny_safetensors import LLAMA, write_folder


def reason(path: Path) -> str:
    with pytest.raises(ModelFileInvalid) as caught:
        read_folder(path)
    assert caught.value.path == path
    return caught.value.reason


def read_config(path: Path, **config: Any) -> FolderFacts:
    """The facts of a model with this config.json and nothing of Llama's."""
    return read_folder(write_folder(path / "model", **{**dict.fromkeys(LLAMA), **config}))
