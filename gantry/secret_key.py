"""The secret key of an installation that was not given one: made once, kept in the data directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def load_secret_key(path: Path) -> str:
    """The key kept at `path`; made on the first call, readable by the owner only.

    Two processes that start together agree: the file is created exclusively and the loser reads the winner's.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(50))
    return _read(path)


def _read(path: Path) -> str:
    key = path.read_text(encoding="ascii").strip()
    if not key:
        raise RuntimeError(f"{path} is empty: remove it, and Gantry makes a new key (everybody signs in again)")
    return key
