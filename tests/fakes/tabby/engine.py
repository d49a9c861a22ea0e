"""What is loaded, what loads, what answers: the double's state, with TabbyAPI's order of things.

Loads queue and each runs to its end whether or not its client stays. The old model goes first, after its generations
have ended. An unload does not wait for them: it cuts them off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.fakes.tabby.clock import Clock
from tests.fakes.tabby.library import FakeModel

TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}"
BACKENDS = ("exllamav3",)
Tell = Callable[[dict[str, Any]], None]


class EngineError(Exception):
    """A load failed; the text is what the client gets."""


class GoneError(EngineError):
    """Somebody else unloaded it in between."""

    def __init__(self) -> None:
        super().__init__("'NoneType' object has no attribute 'unload'")


@dataclass(eq=False)
class Job:
    """One generation."""

    is_cut: bool = False  # the model was unloaded under it
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def cut(self) -> None:
        """End it early."""
        self.is_cut = True
        self.changed.set()


@dataclass(eq=False)
class Loaded:
    """The model that answers."""

    path: str
    model: FakeModel
    options: Mapping[str, Any]
    jobs: set[Job] = field(default_factory=set)
    is_leaving: bool = False  # an unload or another load has begun to take it away
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """As the server shows it: the last component only."""
        return self.path.rpartition("/")[2]

    @property
    def cache_size(self) -> int:
        """Tokens that fit."""
        return int(self.options.get("cache_size") or self.max_seq_len)

    @property
    def max_seq_len(self) -> int:
        """Tokens of one conversation."""
        return int(self.options.get("max_seq_len") or self.model.max_seq_len)

    @property
    def chunk_size(self) -> int:
        """Tokens that are read at once, and kept free for that."""
        return int(self.options.get("chunk_size") or 2048)

    def parameters(self) -> dict[str, Any]:
        """As on its card."""
        has_template = self.model.has_template
        return {
            "max_seq_len": self.max_seq_len,
            "cache_size": self.cache_size,
            "cache_mode": self.options.get("cache_mode") or "FP16",
            "rope_scale": 1.0,
            "rope_alpha": 1.0,
            "max_batch_size": 128,
            "chunk_size": self.chunk_size,
            "prompt_template": (self.options.get("prompt_template") or "from_tokenizer_config")
            if has_template
            else None,
            "prompt_template_content": TEMPLATE if has_template else None,
            "use_vision": bool(self.options.get("vision")) and self.model.vision_modules > 0,
            "draft": None,
        }

    def begin_job(self) -> Job:
        """A generation starts."""
        job = Job()
        self.jobs.add(job)
        self.idle.clear()
        return job

    def end_job(self, job: Job) -> None:
        """A generation is over, in whatever way."""
        self.jobs.discard(job)
        if not self.jobs:
            self.idle.set()


class Engine:
    """One GPU that holds one model at a time."""

    def __init__(self, models: dict[str, FakeModel], clock: Clock) -> None:
        """Hold nothing."""
        self.models = models
        self.clock = clock
        self.loaded: Loaded | None = None
        self.issues: list[dict[str, str]] = []  # what /health tells, for good
        self.history: list[str] = []  # "load beta-13b", "unload alpha-7b", "fail broken-8b"
        self.unload_seconds = 0.06
        self.finish_seconds = 0.2  # from the last module to the end of the stream
        self.send_tracebacks = False
        self._queue = asyncio.Lock()  # first come, first served
        self._taking_away = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    def put(self, path: str, options: Mapping[str, Any] | None = None) -> None:
        """Have a model loaded, at once and without a trace."""
        self.loaded = Loaded(path, self.models[path], dict(options or {}))

    def fail_engine(self) -> None:
        """An error within a generation: told by /health until the process ends."""
        text = "RuntimeError: double: an illegal memory access was encountered"
        time = datetime.now(UTC).replace(tzinfo=None).isoformat() + "Z"
        self.issues.append({"time": time, "description": text})

    # Loading

    def start_load(
        self, path: str, options: Mapping[str, Any], tell: Tell, done: Callable[[], None]
    ) -> asyncio.Task[bool]:
        """Load in a task of its own, which nothing can stop. It gives whether the model was loaded."""
        task = asyncio.ensure_future(self._carry_out(path, options, tell, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _carry_out(self, path: str, options: Mapping[str, Any], tell: Tell, done: Callable[[], None]) -> bool:
        try:
            async with self._queue:
                await self._load(path, options, tell)
            return True
        except EngineError as exc:
            self.history.append(f"fail {path}")
            trace = "NoneType: None\n" if self.send_tracebacks else None
            tell({"error": {"message": str(exc), "trace": trace}})
            return False
        finally:
            done()

    async def _load(self, path: str, options: Mapping[str, Any], tell: Tell) -> None:
        if self.loaded is not None and self.loaded.path == path:
            tell(_step("model", 1, 1, "processing"))
            tell(_step("model", 1, 1, "finished"))
            return
        if self.loaded is not None:
            await self.take_away(cut=False)
        model = self.models.get(path)
        self._check(path, model, options)
        assert model is not None
        for kind, part in self._parts(model, options):
            await self._load_part(kind, part, tell)
        await self.clock.sleep(self.finish_seconds)
        if model.fails_late:
            raise EngineError(model.error)
        self.history.append(f"load {path}")
        self.loaded = Loaded(path, model, dict(options))

    def _check(self, path: str, model: FakeModel | None, options: Mapping[str, Any]) -> None:
        backend = options.get("backend")
        if backend and backend not in BACKENDS:
            raise EngineError(f"Invalid backend '{backend}'. Available backends: {list(BACKENDS)}")
        if model is None or not model.is_model:
            raise EngineError(f"Failed to load config.json from /models/{path}".removesuffix("/."))
        if model.refuses_with:
            raise EngineError(model.refuses_with)
        draft = _draft_name(options)
        if draft and draft not in self.models:
            raise EngineError(f"[Errno 2] No such file or directory: '/models/{draft}/config.json'")

    def _parts(self, model: FakeModel, options: Mapping[str, Any]) -> list[tuple[str, FakeModel]]:
        parts = [("model", model)]
        if draft := _draft_name(options):
            parts.insert(0, ("draft", self.models[draft]))
        if options.get("vision") and model.vision_modules:
            parts.insert(0, ("vision", FakeModel(model.vision_modules, model.module_seconds)))
        return parts

    async def _load_part(self, kind: str, part: FakeModel, tell: Tell) -> None:
        for number in range(1, part.modules + 1):
            await self.clock.sleep(part.module_seconds)
            if kind == "model" and number == part.fails_at:
                raise EngineError(part.error)
            tell(_step(kind, number, part.modules, "processing"))
        tell(_step(kind, part.modules, part.modules, "finished"))

    # Unloading

    async def take_away(self, *, cut: bool) -> None:
        """Unload; `cut` ends its generations, else they are waited for.

        Raises:
            GoneError: somebody else was faster.
        """
        async with self._taking_away:
            leaving = self.loaded
            if leaving is None:
                raise GoneError
            leaving.is_leaving = True
            for job in [*leaving.jobs] if cut else []:
                job.cut()
            if leaving.jobs and not cut:
                await leaving.idle.wait()
            await self.clock.sleep(self.unload_seconds)
            self.history.append(f"unload {leaving.path}")
            self.loaded = None
            leaving.gone.set()


def _step(kind: str, module: int, modules: int, status: str) -> dict[str, Any]:
    return {"model_type": kind, "module": module, "modules": modules, "status": status}


def _draft_name(options: Mapping[str, Any]) -> str:
    return (options.get("draft_model") or {}).get("draft_model_name") or ""
