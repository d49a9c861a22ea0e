"""The seal of an audit entry: its canonical JSON, the hash of that, and the signature of a place in the chain.

Nothing here knows a table, so that an archive file can be checked without a database.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.signing import BadSignature, Signer

GENESIS = "0" * 64  # what the first entry names as the hash before it
_SALT = "models_admin.audit"
# PostgreSQL takes neither into text: NUL, and halves of characters that are no characters.
_UNSTORABLE = {0: "\ufffd", **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}


def plain(value: Any) -> Any:
    """The value as JSON that every database gives back alike.

    PostgreSQL keeps 1e20 as an integer and loses the sign of -0.0; so a whole number is an integer and any other is rounded to
    six decimals. What JSON does not know becomes text.
    """
    if isinstance(value, str):
        is_harmless = value.isascii() and "\0" not in value
        return str(value) if is_harmless else value.translate(_UNSTORABLE)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return _plain_number(value)
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    return plain(str(value))


def _plain_number(value: float) -> int | float | str:
    if not math.isfinite(value):
        return str(value)
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def moment_text(at: datetime | None) -> str:
    """UTC, ISO 8601, always with microseconds. Empty for none, which only a row that was tampered with has."""
    return at.astimezone(UTC).isoformat(timespec="microseconds") if isinstance(at, datetime) and at.tzinfo else ""


def canonical(values: Mapping[str, Any]) -> str:
    """One text for the same values: keys in order, no spaces, ASCII."""
    return json.dumps(plain(values), sort_keys=True, separators=(",", ":"), allow_nan=False)


def seal(values: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, in hexadecimal. `values` hold the hash before it as `previous_hash`."""
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def sign(values: Mapping[str, Any]) -> str:
    """What only a holder of SECRET_KEY can say of these values."""
    return str(Signer(salt=_SALT).signature(canonical(values)))


def is_signed(values: Mapping[str, Any], signature: str) -> bool:
    """Whether `sign` said so, with the present SECRET_KEY or one of SECRET_KEY_FALLBACKS."""
    try:
        Signer(salt=_SALT).unsign(f"{canonical(values)}:{signature}")
    except BadSignature:
        return False
    return True
