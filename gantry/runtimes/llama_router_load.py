"""One load by a router, from the first question to the proof that the model answers.

It runs in a thread of its own: a router may take its time to answer, while whoever follows a load wants a sign four times a second. The
event stream tells of progress and when something may have ended; what is true says the list.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadProgress, LoadRequest, LoadStage
from gantry.runtimes.exceptions import LoadCancelled, LoadFailed, RuntimeAway, RuntimeFault, UnloadFailed
from gantry.runtimes.llama_ending import damage
from gantry.runtimes.llama_failures import Ending, explain
from gantry.runtimes.llama_keeper import LOG_LINES
from gantry.runtimes.llama_progress import LoadMeter, spoken_fraction
from gantry.runtimes.llama_router_client import RouterClient
from gantry.runtimes.llama_router_events import EventFeed
from gantry.runtimes.llama_router_host import ModelProcess, RouterHost
from gantry.runtimes.llama_router_models import RouterModel
from gantry.runtimes.llama_router_notes import Intent, LoadNote, LoadNotes
from gantry.runtimes.turn import Turn

TICK_SECONDS = 0.1  # between two figures, and between two looks at whether it is cancelled
LIST_SECONDS = 1.0  # between two looks at the list when no event asks for one
STREAM_SECONDS = 2.0  # the load waits so long for its event stream to open
AWAY_SECONDS = 15.0  # a router that does not answer for so long in the middle of a load is away
GONE_SECONDS = 30.0  # for a model to go: the router asks politely for 10 s, then kills
WORDS_SECONDS = 1.0  # for the last lines of a log
ENDED = "exited with status"  # in the router's line about the end of a model's process
RELEASE_SECONDS = 3.0  # for another one who looks whether the router is needed
STALL_SECONDS = 600.0  # without any sign of progress: a broken preset can make a model "load" for ever


@dataclass
class RouterLoad:
    """Carries out a load; `progress` and `fault` may be read from any thread."""

    host: RouterHost
    notes: LoadNotes
    turn: Turn
    note: LoadNote
    request: LoadRequest
    refuse: Callable[[], None]  # raises when the model may not be loaded as things are
    stall_seconds: float = STALL_SECONDS
    progress: LoadProgress = field(default_factory=lambda: LoadProgress(LoadStage.STARTING, 0.0))
    fault: RuntimeFault | None = None
    done: threading.Event = field(default_factory=threading.Event)
    _name: str = ""  # the router's id of the model
    _process: ModelProcess | None = None  # where it can be seen
    _heard_at: float = 0.0  # when the router last answered, monotonic
    _is_cancelled: bool = False
    _is_noted: bool = False
    _has_asked: bool = False  # the router, to load it: then there is something to be ended
    _states: list[Mapping[str, Any]] = field(default_factory=list)  # how far it came, as a server itself would say it

    # Told from outside

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name=f"router-load-{self.note.instance_id}", daemon=True).start()

    def cancel(self) -> None:
        """Have it ended."""
        self._is_cancelled = True

    # In its own thread

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                with my_turn(self.turn, self._go_on):
                    client = self._prepare()
                    feed = EventFeed(client)
                    stack.callback(feed.close)
                    feed.start(STREAM_SECONDS)
                    self._ask(client)
                self._follow(client, feed)
        except RuntimeFault as fault:
            self._end_with(fault)
        except Exception as exc:  # noqa: BLE001 # the end of a thread: whoever follows must hear of it
            words = f"Gantry met a fault of its own ({type(exc).__name__})."
            self._end_with(LoadFailed(words, code=ErrorCode.INTERNAL))
        finally:
            self.done.set()

    def _end_with(self, fault: RuntimeFault) -> None:
        self.fault = fault  # whatever comes of the tidying up
        self.fault = self._taken_back(fault)

    def _prepare(self) -> RouterClient:
        """Have a router that knows the model."""
        self.refuse()
        self.notes.forget_cancelled(self.note.name)
        self.notes.put(self.note, self.request.chat_template if self.host.is_own else "")
        self._is_noted = True
        return self.host.prepare(self.note, self.notes.wanted())

    def _ask(self, client: RouterClient) -> None:
        """Have it start, unless somebody else had it loaded: that is taken over, and not ended when this load is called off."""
        self._go_on()
        model = client.find(self.note.name)
        if model is None:
            raise LoadFailed(f"The router has no model {self.note.name}.", code=ErrorCode.NOT_DOWNLOADED)
        self._name = model.name
        if not model.is_running:
            self._has_asked = True
            self._has_asked = client.load(model.name)
        self.notes.put(replace(self.note, intent=Intent.LOADING))

    def _follow(self, client: RouterClient, feed: EventFeed) -> None:
        """Until it is there: by the list once a second, and at once when an event says that there is something to see."""
        meter = LoadMeter(self.request.path, self.request.file_bytes)
        moved_at = looked_at = self._heard_at = time.monotonic()
        is_due = True
        while True:
            self._go_on()
            now = time.monotonic()
            if is_due or now - looked_at >= LIST_SECONDS:
                looked_at = now
                if self._look_calmly(client):
                    return
            moved_at = now if self._measure(meter) else moved_at
            if now - moved_at > self.stall_seconds:
                words = f"It made no progress for {self.stall_seconds:.0f} seconds."
                raise LoadFailed(words, code=ErrorCode.LOAD_STALLED, log_tail=self._log())
            feed.wait(TICK_SECONDS)
            is_due = self._take(feed)

    def _look_calmly(self, client: RouterClient) -> bool:
        """The same as `_look`. A router that misses an answer now and then is none the worse."""
        try:
            is_there = self._look(client)
        except RuntimeAway as fault:
            self._judge_away(fault)
            return False
        self._heard_at = time.monotonic()
        return is_there

    def _look(self, client: RouterClient) -> bool:
        """Whether it is there now, by the list.

        Raises:
            LoadFailed: it is neither there nor on the way.
        """
        model = client.find(self.note.name)
        if model is not None and model.is_ready:
            process = self.host.processes().get(model.name)
            self.notes.put(replace(self.note, intent=Intent.LOADED, port=process.port if process else None))
            return True
        if model is None or not model.is_running:
            raise self._failure(model)
        return False

    def _judge_away(self, fault: RuntimeAway) -> None:
        """A router that ended, or is gone for long, is no more waited for."""
        ending = self.host.ending()
        if ending is not None:
            code, detail = explain(ending, self._log(), was_ready=True)
            words = f"The router itself ended. {detail}".strip()
            raise LoadFailed(words, code=code, log_tail=self._log(), exit_text=ending.text) from fault
        if time.monotonic() - self._heard_at > AWAY_SECONDS:
            raise fault

    def _take(self, feed: EventFeed) -> bool:
        """Note what was told of progress; whether the list is worth a look."""
        is_due = False
        for item in feed.take():
            if isinstance(item, list):
                is_due = True
            elif item.name == self._name:
                is_due = is_due or item.is_turn
                self._hear(item.progress)
        return is_due

    def _hear(self, progress: Mapping[str, Any]) -> None:
        """Keep what tells of the farthest: a part that is read twice is told of twice."""
        states: list[Mapping[str, Any]] = [{"state": "loading", "payload": progress}]
        if spoken_fraction(states) > spoken_fraction(self._states):
            self._states = states

    def _measure(self, meter: LoadMeter) -> bool:
        """Take the figures; whether they moved."""
        self._process = self._process or self.host.processes().get(self._name)
        if self._process is not None:
            fresh = meter.read(self._process.pid, self._states or [{"state": "loading"}])
        else:
            fresh = meter.hear(self._states)
        if self.request.file_bytes <= 0:
            fresh = replace(fresh, bytes_done=None, bytes_total=None)
        has_moved, self.progress = fresh != self.progress, fresh
        return has_moved

    def _failure(self, model: RouterModel | None) -> LoadFailed:
        """Why it is not there, from its exit code, its log and its file."""
        if model is None:
            return LoadFailed("The router has it in its list no more.", code=ErrorCode.NOT_DOWNLOADED)
        if not model.has_failed:
            return LoadFailed("Somebody else unloaded it while it was loading.")
        log, ending = self._last_words(), Ending(code=model.exit_code)
        code, detail = explain(ending, log, was_ready=False)
        if code == ErrorCode.LOAD_FAILED and (found := self._damage(model)):
            code, detail = ErrorCode.FILE_DAMAGED, found
        if not detail and not self.host.is_own:
            detail = f"Its process {ending.text}; the router's own log says why."
        return LoadFailed(detail, code=code, log_tail=log[-LOG_LINES:], exit_text=ending.text)

    def _last_words(self) -> tuple[str, ...]:
        """Its log up to its end, which the keeper of a router of our own writes down a moment after the list tells of it."""
        deadline = time.monotonic() + WORDS_SECONDS
        log = self._log(200)
        while self.host.is_own and not any(ENDED in line for line in log[-5:]) and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS / 5)
            log = self._log(200)
        return log

    def _damage(self, model: RouterModel) -> str:
        path = self.host.file_of(model) or Path()
        return damage(path) if path.is_file() else ""

    def _log(self, lines: int = LOG_LINES) -> tuple[str, ...]:
        return self.host.log_of(self.note, lines)

    def _go_on(self) -> None:
        if self._is_cancelled:
            raise LoadCancelled

    def _taken_back(self, fault: RuntimeFault) -> RuntimeFault:
        """Leave nothing behind, as far as it is in our hands; what is to be told in the end."""
        if not self._is_noted:
            return fault
        try:
            if self._has_asked:
                self.notes.put(replace(self.note, intent=Intent.CANCELLED))
                self._end()
            if self.host.is_own or not (self._has_asked and isinstance(fault, LoadCancelled)):
                self.notes.remove(self.note.instance_id)
            release_when_unused(self.host, self.notes, self.turn)
        except RuntimeFault as other:
            if isinstance(fault, LoadCancelled):
                words = f"It was called off, and may still be loading: {other.detail}"
                return LoadFailed(words, code=ErrorCode.UNLOAD_FAILED)
        return fault

    def _end(self) -> None:
        client = self.host.client()
        if client is not None and not end_model(client, self._name):
            raise UnloadFailed("the router does not end it.")


def end_model(client: RouterClient, name: str) -> bool:
    """Have a model end and wait for that; False when it is still there."""
    deadline = time.monotonic() + GONE_SECONDS
    client.unload(name)
    while (model := client.find(name)) is not None and model.is_running:
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK_SECONDS / 5)
    return True


@contextmanager
def my_turn(turn: Turn, go_on: Callable[[], None]) -> Generator[None]:
    """Wait for the turn, then have it. `go_on` raises when the wait is to end."""
    while not turn.take():
        go_on()
        time.sleep(TICK_SECONDS / 5)
    try:
        yield
    finally:
        turn.give_back()


def release_when_unused(host: RouterHost, notes: LoadNotes, turn: Turn) -> None:
    """End a router of our own that nobody needs any more. A load that has the turn for longer needs it."""
    if not host.is_own:
        return
    deadline = time.monotonic() + RELEASE_SECONDS
    while not turn.take():
        if time.monotonic() > deadline:
            return
        time.sleep(TICK_SECONDS / 5)
    try:
        if not notes.wanted():
            host.release()
    finally:
        turn.give_back()
