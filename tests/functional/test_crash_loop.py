"""A real model that is killed again and again: restarted by itself, then paused, then left alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.functional.stack import ADMIN_NAME, ADMIN_PASSWORD, Stack, is_alive, start_stack, wait_until
from tests.functional.test_up import load_a_model

pytestmark = pytest.mark.llama

RESTART_CRASHED = "from models_admin.models import SwitchPolicy; SwitchPolicy(restart_crashed=True).save()"
SECONDS = 60.0  # for a look of the worker and a load


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    """A Gantry of this test's own, which restarts crashed models."""
    running = start_stack(tmp_path)
    try:
        done = running.manage("shell", "-v", "0", "-c", RESTART_CRASHED)
        assert done.returncode == 0, done.stderr
        yield running
    finally:
        running.stop()


@pytest.fixture
def ann(own_stack: Stack) -> Iterator[httpx.Client]:
    """The administrator, signed in."""
    with httpx.Client(base_url=own_stack.url, follow_redirects=True) as client:
        client.get("sign-in/")
        form = {"username": ADMIN_NAME, "password": ADMIN_PASSWORD}
        client.post("sign-in/", data=form, headers=_token(client))
        yield client


def test_model_killed_three_times_is_paused_until_somebody_restarts_it(own_stack: Stack, ann: httpx.Client) -> None:
    process = load_a_model(own_stack)
    for _ in range(2):
        process.kill()
        process = _next_process(own_stack, ann, process)
    process.kill()
    _wait(own_stack, lambda: "Keeps crashing, paused until" in _page(ann))
    assert not _serves(ann)

    for _ in range(2):  # the worker looks again, and leaves it alone
        assert own_stack.manage("recover", "--wait").stdout.strip() == "local: everything is as recorded."
    assert _model_process(own_stack) is None
    assert "Keeps crashing, paused until" in _page(ann)

    [restart] = set(re.findall(r"/admin/models/\d+/restart/", _page(ann)))
    ann.post(restart, headers=_token(ann))
    _wait(own_stack, lambda: _model_process(own_stack) is not None and _serves(ann))
    assert "Keeps crashing" not in _page(ann)


def _wait(stack: Stack, condition: Callable[[], bool]) -> None:
    wait_until(condition, SECONDS, lambda: "\n".join(stack.lines))


def _page(ann: httpx.Client) -> str:
    return ann.get("admin/models/").text


def _serves(ann: httpx.Client) -> bool:
    return "g-state--active" in _page(ann)


def _token(client: httpx.Client) -> dict[str, str]:
    return {"X-CSRFToken": client.cookies["csrftoken"]}


def _next_process(stack: Stack, ann: httpx.Client, former: psutil.Process) -> psutil.Process:
    """The model's process once the worker has loaded it again."""
    _wait(stack, lambda: _model_process(stack) not in {None, former} and _serves(ann))
    process = _model_process(stack)
    assert process
    return process


def _model_process(stack: Stack) -> psutil.Process | None:
    """The llama-server of this Gantry, if it runs."""
    folder = str(stack.data_dir)
    found = (
        process
        for process in psutil.process_iter(["exe", "cmdline"])
        if (process.info["exe"] or "").endswith("/llama-server")
        and any(folder in word for word in process.info["cmdline"] or [])
    )
    return next((process for process in found if is_alive(process)), None)
