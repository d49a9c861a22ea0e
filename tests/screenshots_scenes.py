"""What the README's pictures show: real pages after real actions, one function for each group of pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import GEMMA, SMOL
from tests.functional.stack import ADMIN_NAME, ADMIN_PASSWORD

Picture = tuple[str, bytes]  # name without suffix, PNG
NAMES = ("models", "models-dark", "switch-dialog", "switching", "switch-page", "chat", "chat-locked")

QUESTION = "Write a Python function that returns the largest number of a list."
THOUGHT = "And how would I test it?"
LOAD_MILLISECONDS = 60_000
ATTEMPTS = 6

_CONFIRM = re.compile("^(Load|Unload) ")


class NoGoodPicture(Exception):
    """Every load was over before a picture of its middle could be taken."""


@dataclass
class Studio:
    """A browser of the administrator's on a running demo."""

    browser: Browser
    url: str  # ends with a slash

    def enter(self, *, is_dark: bool = False) -> BrowserContext:
        """A browser of one's own, signed in. Nothing moves by itself, so a bar stands where its figure says."""
        context = self.browser.new_context(
            viewport={"width": 1280, "height": 800},
            color_scheme="dark" if is_dark else "light",
            reduced_motion="reduce",
        )
        context.set_default_timeout(20_000)
        page = context.new_page()
        page.goto(f"{self.url}sign-in/")
        page.get_by_label("User name").fill(ADMIN_NAME)
        page.get_by_label("Password").fill(ADMIN_PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(self.url)
        page.close()
        return context

    def open(self, context: BrowserContext, path: str, height: int) -> Page:
        """A page in a window that is as high as what it shows."""
        page = context.new_page()
        page.set_viewport_size({"width": 1280, "height": height})
        page.goto(self.url + path)
        page.wait_for_load_state("networkidle")
        return page


def take_all(studio: Studio) -> Iterator[Picture]:
    """Every picture of NAMES, as soon as it is taken.

    Raises:
        NoGoodPicture: this machine loads models too fast to be seen doing it.
    """
    context = studio.enter()
    models = studio.open(context, "admin/models/", 620)
    for name in (GEMMA, SMOL, GEMMA, SMOL):  # so that expected times come from loads, not from sizes
        switch(models, name)
    yield "models", still(models)
    dark = studio.enter(is_dark=True)
    yield "models-dark", still(studio.open(dark, "admin/models/", 620))
    yield "switch-dialog", dialog(models)
    yield "switching", middle_of(lambda: film_in_models_tab(studio, context), models)
    yield "switch-page", story(studio, models)
    switch(models, SMOL)
    yield "chat", answered_question(studio.open(context, "", 800))
    await_quiet(models)
    yield "chat-locked", middle_of(lambda: film_in_chat(studio, context, models), models)


def ask(page: Page, name: str) -> None:
    """Ask in the Models tab for a switch; it begins when the dialog is confirmed."""
    page.get_by_role("link", name=f"Switch to {name}").click()
    expect(page.get_by_role("dialog").get_by_role("button", name=_CONFIRM)).to_be_visible()


def confirm(page: Page) -> None:
    """Let the switch that was asked for begin."""
    page.get_by_role("dialog").get_by_role("button", name=_CONFIRM).click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def switch(page: Page, name: str) -> None:
    """Switch in the Models tab, from the click to the end."""
    ask(page, name)
    confirm(page)
    await_active(page, name)


def await_active(page: Page, name: str) -> None:
    """Until the Models tab says that the model serves."""
    expect(page.locator("#switch-panel")).to_contain_text(f"{name} is active", timeout=LOAD_MILLISECONDS)
    expect(page.locator("tr", has_text=name)).to_contain_text("Active")


def await_quiet(page: Page) -> None:
    """Until no answer counts as running any more: that is looked at every few seconds."""
    while page.get_by_text(re.compile("answers? running")).count():
        page.wait_for_timeout(1000)
        page.reload()


def still(page: Page) -> bytes:
    """The page without a pointer on it, once its memory bar shows what the models hold."""
    expect(page.locator(".g-legend")).to_contain_text(SMOL, timeout=LOAD_MILLISECONDS)
    page.mouse.move(1, 1)
    return page.screenshot()


def dialog(page: Page) -> bytes:
    """The plan of a switch, which is then left alone."""
    ask(page, GEMMA)
    picture = page.screenshot()
    page.get_by_role("dialog").get_by_text("Cancel").click()
    return picture


def answered_question(page: Page) -> bytes:
    """A conversation in which the model has finished its answer."""
    page.locator("textarea[name=text]").fill(QUESTION)
    page.keyboard.press("Enter")
    answer = page.locator("article.message--assistant.message--complete")
    expect(answer).to_be_visible(timeout=LOAD_MILLISECONDS)
    answer.hover()  # shows how fast it was
    return page.screenshot()


def story(studio: Studio, models: Page) -> bytes:
    """The page of the switch that has just ended."""
    models.get_by_role("link", name="How it went").click()
    expect(models.get_by_text("The plan as it was")).to_be_visible()
    models.set_viewport_size({"width": 1280, "height": 1000})
    picture = models.screenshot()
    models.set_viewport_size({"width": 1280, "height": 620})
    models.goto(f"{studio.url}admin/models/")
    return picture


def film_in_models_tab(studio: Studio, context: BrowserContext) -> list[tuple[int, bytes]]:
    """A switch to Gemma from the Models tab, as pictures with their percents."""
    page = studio.open(context, "admin/models/", 800)
    ask(page, GEMMA)
    confirm(page)
    page.mouse.move(1, 1)
    frames = film(page, "#switch-panel")
    page.close()
    return frames


def film_in_chat(studio: Studio, context: BrowserContext, models: Page) -> list[tuple[int, bytes]]:
    """The same, as somebody sees it who is about to send a message."""
    page = studio.open(context, "", 800)
    page.get_by_role("link", name=re.compile(re.escape(QUESTION[:20]))).first.click()
    page.locator("textarea[name=text]").fill(THOUGHT)
    ask(models, GEMMA)
    confirm(models)
    frames = film(page, "#banner-live")
    page.close()
    return frames


def film(page: Page, place: str) -> list[tuple[int, bytes]]:
    """Pictures of a job, one after the other until it ends, with their percents; only those of the load itself."""
    expect(page.locator(f"{place} [role=progressbar]").first).to_be_visible()
    frames = []
    while (before := _seen(page, place)) is not None:
        percent, is_loading = before
        picture = page.screenshot()
        if is_loading and _seen(page, place) == before:  # else nobody knows which of the two is on it
            frames.append((percent, picture))
    return frames


def _seen(page: Page, place: str) -> tuple[int, bool] | None:
    """The percent of the job, and whether it reads the model now; None when there is no job."""
    seen = page.evaluate(
        """place => {
          const panel = document.querySelector(place);
          const bar = panel?.querySelector("[role=progressbar]");
          return bar ? [Number(bar.getAttribute("aria-valuenow")), panel.textContent.includes("Loading ")] : null;
        }""",
        place,
    )
    return (seen[0], seen[1]) if seen else None


def middle_of(attempt: Callable[[], list[tuple[int, bytes]]], models: Page) -> bytes:
    """A picture on which the load has come some way; loads again while there is none.

    Raises:
        NoGoodPicture: there was none, several times.
    """
    for _ in range(ATTEMPTS):
        frames = attempt()
        await_active(models, GEMMA)
        begun = sorted(frame for frame in frames if frame[0] > min(frames)[0])
        if begun:
            return begun[len(begun) // 2][1]
        switch(models, SMOL)
    raise NoGoodPicture("the models load too fast here to be seen loading")
