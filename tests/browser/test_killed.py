"""What people see when the machine takes a process away."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import GEMMA, Demo, Person
from tests.browser.test_switch_in_tabs import ask, serving, wait_for_model
from tests.functional.stack import is_alive, wait_until

__all__ = ["serving"]
pytestmark = [pytest.mark.browser, pytest.mark.llama, pytest.mark.real_models]


def test_killed_model_is_shown_within_twenty_seconds_and_restarted(
    serving: Callable[[str], Person],
    demo: Demo,
) -> None:
    ann = serving(GEMMA)
    page = ann.open("/admin/models/")
    expect(page.locator("tr", has_text="gemma-3-270m")).to_contain_text("Active")
    demo.model_process().kill()
    killed_at = time.monotonic()
    row = page.locator("tr", has_text="gemma-3-270m")
    expect(row).to_contain_text("Crashed: killed", timeout=20_000)
    assert time.monotonic() - killed_at < 20
    expect(ann.first.locator("textarea[name=text]")).to_have_attribute(
        "placeholder", "Select a model to start chatting"
    )

    page.get_by_role("link", name=f"Restart {GEMMA}").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("load|restart", re.IGNORECASE)).click()
    expect(row).to_contain_text("Active", timeout=30_000)
    wait_for_model(ann.first, GEMMA)
    assert "Paris" in ask(ann.first, "What is the capital of France?")


def test_killed_worker_loses_nothing_and_the_next_one_adopts_the_model(
    serving: Callable[[str], Person],
    demo: Demo,
) -> None:
    ann = serving(GEMMA)
    model = demo.model_process()
    worker = demo.stack.child("celery", "worker")
    worker.kill()
    assert "Paris" in ask(ann.first, "What is the capital of France?")

    wait_until(lambda: not is_alive(worker) and _worker_is_back(demo, worker.pid), 30)
    time.sleep(11)  # two rounds of recovery by the new worker
    assert is_alive(model)
    assert demo.model_process().pid == model.pid
    page = ann.open("/admin/models/")
    expect(page.locator("tr", has_text="gemma-3-270m")).to_contain_text("Active")
    page.get_by_role("link", name=f"Unload {GEMMA}").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("Unload")).click()
    expect(page.locator("#switch-panel")).to_contain_text(f"{GEMMA} was unloaded", timeout=20_000)
    assert not is_alive(model)


def _worker_is_back(demo: Demo, old_pid: int) -> bool:
    try:
        return demo.stack.child("celery", "worker").pid != old_pid
    except ValueError:
        return False
