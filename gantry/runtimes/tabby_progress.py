"""From the events of a TabbyAPI load to progress, and from its last words to a cause that people are told.

Source: the event stream of POST /v1/model/load, TabbyAPI at e632af4: each part (vision, draft, model, in this order) counts its
modules from 1 and ends with its own `finished`; an error is one more event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadProgress, LoadStage
from gantry.runtimes.bounded_reading import one_line
from gantry.runtimes.exceptions import LoadFailed

MAIN = "model"
READING_SHARE = 0.95  # of a load; then TabbyAPI builds its generator and says nothing
SMALL_SHARE = 0.1  # of the reading, for each part beside the model itself
CANCEL_WORDS = "TabbyAPI cannot stop a load: waiting for its end, then unloading"

_PART_NAMES = {"model": "Module", "draft": "Draft model: module", "vision": "Vision part: module"}
_MOST_MODULES = 1_000_000


class ModuleMeter:
    """Modules of all parts, as one fraction that never falls."""

    def __init__(self, *, has_draft: bool, has_vision: bool) -> None:
        """Expect the parts that were asked for; one that comes unasked moves the words, not the fraction."""
        small = [name for name, is_there in (("vision", has_vision), ("draft", has_draft)) if is_there]
        self._shares = {name: (index * SMALL_SHARE, SMALL_SHARE) for index, name in enumerate(small)}
        self._shares[MAIN] = (len(small) * SMALL_SHARE, 1.0 - len(small) * SMALL_SHARE)
        self._fraction = 0.0
        self.is_finished = False  # the model itself is in; not yet success

    def see(self, event: Mapping[str, Any]) -> LoadProgress | None:
        """What an event tells; None when it tells nothing of progress."""
        part, module, modules = event.get("model_type"), event.get("module"), event.get("modules")
        if not isinstance(part, str) or not _is_count(module) or not _is_count(modules) or module > modules:
            return None
        if event.get("status") == "finished" and part == MAIN:
            self.is_finished = True
            self._fraction = max(self._fraction, READING_SHARE)
            return LoadProgress(LoadStage.INITIALISING, self._fraction, detail="Preparing the first answer")
        start, share = self._shares.get(part, (0.0, 0.0))
        reached = min(1.0, start + share * module / modules)  # rounding may lift the sum above 1
        self._fraction = max(self._fraction, READING_SHARE * reached)
        name = _PART_NAMES.get(part, "Another part: module")
        return LoadProgress(LoadStage.READING, self._fraction, detail=f"{name} {module} of {modules}")


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_MODULES


# The most telling first. Without words of our own, TabbyAPI's are given.
_CAUSES: tuple[tuple[re.Pattern[str], ErrorCode, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), code, words)
    for pattern, code, words in (
        (r"insufficient vram|out of memory|outofmemory|alloc_failed|not enough memory", ErrorCode.OUT_OF_MEMORY, ""),
        (
            r"failed to load config\.json",
            ErrorCode.LOAD_FAILED,
            "This is no model that TabbyAPI can read: there is no config.json in its directory.",
        ),
        (r"no such file or directory", ErrorCode.NOT_DOWNLOADED, "A file that the model needs is not there."),
        (r"invalid backend", ErrorCode.BAD_PARAMETER, "This TabbyAPI has not the backend that was asked for."),
        (
            r"require the \w+ backend|unsupported quant|quantized with",
            ErrorCode.LOAD_FAILED,
            "This TabbyAPI cannot read the way in which the model is quantised: it takes exl3 and unquantised models.",
        ),
    )
)
# Somebody's unload had not been answered yet when the load was sent: sent again, it works.
_CROSSED = re.compile(r"'NoneType' object has no attribute 'unload'")


def is_crossed(message: str) -> bool:
    """Whether a load failed only because an unload ran at the same moment."""
    return bool(_CROSSED.search(message))


def load_failure(message: str) -> LoadFailed:
    """Why a load ended, from the words in its error event."""
    for pattern, code, words in _CAUSES:
        if pattern.search(message):
            return LoadFailed(words or message, code=code, log_tail=(message,))
    if not message:
        return LoadFailed("TabbyAPI gave no reason; its console has one.")
    return LoadFailed(message, log_tail=(message,))


def error_message(event: Mapping[str, Any]) -> str | None:
    """The words of an error event, one line; None when it is none. They may be empty."""
    if "error" not in event:
        return None
    error = event["error"]
    message = error.get("message") if isinstance(error, Mapping) else error
    return one_line(message)
