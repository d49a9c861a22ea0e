"""How the bodies of requests are read: as strict JSON, so that what gets past here can be stored."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja.parser import Parser
from typing_extensions import override

from gantry import strict_json


class BodyUnreadable(ValueError):
    """The body of a request is not what it has to be. `str(exc)` is a sentence for people."""


class StrictParser(Parser):
    """JSON as `gantry.strict_json` reads it, and no text with a NUL in it, which PostgreSQL takes nowhere."""

    @override
    def parse_body(self, request: HttpRequest) -> Any:
        """The value.

        Raises:
            BodyUnreadable, NotStrictJSON: ninja answers 400, with the sentence of the error (errors.py).
        """
        value = strict_json.decode(text_of(request))
        if _has_nul(value):
            raise BodyUnreadable(r"A text holds the character \u0000, which cannot be stored.")
        return value


def text_of(request: HttpRequest) -> str:
    """The body as text.

    Raises:
        BodyUnreadable: it is not UTF-8.
    """
    try:
        return request.body.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise BodyUnreadable("The body is not UTF-8 text.") from exc


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))
