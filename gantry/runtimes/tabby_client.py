"""What is asked of TabbyAPI over HTTP. No httpx error leaves this module, and no key.

Source: TabbyAPI at e632af4, recorded on the wire. `Authorization: Bearer` carries either key to every endpoint; only one key is sent
with a request, for a wrong one beside a right one is answered 500.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import httpx

from gantry.planning.states import ErrorCode
from gantry.runtimes.bounded_reading import UnreadableError, one_line, read_all, read_events, read_json
from gantry.runtimes.exceptions import RuntimeAway, RuntimeFault, RuntimeRefused

CONNECT_SECONDS = 5.0
# While the engine builds its objects the server may answer nothing for seconds, and is well all the same.
QUICK_SECONDS = 15.0
UNLOAD_SECONDS = 60.0
VERIFY_SECONDS = 60.0
SILENCE_SECONDS = 60.0  # of a load's stream, pings counted: four of them at TabbyAPI's usual 15 s


class Key(Enum):
    """Which of the two keys a request carries; the value is what people call it."""

    NONE = "key"
    API = "API key"
    ADMIN = "admin key"


@dataclass(frozen=True, slots=True)
class CurrentModel:
    """The model that is loaded."""

    id: str  # last component of its directory
    parameters: Mapping[str, Any]  # as on its card, without long texts


@dataclass(frozen=True, slots=True)
class Reply:
    """A plain answer. `data` is what the JSON says."""

    status: int
    data: Any


@dataclass(frozen=True)
class TabbyAddress:
    """Where a server is, and what opens it."""

    url: str
    api_key: str = field(default="", repr=False)
    admin_key: str = field(default="", repr=False)

    def endpoint(self, path: str) -> str:
        """The address of an endpoint.

        Raises:
            RuntimeRefused: there are credentials in it, which would end up in pages and logs.
        """
        if "@" in self.url:
            raise RuntimeRefused("The address holds a user name or password: TabbyAPI takes keys only.")
        return f"{self.url}{path}"

    def headers(self, key: Key) -> dict[str, str]:
        """What carries the key.

        Raises:
            RuntimeRefused: it cannot be sent. Told without the key, which the error of any library would show.
        """
        text = {Key.NONE: "", Key.API: self.api_key, Key.ADMIN: self.admin_key}[key]
        if not text:
            return {}
        if not text.isascii() or not text.isprintable() or text != text.strip():
            raise RuntimeRefused(f"The {key.value} has characters that no key has.", code=ErrorCode.UNAUTHORISED)
        return {"Authorization": f"Bearer {text}"}

    def scrub(self, text: str) -> str:
        """A server's words without our keys, should it repeat them."""
        for key in (self.api_key, self.admin_key):
            text = text.replace(key, "…") if key else text
        return text


# The most specific first. The words follow "TabbyAPI".
_FAULTS: tuple[tuple[type[Exception], str], ...] = (
    (httpx.ConnectTimeout, "could not be reached in time"),
    (httpx.ConnectError, "could not be reached: nothing answers at its address"),
    (httpx.UnsupportedProtocol, "has no usable address: it begins with http:// or https://"),
    (httpx.InvalidURL, "has no usable address"),
    (httpx.TimeoutException, "did not answer in time"),
    (httpx.TransportError, "broke the connection"),
    (UnreadableError, "sent an answer that cannot be read: its address may belong to another program"),
    (Exception, "did not answer properly"),
)
_TROUBLE = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError)


class TabbyClient:
    """Questions to one TabbyAPI. Any thread may ask.

    Raises (all methods): RuntimeAway, RuntimeRefused.
    """

    def __init__(
        self, address: TabbyAddress, transport: httpx.BaseTransport | None = None, silence: float | None = None
    ) -> None:
        """Open no connection yet.

        Args:
            transport: what stands in for the network.
            silence: seconds without a byte after which a load's stream counts as broken; None: SILENCE_SECONDS.
        """
        self._address = address
        self._silence = silence
        # Kept connections would outlive the server's own patience of 5 s and break under the next request.
        limits = httpx.Limits(max_connections=20, max_keepalive_connections=0)
        self._http = httpx.Client(limits=limits, trust_env=False, transport=transport)

    # Reading

    def service_name(self) -> str:
        """What program answers there."""
        return one_line(_at(self._ask("GET", "/.well-known/serviceinfo", Key.NONE).data, "software", "name"))

    def permission(self, key: Key) -> str:
        """What a key opens: `api` or `admin`."""
        return one_line(_at(self._ask("GET", "/v1/auth/permission", key).data, "permission"))

    def health_issue(self) -> str:
        """The last error of its engine; "" when there was none since it was started."""
        issues = _at(self._ask("GET", "/health", Key.NONE, also=(503,)).data, "issues")
        last = issues[-1] if isinstance(issues, list) and issues else None
        return self._address.scrub(one_line(_at(last, "description")))

    def current(self) -> CurrentModel | None:
        """What is loaded; None when nothing is, or while something loads: the wire does not tell these apart."""
        key = Key.API if self._address.api_key else Key.ADMIN
        reply = self._ask("GET", "/v1/model", key, also=(503,))
        if reply.status == httpx.codes.SERVICE_UNAVAILABLE:
            return None
        name = _at(reply.data, "id")
        if not isinstance(name, str) or not name or name != one_line(name):
            raise RuntimeAway("TabbyAPI named no model in its answer.")
        return CurrentModel(name, _plain(_at(reply.data, "parameters")))

    def require_admin(self) -> None:
        """Make sure that the admin key is one: an API key is answered too, with another list of models.

        Raises:
            RuntimeRefused: it is not.
        """
        if self.permission(Key.ADMIN) != "admin":
            words = "The admin key is one of TabbyAPI's API keys: it may not load models."
            raise RuntimeRefused(words, code=ErrorCode.UNAUTHORISED)

    def names(self) -> list[str]:
        """Directories below its model directory, usable or not, in its own order."""
        self.require_admin()
        cards = _at(self._ask("GET", "/v1/model/list", Key.ADMIN).data, "data")
        if not isinstance(cards, list):
            raise RuntimeAway("TabbyAPI gave no list of models.")
        names = (_at(card, "id") for card in cards)
        return list(dict.fromkeys(name for name in names if isinstance(name, str) and name and name == one_line(name)))

    # Asking for something

    def unload(self) -> None:
        """Unload what is loaded, and return when it is gone. Nothing loaded is no error; running answers are cut off."""
        self._ask("POST", "/v1/model/unload", Key.ADMIN, UNLOAD_SECONDS, also=(503,))

    @contextmanager
    def load(self, body: Mapping[str, Any]) -> Generator[Iterator[dict[str, Any]], None, None]:
        """Ask for a load; gives its events. Leaving early does not stop it.

        Raises:
            RuntimeAway: also in the middle, when the connection breaks: the load may go on.
            RuntimeRefused: before anything happened. `code` is NOT_DOWNLOADED for a model that is not there.
        """
        timeout = httpx.Timeout(self._silence or SILENCE_SECONDS, connect=CONNECT_SECONDS, write=QUICK_SECONDS)
        with self._translated(), self._open("POST", "/v1/model/load", Key.ADMIN, timeout, body) as answer:
            if answer.status_code != httpx.codes.OK:
                self._judge(Key.ADMIN, self._reply(answer, QUICK_SECONDS))
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                raise UnreadableError("no stream")
            yield read_events(answer.iter_bytes())

    def first_token(self) -> tuple[str, str]:
        """Ask whatever is loaded for one token: who answered, and what.

        A model without a chat template is asked for a plain continuation.
        """
        body: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "stream_options": {"include_usage": True}}
        # No `model` in the body: with inline loading on, a name could have another one loaded.
        chat = body | {"messages": [{"role": "user", "content": "Hello"}]}
        reply = self._ask("POST", "/v1/chat/completions", Key.API, VERIFY_SECONDS, chat, also=(422,))
        if reply.status != httpx.codes.OK:
            reply = self._ask("POST", "/v1/completions", Key.API, VERIFY_SECONDS, body | {"prompt": "Hello"})
        count = _at(reply.data, "usage", "completion_tokens")
        text = _at(reply.data, "choices", 0, "message", "content") or _at(reply.data, "choices", 0, "text")
        # The count and not the text alone: the first token may be one that is not shown.
        if not (isinstance(text, str) and text) and not (isinstance(count, int) and count > 0):
            raise RuntimeRefused("It answered without a token.", code=ErrorCode.VERIFY_FAILED)
        return one_line(_at(reply.data, "model")), one_line(text)

    def scrub(self, text: str) -> str:
        """The server's words, without our keys should it repeat them."""
        return self._address.scrub(text)

    # Bits

    def _ask(
        self,
        method: str,
        path: str,
        key: Key,
        seconds: float = 0.0,
        body: Any = None,
        *,
        also: tuple[int, ...] = (),
    ) -> Reply:
        """A plain answer with status 200, or one of `also`. `seconds`: within which; 0 for what is answered at once."""
        seconds = seconds or QUICK_SECONDS
        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        with self._translated(), self._open(method, path, key, timeout, body) as answer:
            reply = self._reply(answer, seconds)
        if reply.status != httpx.codes.OK and reply.status not in also:
            self._judge(key, reply)
        return reply

    def _open(self, method: str, path: str, key: Key, timeout: httpx.Timeout, body: Any) -> Any:
        headers = self._address.headers(key) | {"Accept-Encoding": "identity"}
        return self._http.stream(method, self._address.endpoint(path), headers=headers, json=body, timeout=timeout)

    def _reply(self, answer: httpx.Response, seconds: float) -> Reply:
        data = read_all(answer.iter_bytes(), time.monotonic() + seconds)
        try:
            return Reply(answer.status_code, read_json(data))
        except UnreadableError:
            # A refusal is told by its status; what should be data must be data.
            if answer.is_success or answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                raise
            return Reply(answer.status_code, None)

    def _judge(self, key: Key, reply: Reply) -> None:
        """What a refusal means.

        Raises:
            RuntimeFault: always.
        """
        words = self._address.scrub(_detail(reply.data))
        if reply.status in (401, 403):
            raise RuntimeRefused(self._key_words(key), code=ErrorCode.UNAUTHORISED)
        if reply.status == 400 and "model path" in words:
            raise RuntimeRefused("TabbyAPI has no such model in its model directory.", code=ErrorCode.NOT_DOWNLOADED)
        if reply.status in (400, 422):
            raise RuntimeRefused(f"TabbyAPI refused: {words or reply.status}")
        if reply.status >= 500:
            raise RuntimeAway(f"TabbyAPI met an error of its own ({reply.status}{f': {words}' if words else ''}).")
        raise RuntimeAway(f"TabbyAPI answered {reply.status}: its address may belong to another program.")

    def _key_words(self, key: Key) -> str:
        if not self._address.headers(key):
            return f"TabbyAPI asks for a key, and no {key.value} is set."
        return f"TabbyAPI refused the {key.value}."

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of httpx as ours. Without their cause: its request holds the key."""
        try:
            yield
        except RuntimeFault:
            raise
        except _TROUBLE as exc:
            words = next(words for kind, words in _FAULTS if isinstance(exc, kind))
            raise RuntimeAway(f"TabbyAPI {words}.") from None


def _detail(data: Any) -> str:
    """The words of a refusal: text, a list of fields, or OpenAI's shape."""
    detail = _at(data, "detail")
    if isinstance(detail, list):
        return one_line("; ".join(_field_error(error) for error in detail[:5]))
    return one_line(detail) or one_line(_at(data, "error", "message"))


def _field_error(error: Any) -> str:
    place = _at(error, "loc")
    name = ".".join(str(part) for part in place[1:]) if isinstance(place, list) else ""
    return f"{name}: {one_line(_at(error, 'msg'))}"


def _plain(parameters: Any) -> dict[str, Any]:
    """The card's figures. The template's text is long and says nothing that its name does not."""
    if not isinstance(parameters, Mapping):
        return {}
    return {
        str(name): value
        for name, value in parameters.items()
        if isinstance(value, str | int | float | bool) and name != "prompt_template_content"
    }


def _at(data: Any, *keys: str | int) -> Any:
    """A value deep in JSON; None when anything on the way is not there."""
    for key in keys:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return None
    return data
