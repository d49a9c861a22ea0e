"""A router that somebody else runs. Its models, their arguments and its log are theirs; loading and unloading is shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import LoadRequest, RuntimeHealth
from gantry.runtimes.exceptions import LoadFailed, RuntimeFault, RuntimeRefused
from gantry.runtimes.llama_failures import Ending
from gantry.runtimes.llama_parameters import validate_parameters
from gantry.runtimes.llama_router_client import RouterClient
from gantry.runtimes.llama_router_host import ModelProcess
from gantry.runtimes.llama_router_models import RouterModel, parameters_in
from gantry.runtimes.llama_router_notes import LoadNote
from gantry.runtimes.typed_fields import ParameterInvalid

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class AttachedRouter:
    """The router at an address."""

    is_own = False

    def __init__(self, url: str, api_key: str, transport: httpx.BaseTransport | None = None) -> None:
        """Ask nobody.

        Args:
            transport: what stands in for the network.
        """
        self._client = RouterClient(url, api_key, transport)
        self.max_models = 0  # as last seen; 0: no limit

    def check(self) -> RuntimeHealth:
        """Whether a router answers there and takes the key."""
        try:
            facts = self._client.facts()
        except RuntimeFault as fault:
            return RuntimeHealth(False, detail=fault.detail, code=fault.code)
        self.max_models = facts.max_models
        version = f"llama-server router {facts.version}".strip()
        return RuntimeHealth(True, version=version, max_models=facts.max_models or None)

    def client(self) -> RouterClient:
        """How to ask it."""
        return self._client

    def check_load(self, request: LoadRequest) -> None:
        """Whether it has the model, and starts it as the request wants it: nothing can be said with a load."""
        model = self._client.find(request.model_id)
        if model is None:
            raise LoadFailed(f"The router has no model {request.model_id}.", code=ErrorCode.NOT_DOWNLOADED)
        if request.extra_args:
            raise RuntimeRefused("Its router starts it with arguments of its own: put further ones into its preset.")
        if request.chat_template:
            raise RuntimeRefused("Its router gives it a chat template: set chat-template-file in its preset.")
        if request.is_embedding and not model.is_embedding:
            raise RuntimeRefused("Its router starts it for chat: set embeddings = true in its preset.")
        if words := differences(request.parameters, model.arguments):
            raise RuntimeRefused(
                f"Its router starts it with arguments of its own: {'; '.join(words)}. Change its preset, or leave these empty here."
            )

    def note_for(self, request: LoadRequest) -> LoadNote:
        """Under the name by which the router knows it."""
        return LoadNote(request.instance_id, request.model_id, request.model_id, is_embedding=request.is_embedding)

    def prepare(self, note: LoadNote, wanted: Sequence[LoadNote]) -> RouterClient:
        """Refuse what would make the router unload another model by itself, to keep its limit."""
        most = self.max_models = self._client.facts().max_models
        running = [model for model in self._client.models() if model.is_running]
        is_there = any(model.answers_to(note.name) for model in running)
        if most and len(running) >= most and not is_there:
            count = "one model" if most == 1 else f"{most} models"
            raise LoadFailed(f"This router holds {count} at once (--models-max): unload {running[0].name} first.")
        return self._client

    def release(self) -> None:
        """Nothing: it is not ours."""

    def processes(self) -> Mapping[str, ModelProcess]:
        """None that could be proven."""
        return {}

    def kill(self, name: str) -> bool:
        """Its processes are not ours."""
        return False

    def ending(self) -> Ending | None:
        """Nobody tells."""
        return None

    def log_of(self, note: LoadNote, lines: int) -> tuple[str, ...]:
        """None: its log is where its owner sends it."""
        return ()

    def file_of(self, model: RouterModel) -> Path | None:
        """What its arguments name, when the router is on this machine."""
        path = model.option("--model", "-m")
        return Path(path) if path and httpx.URL(self._client.url).host in LOOPBACK else None


def differences(parameters: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """What a model is started with otherwise than it is wanted, in words.

    Raises:
        RuntimeRefused: the parameters make no sense.
    """
    try:
        wanted = validate_parameters(parameters).as_dict()
    except ParameterInvalid as exc:
        raise RuntimeRefused(str(exc)) from exc
    there = parameters_in(arguments)
    return [
        f"{name} is {there[name]} there, not {value}" if name in there else f"{name} is not set there"
        for name, value in wanted.items()
        if there.get(name) != value
    ]
