"""Looks at the rows many times a second while a round goes on: what was true only for a moment is not missed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from django.db import connection

from models_admin.models import ModelInstance, SwitchJob

LOOK_SECONDS = 0.1


@dataclass
class Life:
    """What was seen of one load of one model."""

    instance_id: str
    model_id: str
    loaded_at: float = 0.0  # first seen so, seconds since the epoch
    crashed: bool = False
    gone_at: float = 0.0  # first seen missing, or on its way out


@dataclass
class Watcher:
    """Remembers what it saw from the start of the run on."""

    lives: dict[str, Life] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)
    _ended: dict[int, tuple[object, ...]] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare the thread."""
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End looking."""
        self._stop.set()
        self._thread.join(timeout=10)

    def take_problems(self) -> list[str]:
        """What was wrong since the last call."""
        found, self.problems = self.problems, []
        return found

    def _watch(self) -> None:
        try:
            while not self._stop.wait(LOOK_SECONDS):
                self.look()
        except Exception as exc:  # noqa: BLE001 - nobody looked any more, which must not pass for "held"
            self.problems.append(f"broken: the watcher could not go on: {exc!r}")
        finally:
            connection.close()

    def look(self) -> None:
        """Look once."""
        self._look_at_jobs()
        self._look_at_instances()

    def _look_at_jobs(self) -> None:
        working = Counter(SwitchJob.objects.working().values_list("pool_id", flat=True))
        self.problems += [f"I1: {number} jobs at work on pool {pool}" for pool, number in working.items() if number > 1]

    def _look_at_instances(self) -> None:
        now = time.time()
        rows = {str(row.instance_id): row for row in ModelInstance.objects.select_related("model")}
        for instance_id, row in rows.items():
            life = self.lives.setdefault(instance_id, Life(instance_id, row.model.model_id))
            if row.api_key:
                self.secrets.add(row.api_key)
            if row.state == "loaded" and not life.loaded_at:
                life.loaded_at = now
            life.crashed = life.crashed or row.state == "crashed"
            if row.state == "unloading" and not life.gone_at:
                life.gone_at = now
        for life in self.lives.values():
            if life.instance_id not in rows and not life.gone_at:
                life.gone_at = now
