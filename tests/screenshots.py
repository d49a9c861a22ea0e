"""Takes the README's pictures from a demo that is started for it: `python -m tests.screenshots [FOLDER]`.

Nothing on them is made up: the models are loaded, the switches happen, the answer is the model's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS
from tests.functional.stack import ROOT, start_stack
from tests.screenshots_scenes import Studio, take_all

FOLDER = ROOT / "docs" / "screenshots"
LARGEST_BYTES = 150_000


def main(folder: Path) -> None:
    """Write every picture to `folder` and say so."""
    if CHROMIUM is None:
        sys.exit("Chromium is not installed: apt install chromium")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="gantry-screenshots-") as data_dir:
        stack = start_stack(Path(data_dir), {"GANTRY_MEMORY": ""}, ["--demo"])
        try:
            take(stack.url, folder)
        finally:
            stack.stop()


def take(url: str, folder: Path) -> None:
    """Take the pictures of a demo that runs."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, picture in take_all(Studio(browser, url)):
            if len(picture) > LARGEST_BYTES:
                sys.exit(f"{name}.png would be larger than {LARGEST_BYTES / 1000:.0f} kB: show less on it.")
            path = folder / f"{name}.png"
            path.write_bytes(picture)
            print(f"{path}: {len(picture) / 1000:.0f} kB", flush=True)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
