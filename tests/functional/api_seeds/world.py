"""A running Gantry with the real llama-server, memory for one model, people of each role and keys of each scope."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import ServerSentEvent, connect_sse

from tests.functional.stack import Stack, start_stack, wait_until
from tests.integration.llama_server.helpers import wrapper
from tests.integration.real_switches.held import HeldLoad
from tests.tiny_gguf import write_not_gguf, write_tiny_model

MIB = 1024**2
MEMORY = "fixed:400MiB"  # for one of the models, and not for two
WAIT_SECONDS = 60.0
# Ids as the documents have them. Each is a small model of its own; `held` loads only as far as a test lets it.
GPT, QWEN, LLAMA, HELD = "gpt-oss-20b-mxfp4", "Qwen/Qwen2.5-0.5B-Instruct", "Llama-3.1-8B-Instruct", "held"
LARGE, GONE, DAMAGED = "gpt-oss-120b", "not-there", "damaged"
SURROUNDINGS = """
case "$*" in
*/held.gguf*) kill -STOP $$ ;;
esac
exec @SERVER@ "$@"
"""
_FILES = {GPT: "gpt", QWEN: "qwen", LLAMA: "llama", HELD: "held", LARGE: "large", GONE: "gone", DAMAGED: "damaged"}
_SETUP = """
import json
from django.contrib.auth.models import Group, User
from models_admin import catalog, keys
from models_admin.actor import Actor
from models_admin.models import ModelDefinition, Runtime
runtime = Runtime.objects.get(kind="llama_server")
models = [
    ModelDefinition.objects.create(
        model_id=model_id, name=model_id.rpartition("/")[2], path=f"{{file}}.gguf", runtime=runtime,
        parameters={{"ctx_size": 2048, "threads": 1, "parallel": 1, "batch_size": 32, "no_mmap": True}},
    )
    for model_id, file in {files!r}.items()
]
catalog.refresh_availability(models)
people = {{"ann": User.objects.get(username="ann")}}
for name, role in (("ole", "Operator"), ("mia", "Member")):
    people[name] = User.objects.create_user(name, password=f"pass-{{name}}")
    people[name].groups.set([Group.objects.get(name=role)])
tokens = {{
    f"{{name}}:{{scope}}": keys.create_key(user, actor=Actor(user, "command"), name=scope, scopes=[scope])[1]
    for name, user in people.items() for scope in ("status", "chat", "switch", "admin")
}}
print(json.dumps(tokens))
"""
_ASK = """
import json
from models_admin.models import {model}
print(json.dumps(list({model}.objects.{what}), default=str))
"""
Event = tuple[str, dict[str, Any]]


@dataclass
class World:
    """What a client can do and see."""

    stack: Stack
    tokens: dict[str, str] = field(repr=False)  # "person:scope" -> key
    client: httpx.Client = field(repr=False)

    @property
    def url(self) -> str:
        """Ends with a slash."""
        return self.stack.url

    def headers(self, who: str = "ann:admin") -> dict[str, str]:
        """Of a request with this key."""
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def get(self, path: str, who: str = "ann:admin") -> httpx.Response:
        """Ask with a key."""
        return self.client.get(path, headers=self.headers(who))

    def post(self, path: str, body: Any = None, who: str = "ann:admin", **params: Any) -> httpx.Response:
        """Ask for something with a key."""
        return self.client.post(path, json=body, params=params, headers=self.headers(who))

    def switch(self, model_id: str) -> None:
        """Make a model the one that serves, whatever does now."""
        answer = self.post("/api/llm-switch", {"model_id": model_id, "confirm": True})
        assert answer.status_code == 200, answer.text

    @contextmanager
    def stream(self, model_id: str, **params: Any) -> Iterator[Iterator[ServerSentEvent]]:
        """A switch as it is told."""
        headers, body = self.headers(), {"target_model": model_id}
        with connect_sse(self.client, "POST", "/v1/models/switch", json=body, headers=headers, params=params) as source:
            assert source.response.status_code == 200, source.response.read()
            yield source.iter_sse()

    def held(self) -> HeldLoad:
        """The load of the model that loads only as far as it is let."""
        [state_dir] = (self.stack.data_dir / "runtime").glob("llama_server-*")
        return HeldLoad(state_dir, self.stack.data_dir / "models" / "held.gguf")

    def ask(self, model: str, what: str) -> Any:
        """What the rows say: `what` is a query that ends in values."""
        done = self.stack.manage("shell", "-v", "0", "-c", _ASK.format(model=model, what=what))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def wait_for_end(self) -> None:
        """Until no job is under way."""
        wait_until(lambda: self.get("/api/llm-status").json()["job_id"] is None, WAIT_SECONDS)


def events_of(source: Iterator[ServerSentEvent]) -> list[Event]:
    """The rest of a stream."""
    return [(event.event, json.loads(event.data)) for event in source]


@contextmanager
def start_world(folder: Path, **env: str) -> Iterator[World]:
    """Start it; ended when the block ends."""
    models = folder / "data" / "models"
    models.mkdir(parents=True)
    for seed, name in enumerate(("gpt", "qwen", "llama")):
        write_tiny_model(models / f"{name}.gguf", seed=seed, padding_bytes=200 * MIB)
    # A tensor is read in one go: many small ones, so that a load can be stopped anywhere.
    write_tiny_model(models / "held.gguf", n_layers=16, padding_bytes=200 * MIB)
    write_tiny_model(models / "large.gguf", padding_bytes=1024 * MIB)
    write_not_gguf(models / "damaged.gguf")
    own = {"GANTRY_MEMORY": MEMORY, "GANTRY_LLAMA_SERVER": str(wrapper(folder, SURROUNDINGS))}
    stack = start_stack(folder / "data", {**own, **env})
    try:
        done = stack.manage("shell", "-v", "0", "-c", _SETUP.format(files=_FILES))
        assert done.returncode == 0, done.stderr
        with httpx.Client(base_url=stack.url, timeout=WAIT_SECONDS, trust_env=False) as client:
            yield World(stack, json.loads(done.stdout), client)
    finally:
        stack.stop()
