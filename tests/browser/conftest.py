"""Real browsers on a whole Gantry with the two real demo models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.functional.stack import Stack, is_alive, start_stack

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SMOL, GEMMA = "SmolLM2 135M Instruct", "Gemma 3 270M"
PEOPLE = """
from django.contrib.auth.models import Permission, User
ben = User.objects.create_user("ben", password="pass-ben")
ben.user_permissions.add(Permission.objects.get(codename="switch_model"))
User.objects.create_user("oda", password="pass-oda")
"""


@dataclass
class Demo:
    """The running demo: people ann (administrator), ben (may switch) and oda (may only chat)."""

    stack: Stack

    def path(self, address: str) -> str:
        """The whole address of a page."""
        return self.stack.url.rstrip("/") + address

    def model_process(self) -> psutil.Process:
        """The one llama-server that serves now."""
        folder = str(self.stack.data_dir)
        return next(
            process
            for process in psutil.process_iter(["exe", "cmdline"])
            if (process.info["exe"] or "").endswith("/llama-server")
            and is_alive(process)
            and any(folder in word for word in process.info["cmdline"] or [])
        )


@pytest.fixture(scope="package")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Started once for all browser tests, and ended with the last of them."""
    stack = start_stack(tmp_path_factory.mktemp("demo"), {"GANTRY_MEMORY": ""}, ["--demo"])
    try:
        made = stack.manage("shell", "-v", "0", "-c", PEOPLE)
        assert made.returncode == 0, made.stderr
        yield Demo(stack)
    finally:
        stack.stop()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One browser; each person gets a context of their own.

    Ended with the last browser test: Playwright keeps an event loop running, beside which no asynchronous test could run.
    """
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Person:
    """Somebody with a browser of their own, signed in."""

    name: str
    demo: Demo
    first: Page

    def open(self, address: str) -> Page:
        """A new tab."""
        page = self.first.context.new_page()
        page.goto(self.demo.path(address))
        return page


@pytest.fixture
def sign_in(demo: Demo, chromium: Browser) -> Iterator[object]:
    """Function: name -> Person. Their browsers are closed afterwards; a script error in any of their pages fails the test."""
    contexts = []
    errors: list[str] = []

    def enter(name: str) -> Person:
        context = chromium.new_context(viewport={"width": 1280, "height": 860})
        context.on("weberror", lambda error: errors.append(str(error.error)))
        context.set_default_timeout(20_000)
        contexts.append(context)
        page = context.new_page()
        page.goto(demo.path("/sign-in/"))
        page.get_by_label("User name").fill(name)
        page.get_by_label("Password").fill(f"pass-{name}")
        page.keyboard.press("Enter")
        page.wait_for_url(demo.path("/"))
        return Person(name, demo, page)

    yield enter
    for context in contexts:
        context.close()
    assert errors == []
