"""People with browsers: they sign in, follow the pages' addresses with their tokens, and remember what they were told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import httpx

PATIENCE_SECONDS = 30.0  # what a browser waits for at least
_CONVERSATION = re.compile(r"^/c/(\d+)/$")


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `status` 0: nothing did, and nobody knows what became of it."""

    status: int
    location: str = ""
    reason: str = ""

    @property
    def is_lost(self) -> bool:
        """Nothing came back."""
        return self.status == 0

    @property
    def is_broken(self) -> bool:
        """The answer is a fault of Gantry's own."""
        return self.status >= 500


@dataclass
class Question:
    """A question that somebody sent, with what they were told about it."""

    text: str
    reply: Reply

    @property
    def was_accepted(self) -> bool:
        """The page moved on to the conversation."""
        return self.reply.status == 302


@dataclass
class Person:
    """Somebody who is signed in. What they see is kept for the search for secrets."""

    name: str
    password: str
    base_url: str
    may_use_admin: bool
    conversations: list[int] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _client: httpx.Client = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Open the browser."""
        self._client = httpx.Client(base_url=self.base_url, timeout=PATIENCE_SECONDS)

    def sign_in(self) -> None:
        """Through the form.

        Raises:
            AssertionError: the form was not accepted.
        """
        self._client.get("/sign-in/")
        reply = self.post("/sign-in/", {"username": self.name, "password": self.password})
        assert reply.status == 302, f"{self.name} could not sign in: {reply}"

    def get(self, path: str) -> Reply:
        """Open a page."""
        return self._ask("GET", path)

    def post(self, path: str, data: Mapping[str, str] | None = None) -> Reply:
        """Send a form with its token, as a page without script does. It is never sent twice."""
        token = self._client.cookies.get("csrftoken") or ""
        return self._ask("POST", path, {**(data or {}), "csrfmiddlewaretoken": token})

    def ask_model(self, conversation: int | None) -> Reply:
        """Send a question that nobody sent before."""
        text = f"Question {next(self._numbers)} of {self.name}"
        path = "/send/" if conversation is None else f"/c/{conversation}/send/"
        reply = self.post(path, {"text": text})
        self.questions.append(Question(text, reply))
        found = _CONVERSATION.match(reply.location)
        if found and int(found[1]) not in self.conversations:
            self.conversations.append(int(found[1]))
        return reply

    def close(self) -> None:
        """Close the browser."""
        self._client.close()

    def _ask(self, method: str, path: str, data: Mapping[str, str] | None = None) -> Reply:
        try:
            response = self._client.request(method, path, data=data, headers={"Referer": f"{self.base_url}{path}"})
        except httpx.TransportError as exc:
            return Reply(0, reason=type(exc).__name__)
        self.seen.append(response.text)
        return Reply(response.status_code, response.headers.get("Location", ""))
