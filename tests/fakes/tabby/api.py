"""TabbyAPI's endpoints, on the double's engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.fakes.tabby import chats
from tests.fakes.tabby.bodies import ChatBody, CompletionBody, LoadBody, TokenBody, parse_json, validate
from tests.fakes.tabby.engine import Engine, GoneError, Loaded
from tests.fakes.tabby.keys import Keys
from tests.fakes.tabby.library import directories
from tests.fakes.tabby.wire import Answer, Connection, Refusal, Request, json_answer, refusal, server_fault

NO_PATH = "Could not find the model path for load. Check model name or config.yml?"
_PROJECT = "https://github.com/theroyallab/tabbyAPI"
_DOCS = "https://theroyallab.github.io/tabbyAPI"
SERVICE = {
    "version": 0.1,
    "software": {"name": "TabbyAPI", "repository": _PROJECT, "homepage": _PROJECT},
    "api": {
        "openai": {"name": "OpenAI API", "relative_url": "/v1", "documentation": _DOCS, "version": 1},
        "koboldai": {"name": "KoboldAI API", "relative_url": "/api", "documentation": _DOCS, "version": 1},
    },
}
Handler = Callable[["Api", Request, Any, Connection], Awaitable[Answer | None]]


class Api:
    """Answers requests. The knobs may be changed at any time."""

    def __init__(self, engine: Engine, keys: Keys) -> None:
        """Serve one engine."""
        self.engine = engine
        self.keys = keys
        self.ping_seconds = 15.0  # 0: none
        self.token_seconds = 0.03
        self.loads_inline = False  # `inline_model_loading`
        self.dummy_models: list[str] = []  # `use_dummy_models`
        self.drops_load_after: int | None = None  # events of a load stream, then its connection breaks

    async def answer(self, request: Request, connection: Connection) -> None:
        """Serve one request, whatever it is."""
        try:
            answer = await self._route(request, connection)
        except Refusal as exc:
            answer = exc.answer
        if answer is not None:
            await connection.send(answer, is_head=request.method == "HEAD")

    async def _route(self, request: Request, connection: Connection) -> Answer | None:
        route = ROUTES.get(request.path)
        if route is None:
            raise refusal(404, "Not Found")
        method, handler = route
        if request.method != method:
            wrong = refusal(405, "Method Not Allowed").answer
            raise Refusal(Answer(wrong.status, wrong.body, headers={"allow": method}))
        return await handler(self, request, parse_json(request), connection)

    # Open to everybody

    async def health(self, _request: Request, _data: Any, _connection: Connection) -> Answer:
        issues = self.engine.issues
        told = {"status": "unhealthy" if issues else "healthy", "issues": issues}
        return json_answer(told, 503 if issues else 200)

    async def service_info(self, _request: Request, _data: Any, _connection: Connection) -> Answer:
        return json_answer(SERVICE)

    async def openapi(self, _request: Request, _data: Any, _connection: Connection) -> Answer:
        return json_answer({"openapi": "3.1.0", "info": {"title": "TabbyAPI"}, "paths": {path: {} for path in ROUTES}})

    async def page(self, _request: Request, _data: Any, _connection: Connection) -> Answer:
        return Answer(200, b"<!DOCTYPE html><title>TabbyAPI</title>", "text/html; charset=utf-8")

    # For everybody with a key

    async def permission(self, request: Request, _data: Any, _connection: Connection) -> Answer:
        self.keys.check_api(request.headers)
        role = self.keys.permission(request.headers)
        if not role:
            raise refusal(400, "The provided authentication key is invalid.")
        return json_answer({"permission": role})

    async def models(self, request: Request, _data: Any, _connection: Connection) -> Answer:
        self.keys.check_api(request.headers)
        loaded = self.engine.loaded
        if self.keys.is_admin(request.headers):
            names = directories(self.engine.models)
        else:
            names = [loaded.id] if loaded else []
        return json_answer({"object": "list", "data": [_card(name) for name in [*self.dummy_models, *names]]})

    async def model(self, request: Request, _data: Any, _connection: Connection) -> Answer:
        self.keys.check_api(request.headers)
        loaded = self._loaded()
        return json_answer(_card(loaded.id, loaded.parameters()))

    async def props(self, request: Request, _data: Any, _connection: Connection) -> Answer:
        self.keys.check_api(request.headers)
        shown = self._loaded().parameters()
        told = {
            "total_slots": shown["max_batch_size"],
            "chat_template": shown["prompt_template_content"],
            "default_generation_settings": {"n_ctx": shown["max_seq_len"]},
        }
        return json_answer(told)

    async def encode(self, request: Request, data: Any, _connection: Connection) -> Answer:
        self.keys.check_api(request.headers)
        self._loaded()
        words = validate(TokenBody, data).text.split()
        return json_answer({"tokens": [1, *(sum(word.encode()) for word in words)], "length": len(words) + 1})

    async def embed(self, request: Request, _data: Any, _connection: Connection) -> Answer:
        self.keys.check_api(request.headers)
        raise refusal(503, "No embedding models are currently loaded.")

    async def chat(self, request: Request, data: Any, connection: Connection) -> Answer | None:
        self.keys.check_api(request.headers)
        return await self._generate(request, validate(ChatBody, data), connection)

    async def complete(self, request: Request, data: Any, connection: Connection) -> Answer | None:
        self.keys.check_api(request.headers)
        return await self._generate(request, validate(CompletionBody, data), connection)

    # For administrators

    async def load(self, request: Request, data: Any, connection: Connection) -> Answer | None:
        self.keys.check_admin(request.headers)
        body = validate(LoadBody, data)
        path = self._path(body.model_name)
        told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        options = body.model_dump(exclude_none=True, exclude={"model_name"})
        self.engine.start_load(path, options, told.put_nowait, lambda: told.put_nowait(None))
        await self._events(connection, self._send_load(connection, told))
        return None

    async def unload(self, request: Request, _data: Any, _connection: Connection) -> Answer:
        self.keys.check_admin(request.headers)
        self._loaded()
        try:
            await self.engine.take_away(cut=True)
        except GoneError as exc:
            raise server_fault() from exc
        return json_answer(None)

    # Bits

    def _loaded(self) -> Loaded:
        if self.engine.loaded is None:
            raise refusal(503, chats.NONE_LOADED)
        return self.engine.loaded

    def _path(self, name: str) -> str:
        """The directory that a name means."""
        if not name:
            raise refusal(400, "A model name was not provided for load.")
        path = "/".join(part for part in name.split("/") if part not in {"", "."}) or "."
        known = {".", *self.engine.models, *directories(self.engine.models)}
        if path not in known:
            raise refusal(400, NO_PATH)
        return path

    async def _send_load(self, connection: Connection, told: asyncio.Queue[dict[str, Any] | None]) -> None:
        count = 0
        while (event := await told.get()) is not None:
            if count == self.drops_load_after:
                connection.break_off()
                return
            await connection.send_event(event)
            count += 1

    async def _generate(
        self, request: Request, body: ChatBody | CompletionBody, connection: Connection
    ) -> Answer | None:
        if self.loads_inline and body.model:
            await self._load_inline(request, body.model)
        if self.engine.loaded is None:
            raise server_fault() if body.model else refusal(503, chats.NONE_LOADED)
        generation = chats.prepare(self.engine, self.engine.loaded, body, self.token_seconds)
        if not body.stream:
            return await generation.whole()
        await self._events(connection, generation.stream(connection))
        return None

    async def _load_inline(self, request: Request, name: str) -> None:
        """Have the named model loaded first, for administrators; nobody hears of it before it is."""
        loaded = self.engine.loaded
        is_there = loaded is not None and loaded.id == name and not loaded.is_leaving
        if is_there:
            return
        if not self.keys.is_admin(request.headers):
            raise refusal(401, f"Unable to switch model to {name} because an admin key isn't provided")
        if name not in self.engine.models:
            return
        task = self.engine.start_load(name, {}, lambda _event: None, lambda: None)
        has_loaded = await asyncio.shield(task)
        if not has_loaded or self.engine.loaded is None or self.engine.loaded.is_leaving:
            raise server_fault()

    async def _events(self, connection: Connection, work: Awaitable[None]) -> None:
        """An event stream with pings, until the work is done."""
        await connection.begin_events()
        pings = asyncio.ensure_future(self._ping(connection))
        try:
            await work
        finally:
            pings.cancel()
        await connection.end_events()

    async def _ping(self, connection: Connection) -> None:
        while self.ping_seconds:
            await self.engine.clock.sleep(self.ping_seconds)
            await connection.send_ping()


def _card(name: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "tabbyAPI",
        "logging": None,
        "parameters": parameters,
    }


ROUTES: dict[str, tuple[str, Handler]] = {
    "/health": ("GET", Api.health),
    "/.well-known/serviceinfo": ("GET", Api.service_info),
    "/openapi.json": ("GET", Api.openapi),
    "/docs": ("GET", Api.page),
    "/redoc": ("GET", Api.page),
    "/v1/auth/permission": ("GET", Api.permission),
    "/v1/models": ("GET", Api.models),
    "/v1/model/list": ("GET", Api.models),
    "/v1/model": ("GET", Api.model),
    "/props": ("GET", Api.props),
    "/v1/model/load": ("POST", Api.load),
    "/v1/model/unload": ("POST", Api.unload),
    "/v1/chat/completions": ("POST", Api.chat),
    "/v1/completions": ("POST", Api.complete),
    "/v1/token/encode": ("POST", Api.encode),
    "/v1/embeddings": ("POST", Api.embed),
}
