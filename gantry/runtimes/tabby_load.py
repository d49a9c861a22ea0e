"""One load on a TabbyAPI, from the first look to the proof that it is there.

It runs in a thread of its own: TabbyAPI may say nothing for minutes (it waits for running answers, it reads a large module), while
whoever follows a load wants a sign four times a second.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadProgress, LoadStage
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeAway, RuntimeFault, RuntimeRefused
from gantry.runtimes.tabby_client import CurrentModel, TabbyClient
from gantry.runtimes.tabby_notes import LoadNote, LoadNotes, shown_name
from gantry.runtimes.tabby_progress import CANCEL_WORDS, ModuleMeter, error_message, is_crossed, load_failure

TRIES = 3  # requests for one load: a broken stream is joined again, one that crossed with an unload is sent again
PAUSE_SECONDS = 0.2  # between two of them


class _End(Enum):
    """How a stream ended."""

    FINISHED = "finished"
    BROKEN = "broken"  # unknown: the load may go on
    CROSSED = "crossed"  # with somebody's unload


class _Abandoned(Exception):
    """Nobody follows any more."""


_BEGINNING = LoadProgress(LoadStage.STARTING, 0.0, detail="Asking TabbyAPI")


@dataclass
class LoadTask:
    """Carries out a load. What is told from outside and what it tells may be used from any thread."""

    client: TabbyClient
    notes: LoadNotes
    note: LoadNote
    body: Mapping[str, Any]  # of the request
    find_same: Callable[[CurrentModel], bool]  # whether what is loaded is what is asked for, parameters and all
    progress: LoadProgress = _BEGINNING  # the latest; `told` is what the one who follows has got so far
    told: LoadProgress = _BEGINNING
    fault: RuntimeFault | None = None
    figures: queue.SimpleQueue[LoadProgress | None] = field(default_factory=queue.SimpleQueue)  # None: it is over
    moved_at: float = field(default_factory=time.monotonic)  # when `progress` last changed, monotonic
    _is_cancelled: bool = False
    _is_abandoned: bool = False
    _has_asked: bool = False

    # Told from outside

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name=f"tabby-load-{self.note.instance_id}", daemon=True).start()

    def cancel(self) -> None:
        """Have it unloaded as soon as it is loaded: TabbyAPI can stop neither a load nor one that waits for its turn."""
        if not self._is_cancelled:
            self._is_cancelled = True
            self.moved_at = time.monotonic()

    def abandon(self) -> None:
        """Ask TabbyAPI for nothing more. What was asked for already goes on there."""
        self._is_abandoned = True

    def next_sign(self, seconds: float) -> LoadProgress | None:
        """The next figures, or the last ones again when none come in time; None when it is over."""
        with contextlib.suppress(queue.Empty):
            fresh = self.figures.get(timeout=seconds)
            if fresh is None:
                return None
            self.told = fresh
        return replace(self.told, detail=CANCEL_WORDS) if self._is_cancelled else self.told

    # In its own thread

    def _run(self) -> None:
        try:
            self._carry_out()
        except _Abandoned:
            pass
        except RuntimeFault as fault:
            # A cancelled load that failed has ended as it was wanted; one that nobody answers for has not.
            is_over = (
                self._is_cancelled and not isinstance(fault, RuntimeAway) and fault.code != ErrorCode.UNLOAD_FAILED
            )
            self.fault = LoadCancelled() if is_over else fault
        except Exception as exc:  # noqa: BLE001 # the end of a thread: whoever follows must hear of it
            self.fault = LoadFailed(f"Gantry met a fault of its own ({type(exc).__name__}).", code=ErrorCode.INTERNAL)
        finally:
            self.figures.put(None)

    def _carry_out(self) -> None:
        self._make_room()
        for attempt in range(1, TRIES + 1):
            self._go_on()
            end = self._ask()
            if end == _End.FINISHED or (end == _End.BROKEN and self._is_there()):
                break
            if attempt == TRIES:
                raise self._gave_up(end)
            if end == _End.BROKEN:
                self._tell(replace(self.progress, detail="The connection broke; TabbyAPI goes on loading"))
            time.sleep(PAUSE_SECONDS)
        self._conclude()

    def _make_room(self) -> None:
        """Unload first what TabbyAPI would take for the same: it ignores the parameters of a load of the loaded."""
        self._go_on()
        current = self.client.current()
        if current is None:
            return
        if current.id != shown_name(self.note.model_id):
            self._tell(LoadProgress(LoadStage.STARTING, 0.0, detail=f"Waiting until {current.id} is unloaded"))
        elif not self.find_same(current):
            self._tell(LoadProgress(LoadStage.STARTING, 0.0, detail=f"Unloading {current.id}: its parameters change"))
            self._go_on()
            self.client.unload()

    def _ask(self) -> _End:
        """Send the request and follow its stream to the end."""
        self._has_asked = True
        meter = ModuleMeter(has_draft="draft_model" in self.body, has_vision=bool(self.body.get("vision")))
        is_accepted = False
        words: str | None = None
        try:
            with self.client.load(self.body) as events:
                is_accepted = True
                for event in events:
                    self._go_on()
                    words = self._see(event, meter, words)
        except RuntimeAway:
            if not is_accepted:
                raise
            # One that broke off in the middle is unknown, unless it had told of an error.
            if words is None:
                return _End.BROKEN
        except RuntimeRefused as exc:
            if exc.code != ErrorCode.NOT_DOWNLOADED:
                raise
            raise LoadFailed(exc.detail, code=exc.code) from exc
        if words is None:
            return _End.FINISHED if meter.is_finished else _End.BROKEN
        if is_crossed(words):
            return _End.CROSSED
        raise load_failure(words)

    def _see(self, event: Mapping[str, Any], meter: ModuleMeter, words: str | None) -> str | None:
        """Tell what an event tells; gives the words of the error so far."""
        if progress := meter.see(event):
            self._tell(progress)
        found = error_message(event)
        return words if found is None else self.client.scrub(found)

    def _is_there(self) -> bool:
        """After a stream that broke off: whether the model is loaded all the same."""
        self._go_on()
        return self.note.names(self.client.current())

    def _gave_up(self, end: _End) -> RuntimeFault:
        if end == _End.CROSSED:
            return LoadFailed("Somebody else unloads models on this TabbyAPI at the same time.")
        return RuntimeAway("TabbyAPI broke the connection in the middle of the load, again and again.")

    def _conclude(self) -> None:
        """Prove that it is there; `finished` alone is no success."""
        current = self._look_patiently()
        if current is None or not self.note.names(current):
            raise LoadFailed(_swapped(current))
        if self._is_cancelled:
            self._take_back()
            raise LoadCancelled
        self.notes.finish(self.note, current)

    def _look_patiently(self) -> CurrentModel | None:
        """What is loaded. Right after a load the server may be too busy to answer at once."""
        for attempt in range(1, TRIES + 1):
            self._go_on()
            try:
                return self.client.current()
            except RuntimeAway:
                if attempt == TRIES:
                    raise
            time.sleep(PAUSE_SECONDS)
        return None

    def _take_back(self) -> None:
        try:
            self.client.unload()
        except RuntimeFault as fault:
            raise LoadFailed(f"It was loaded and would not go: {fault.detail}", code=ErrorCode.UNLOAD_FAILED) from fault

    def _go_on(self) -> None:
        """Before each step: not for nobody, and not at all for a load that was cancelled before it was asked for."""
        if self._is_abandoned:
            raise _Abandoned
        if self._is_cancelled and not self._has_asked:
            raise LoadCancelled

    def _tell(self, progress: LoadProgress) -> None:
        """The next figures. The fraction never falls, also when a stream is joined a second time."""
        least = max(progress.fraction or 0.0, self.progress.fraction or 0.0)
        fresh = replace(progress, fraction=least)
        if fresh != self.progress:
            self.progress, self.moved_at = fresh, time.monotonic()
            self.figures.put(fresh)


def _swapped(current: CurrentModel | None) -> str:
    if current is None:
        return "It was loaded and is gone again: somebody else unloads or loads models on this TabbyAPI."
    return f"{current.id} is loaded instead: somebody else loaded it at the same time."
