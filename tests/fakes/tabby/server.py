"""The double as a real server on loopback, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

from tests.fakes.tabby.api import Api
from tests.fakes.tabby.clock import ManualClock, RealClock, settle
from tests.fakes.tabby.engine import Engine
from tests.fakes.tabby.keys import Keys
from tests.fakes.tabby.library import FakeModel, standard_models
from tests.fakes.tabby.wire import Canned, Connection, Request, read_request

PATIENCE_SECONDS = 20.0  # for a test to see what it waits for
Result = TypeVar("Result")


class TabbyDouble:
    """Speaks TabbyAPI's wire. A context manager; `url`, `api_key` and `admin_key` say how it is reached.

    Knobs, all of them settable while it runs: `models` (path -> FakeModel: module count, delay, failures), `engine`
    (`unload_seconds`, `finish_seconds`, `send_tracebacks`), `api` (`ping_seconds`, `token_seconds`, `loads_inline`,
    `dummy_models`, `drops_load_after`), `keys`, `canned` (path -> trouble in place of the answer), `slow_seconds`.
    """

    def __init__(
        self,
        *,
        module_seconds: float = 0.005,
        models: dict[str, FakeModel] | None = None,
        is_manual: bool = False,
        port: int = 0,
    ) -> None:
        """Build it; nothing listens yet.

        Args:
            module_seconds: how long a module takes in the standard models; other times are in proportion.
            models: what is on its disk, in place of the standard models.
            is_manual: its time stands still until `advance`.
            port: 0 chooses one.
        """
        self.clock: RealClock | ManualClock = ManualClock() if is_manual else RealClock()
        self.engine = Engine(standard_models(module_seconds) if models is None else models, self.clock)
        self.engine.unload_seconds = module_seconds
        self.engine.finish_seconds = 3 * module_seconds
        self.keys = Keys()
        self.api = Api(self.engine, self.keys)
        self.api.token_seconds = module_seconds / 2
        self.canned: dict[str, Canned] = {}
        self.slow_seconds = 0.0  # before each answer
        self.requests: list[Request] = []  # all that were read, oldest first
        self.departures = 0  # clients that left before their answer was over
        self.port = port
        self._server: asyncio.Server | None = None
        self._handlers: set[asyncio.Task[None]] = set()

    # How it is reached

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_key(self) -> str:
        """The first API key."""
        return self.keys.api_keys[0]

    @property
    def admin_key(self) -> str:
        """The admin key."""
        return self.keys.admin_key

    @property
    def models(self) -> dict[str, FakeModel]:
        """What is on its disk, path -> model."""
        return self.engine.models

    @property
    def loaded(self) -> str | None:
        """Path of the model that answers."""
        return self.engine.loaded.path if self.engine.loaded else None

    # Running

    def __enter__(self) -> Self:
        """Listen."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tabby-double", daemon=True)
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.cut()
        self.call(self._cancel_all)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()

    def listen(self) -> None:
        """Accept connections; after `cut` again on the same port."""

        async def start() -> None:
            self._server = await asyncio.start_server(self._handle, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

        self.call(start)

    def cut(self) -> None:
        """End as by a signal: connections break in the middle, then the port refuses."""

        async def stop() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            for handler in [*self._handlers]:
                handler.cancel()
            await asyncio.gather(*self._handlers, return_exceptions=True)

        self.call(stop)

    def call(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Do something in the double's own thread."""

        async def run() -> Result:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE_SECONDS)

    # For tests

    def put(self, path: str, **options: Any) -> None:
        """Have a model loaded at once, as if somebody had loaded it long ago."""

        async def put() -> None:
            self.engine.put(path, options)

        self.call(put)

    def drop(self) -> None:
        """Have nothing loaded, as if somebody had unloaded it."""

        async def drop() -> None:
            self.engine.loaded = None

        self.call(drop)

    def advance(self, seconds: float) -> None:
        """Let a manual clock run for so long."""
        clock = self.clock
        assert isinstance(clock, ManualClock), "only a manual clock is advanced"
        self.call(lambda: clock.advance(seconds))

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        """Return when something has come to be and its consequences too.

        Raises:
            TimeoutError: it did not.
        """

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not is_so():  # noqa: ASYNC110 # what is waited for may be anything
                    await asyncio.sleep(0.001)
            await settle()

        self.call(wait)

    def count(self, path: str) -> int:
        """How many requests for a path were read."""
        return sum(request.path == path for request in self.requests)

    # Connections

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            request = await read_request(reader)
            self.requests.append(request)
            await self._serve(request, reader, Connection(writer, request.headers.get("origin", "")))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._handlers.discard(task)
            writer.close()

    async def _serve(self, request: Request, reader: asyncio.StreamReader, connection: Connection) -> None:
        """Answer, unless the client leaves first: then its generation ends."""
        work = asyncio.ensure_future(self._answer(request, connection))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            tasks: list[asyncio.Task[Any]] = [work, leaving]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.departures += 1
        finally:
            for task in (work, leaving):
                task.cancel()
            await asyncio.gather(work, leaving, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _answer(self, request: Request, connection: Connection) -> None:
        if self.slow_seconds:
            await self.clock.sleep(self.slow_seconds)
        if canned := self.canned.get(request.path):
            await connection.send_canned(canned)
            if canned.is_truncated:
                connection.break_off()
            return
        await self.api.answer(request, connection)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
