"""The README's pictures are those that `make screenshots` takes, and are small enough to live in the repository."""

from __future__ import annotations

import re

from tests.functional.stack import ROOT
from tests.screenshots import FOLDER, LARGEST_BYTES
from tests.screenshots_scenes import NAMES


def test_readme_shows_every_picture_and_no_other() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"!\[[^\]]+\]\(docs/screenshots/([\w-]+)\.png\)", readme)) == sorted(NAMES)


def test_pictures_are_there_and_small() -> None:
    sizes = {path.stem: path.stat().st_size for path in FOLDER.glob("*")}
    assert sorted(sizes) == sorted(NAMES)
    assert max(sizes.values()) <= LARGEST_BYTES
