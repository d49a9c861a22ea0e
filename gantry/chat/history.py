"""What of a conversation goes along with a question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gantry.runtimes.chat_client import ChatMessage

if TYPE_CHECKING:
    from gantry.chat.models import Message

CHARACTERS_PER_TOKEN = 3  # low on purpose: English has about 4, code and other languages fewer
DEFAULT_CONTEXT_TOKENS = 4096


def context_tokens(parameters: Mapping[str, Any]) -> int:
    """Tokens that one conversation may take. llama-server divides its context among its parallel slots."""
    return int(parameters.get("ctx_size") or DEFAULT_CONTEXT_TOKENS) // max(1, int(parameters.get("parallel") or 1))


def prompt_characters(context: int, sampling: Mapping[str, Any]) -> int:
    """Characters of history that fit and leave room for the answer: what it may take, else a quarter, at most half."""
    wanted = int(sampling.get("max_tokens") or context // 4)
    return (context - min(wanted, context // 2)) * CHARACTERS_PER_TOKEN


def build_prompt(messages: Iterable[Message], budget_characters: int) -> list[ChatMessage]:
    """The newest turns that fit, oldest first, ending with the last question, which always goes along.

    A question that got no answer is left out, with its failed answer: most chat templates insist that question and answer take
    turns, and the one that was too long would be too long each time again.

    Args:
        messages: all messages of the conversation, oldest first; the last question has no answer yet.
    """
    turns, question = _turns(messages)
    prompt: list[ChatMessage] = [{"role": "user", "content": question}]
    left = budget_characters - len(question)
    for asked, answered in reversed(turns):
        left -= len(asked) + len(answered)
        if left < 0:
            break
        prompt[:0] = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return prompt


def _turns(messages: Iterable[Message]) -> tuple[list[tuple[str, str]], str]:
    """Answered questions in order, and the last question."""
    turns: list[tuple[str, str]] = []
    question = ""
    for message in messages:
        if message.role == "user":
            question = message.text
        elif message.state in {"complete", "stopped"} and message.text and question:
            turns.append((question, message.text))
    return turns, question
