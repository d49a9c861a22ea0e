"""The one chat call of a call job: switch, ask, and everything back as it was."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import aclosing
from typing import Any

from gantry.planning.states import ErrorCode
from gantry.runtimes.base import RunningInstance
from gantry.runtimes.chat_client import ChatMessage, ChatTarget, stream_chat, target_for
from gantry.runtimes.exceptions import LoadCancelled, RuntimeFault
from models_admin.models import SwitchJob

LOOK_SECONDS = 0.1  # how often the one who waits is asked whether it is still wanted


def make_call(job: SwitchJob, instance: RunningInstance, is_cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Ask the instance what the job's options say, and give its whole answer.

    Returns:
        text, finish_reason, and token_count and tokens_per_second where the server tells them.

    Raises:
        LoadCancelled: `is_cancelled` turned true; the server has stopped generating.
        RuntimeFault: CALL_FAILED; the text says what the server said.
    """
    sampling = {**(job.target.sampling if job.target else {}), **job.options.get("sampling", {})}
    target = _server(job, instance)
    messages: list[ChatMessage] = job.options["messages"]
    is_over = threading.Event()
    # The database is asked from this thread: the call's own runs an event loop, where that is not allowed.
    with ThreadPoolExecutor(1, thread_name_prefix="call") as thread:
        call = thread.submit(asyncio.run, _ask(target, messages, sampling, is_over))
        while not wait([call], LOOK_SECONDS).done:
            if is_cancelled():
                is_over.set()
    try:
        return call.result()
    except LoadCancelled:
        raise
    except RuntimeFault as exc:
        raise RuntimeFault(f"{instance.model_id} {exc.detail}.", code=ErrorCode.CALL_FAILED) from exc


def _server(job: SwitchJob, instance: RunningInstance) -> ChatTarget:
    if job.target is None:  # its definition was deleted meanwhile
        return ChatTarget(instance.base_url, instance.api_key, instance.model_id)
    return target_for(job.target.runtime.kind, instance.base_url, instance.api_key, instance.model_id)


async def _ask(
    target: ChatTarget, messages: list[ChatMessage], sampling: dict[str, Any], is_over: threading.Event
) -> dict[str, Any]:
    answer: dict[str, Any] = {"text": "", "finish_reason": ""}
    asking = asyncio.ensure_future(_collect(target, messages, sampling, answer))
    while not asking.done():
        if is_over.is_set():
            asking.cancel()  # closes the connection, and with that the server stops
        await asyncio.wait({asking}, timeout=LOOK_SECONDS)
    if asking.cancelled():
        raise LoadCancelled
    asking.result()
    return answer


async def _collect(
    target: ChatTarget, messages: list[ChatMessage], sampling: dict[str, Any], answer: dict[str, Any]
) -> None:
    async with aclosing(stream_chat(target, messages, sampling)) as deltas:
        async for delta in deltas:
            answer["text"] += delta.text
            answer["finish_reason"] = delta.finish_reason or answer["finish_reason"]
            for name in ("token_count", "tokens_per_second"):
                if getattr(delta, name) is not None:
                    answer[name] = getattr(delta, name)
