"""One model as people describe it, and the small readings and checks of its values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gantry.runtimes.typed_fields import got

MODEL_ID: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/+-]{0,199}\Z")
LONGEST_CONTEXT: Final = 2**31 - 1
LARGEST_SIZE: Final = 2**63 - 1  # bytes; what a database takes
MOST_TAGS: Final = 20

_SIZE = re.compile(r"^~?\s*(?P<number>\d{1,12}(\.\d{1,9})?)\s*(?P<unit>[KMGT]?)(?P<binary>i?)B?$", re.IGNORECASE)
_CONTEXT = re.compile(r"^(?P<number>\d{1,10})\s*(?P<unit>[KM]?)$", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
# Neither a database nor a page can do anything with these.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model as a model file describes it. Everything but the id may be missing."""

    model_id: str
    name: str
    description: str = ""
    path: str = ""  # of the GGUF file or the folder; relative to the models folder
    size_bytes: int = 0
    quantization: str = ""
    parameter_label: str = ""  # "20B"
    context_length: int | None = None  # tokens it was trained for
    parameters: Mapping[str, Any] = field(default_factory=dict)  # LlamaParameters.as_dict or TabbyParameters.as_dict
    extra_args: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # ids of GPUs; none: chosen for each load
    chat_template: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)  # Sampling.as_dict
    tags: tuple[str, ...] = ()
    is_pinned: bool = False
    given: frozenset[str] = field(default=frozenset(), compare=False)  # names of the fields that the file speaks of


def parse_size(text: str) -> int | None:
    """Bytes from "12GB", "~3 GB", "11.5 GiB", "980MB" or a plain number; None when it is no size."""
    match = _SIZE.match(text.strip())
    if not match:
        return None
    base = 1024 if match["binary"] else 1000
    factor: int = base ** _POWERS[match["unit"].upper()]
    size = round(float(match["number"]) * factor)
    return size if size <= LARGEST_SIZE else None


def parse_context(text: str) -> int | None:
    """Tokens from "32768" or "32K" (a K is 1024 here, as people mean it); None when it is no number of tokens."""
    match = _CONTEXT.match(text.strip())
    tokens = int(match["number"]) * 1024 ** _POWERS[match["unit"].upper()] if match else 0
    return tokens if 0 < tokens <= LONGEST_CONTEXT else None


def text_error(text: str, limit: int, *, many_lines: bool = False) -> str:
    """What is wrong with a text for people; "" when nothing is."""
    if len(text) > limit:
        return f"must have at most {limit} characters (has {len(text)})"
    if _UNPRINTABLE.search(text):
        return "must not contain control characters"
    return "must be one line" if not many_lines and ("\n" in text or "\r" in text) else ""


def printable(text: str) -> str:
    """The text with lone surrogates as escapes: no page takes them, and the name of a file that is no UTF-8 has them."""
    return text.encode("utf-8", "backslashreplace").decode()


def tags_error(tags: Any) -> str:
    """What is wrong with a model's tags; "" when nothing is."""
    if not isinstance(tags, list | tuple) or not all(isinstance(tag, str) for tag in tags):
        return "must be a list of words"
    if len(tags) > MOST_TAGS:
        return f"must be at most {MOST_TAGS} words"
    bad = next((tag for tag in tags if not re.fullmatch(r"[\w.+-][\w .+-]{0,49}", tag)), None)
    return f"must be words of letters, digits and . + - _ {got(bad)}" if bad is not None else ""


def size_text(size_bytes: int) -> str | int:
    """Bytes in the largest unit that keeps them exact: "12GB", "980MB", else the number."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return size_bytes
