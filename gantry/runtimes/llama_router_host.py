"""Whose router it is: what differs between one that Gantry starts and one that somebody else runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gantry.runtimes.base import LoadRequest, RuntimeHealth
from gantry.runtimes.llama_failures import Ending
from gantry.runtimes.llama_router_client import RouterClient
from gantry.runtimes.llama_router_models import RouterModel
from gantry.runtimes.llama_router_notes import LoadNote


@dataclass(frozen=True, slots=True)
class ModelProcess:
    """The process of one of a router's models."""

    pid: int
    port: int | None


class RouterHost(Protocol):
    """Where a router comes from. Calls block.

    Raises (all calls): RuntimeAway, RuntimeRefused.
    """

    is_own: bool  # Gantry starts and ends it

    def check(self) -> RuntimeHealth:
        """Whether it can be used now. Never raises."""
        ...

    def client(self) -> RouterClient | None:
        """How to ask it; None while there is no router to be asked, which one of our own may be."""
        ...

    def check_load(self, request: LoadRequest) -> None:
        """Refuse what cannot be loaded there.

        Raises:
            LoadFailed: with the cause.
        """
        ...

    def note_for(self, request: LoadRequest) -> LoadNote:
        """What is written down of a load before it begins.

        Raises:
            LoadFailed: it cannot be loaded here.
        """
        ...

    def prepare(self, note: LoadNote, wanted: Sequence[LoadNote]) -> RouterClient:
        """Have a router that can load a model. Asked by one load at a time.

        Args:
            note: of the load.
            wanted: of all models that are to be there, this one among them.

        Raises:
            LoadFailed: it cannot be started.
        """
        ...

    def release(self) -> None:
        """A model went. Asked by one at a time, while none is wanted."""
        ...

    def processes(self) -> Mapping[str, ModelProcess]:
        """The processes of its models by name, as far as they can be seen from here."""
        ...

    def kill(self, name: str) -> bool:
        """End a model past a router that does not answer; False where that is not in our hands."""
        ...

    def ending(self) -> Ending | None:
        """How the router itself ended; None while it runs, or is not ours."""
        ...

    def log_of(self, note: LoadNote, lines: int) -> tuple[str, ...]:
        """Last lines of one of its models, oldest first."""
        ...

    def file_of(self, model: RouterModel) -> Path | None:
        """The file that a model is read from, where that is on this machine."""
        ...
