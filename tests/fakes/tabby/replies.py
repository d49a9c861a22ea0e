"""What the double's models say, and the shapes in which TabbyAPI tells it."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.tabby.bodies import ChatBody, CompletionBody

_SCRIPT = re.compile(r"\[\[stub ([^\]]*)\]\]")
_THOUGHTS = (
    "That is a good question, and the short answer is that it depends on what matters to you.",
    "Start with the part that is easiest to check, write down what you see, and go on from there.",
    "A model that fits into memory answers sooner than a larger one that has to wait for its turn.",
    "If two things can fail at the same time, one day they will, so it pays to plan for both.",
    "Take a small example, follow it by hand, and the rest becomes much clearer.",
)


@dataclass(frozen=True)
class Script:
    """How a generation goes. A message may set it: `[[stub tokens=100 delay=0.05 prefill=2 crash=3]]`."""

    pieces: tuple[str, ...]
    delay: float  # seconds before each piece
    prefill: float = 0.0  # seconds before the first one
    crash: int | None = None  # the engine fails after so many pieces


def script_for(model_id: str, text: str, token_seconds: float) -> Script:
    """The answer to a text: always the same for the same model and text."""
    found = _SCRIPT.search(text)
    told = dict(pair.split("=", 1) for pair in found.group(1).split()) if found else {}
    words = _answer(model_id, text)
    count = int(told.get("tokens", len(words)))
    words = (words * (count // len(words) + 1))[:count]
    return Script(
        pieces=tuple(word if index == 0 else f" {word}" for index, word in enumerate(words)),
        delay=float(told.get("delay", token_seconds)),
        prefill=float(told.get("prefill", 0)),
        crash=int(told["crash"]) if "crash" in told else None,
    )


def _answer(model_id: str, text: str) -> list[str]:
    start = sum(text.encode()) % len(_THOUGHTS)
    thoughts = [_THOUGHTS[(start + step) % len(_THOUGHTS)] for step in range(2)]
    return f"This is {model_id}. {' '.join(thoughts)}".split()


@dataclass
class Reply:
    """One choice of an answer, as it grows."""

    text: str = ""
    count: int = 0
    finish_reason: str = "stop"
    eos_reason: str | None = "stop_token"
    stop_str: str | None = "</s>"
    is_cut: bool = False
    has_crashed: bool = False


@dataclass
class Shapes:
    """One answer's envelope."""

    model_id: str
    is_chat: bool
    prompt_tokens: int
    wants_usage: bool
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    began_at: float = field(default_factory=time.monotonic)

    def piece(self, index: int, text: str) -> dict[str, Any]:
        """A chunk of a stream."""
        told = {"delta": {"content": text}} if self.is_chat else {"text": text}
        return self._chunk({"index": index, **told, "finish_reason": None})

    def last_piece(self, index: int, reply: Reply) -> dict[str, Any]:
        """The chunk that ends a choice."""
        told: dict[str, Any] = {"delta": {}} if self.is_chat else {"text": ""}
        choice = {"index": index, **told, "finish_reason": reply.finish_reason}
        if self.wants_usage:
            return self._chunk(choice, {"usage": self.usage(reply.count)})
        return self._chunk({**choice, "eos_reason": reply.eos_reason})

    def whole(self, replies: list[Reply]) -> dict[str, Any]:
        """An answer that is not streamed."""
        return {
            "id": f"cmpl-{self.id}",
            "choices": [self._choice(index, reply) for index, reply in enumerate(replies)],
            "created": int(time.time()),
            "model": self.model_id,
            "object": "chat.completion" if self.is_chat else "text_completion",
            "usage": self.usage(sum(reply.count for reply in replies)) if self.wants_usage else None,
        }

    def usage(self, count: int) -> dict[str, Any]:
        """Figures; those that cannot be told are a word."""
        seconds = round(time.monotonic() - self.began_at, 2)
        return {
            "prompt_tokens": self.prompt_tokens,
            "prompt_time": 0.0,
            "prompt_tokens_per_sec": "Indeterminate",
            "completion_tokens": count,
            "completion_time": seconds,
            "completion_tokens_per_sec": round(count / seconds, 2) if seconds else "Indeterminate",
            "total_tokens": self.prompt_tokens + count,
            "total_time": seconds,
        }

    def _choice(self, index: int, reply: Reply) -> dict[str, Any]:
        end = {"index": index, "finish_reason": reply.finish_reason, "eos_reason": reply.eos_reason}
        if not self.is_chat:
            return {**end, "logprobs": None, "text": reply.text}
        message = {
            "role": "assistant",
            "content": reply.text,
            "reasoning_content": None,
            "tool_calls": None,
            "tool_call_id": None,
        }
        return {**end, "stop_str": reply.stop_str, "message": message, "logprobs": None}

    def _chunk(self, choice: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
        head = {"id": f"chatcmpl-{self.id}", "created": int(time.time())}
        if self.is_chat:
            return {
                **head,
                "object": "chat.completion.chunk",
                "choices": [choice],
                **(more or {}),
                "model": self.model_id,
            }
        return {**head, "object": "text_completion", "choices": [choice], **(more or {}), "model_name": self.model_id}


def prompt_text(body: ChatBody | CompletionBody) -> str:
    """What was asked, last message only: it may hold a script."""
    if isinstance(body, CompletionBody):
        return body.prompt if isinstance(body.prompt, str) else " ".join(body.prompt)
    return str(body.messages[-1].get("content") or "") if body.messages else ""


def count_prompt(body: ChatBody | CompletionBody) -> int:
    """Tokens of the whole conversation, roughly: its words and the template's."""
    if isinstance(body, CompletionBody):
        return len(prompt_text(body).split()) + 1
    return sum(len(str(message.get("content") or "").split()) for message in body.messages) + 8


def stops(body: ChatBody | CompletionBody) -> list[str]:
    """Strings that end an answer."""
    return [body.stop] if isinstance(body.stop, str) else list(body.stop or [])
