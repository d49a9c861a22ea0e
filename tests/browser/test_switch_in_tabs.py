"""A switch as several people see it at once, on the two real models."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import GEMMA, SMOL, Demo, Person

pytestmark = [pytest.mark.browser, pytest.mark.llama, pytest.mark.real_models]

SignIn = Callable[[str], Person]

# Writes down, with the machine's clock, when the input was locked and unlocked and which percents the banner showed.
WATCH = """() => {
  const seen = { locked: null, unlocked: null, percents: [] };
  window.seen = seen;
  const box = document.querySelector('textarea[name=text]');
  const now = () => performance.timeOrigin + performance.now();
  const look = () => {
    const isLocked = box.placeholder.startsWith('Switching to');
    if (isLocked && seen.locked === null) seen.locked = now();
    if (!isLocked && seen.locked !== null && seen.unlocked === null) seen.unlocked = now();
    const bar = document.querySelector('#banner-live [role=progressbar]');
    const percent = bar && isLocked ? Number(bar.getAttribute('aria-valuenow')) : null;
    if (percent !== null && percent !== seen.percents.at(-1)) seen.percents.push(percent);
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
}"""


def switch_in_chat(page: Page, model: str) -> float:
    """Choose a model in the chat's menu and confirm; gives the moment of the click, in milliseconds."""
    page.locator("#model-button").click()
    page.locator("#model-menu").get_by_role("button", name=re.compile(re.escape(model))).click()
    confirm = page.get_by_role("dialog").get_by_role("button", name=re.compile("load", re.IGNORECASE))
    expect(confirm).to_be_visible()
    clicked: float = page.evaluate("() => performance.timeOrigin + performance.now()")
    confirm.click()
    return clicked


def wait_for_model(page: Page, model: str) -> None:
    expect(page.locator("textarea[name=text]")).to_have_attribute("placeholder", f"Message {model}", timeout=30_000)


def ask(page: Page, text: str) -> str:
    """Send a message and give the finished answer."""
    page.locator("textarea[name=text]").fill(text)
    page.keyboard.press("Enter")
    answer = page.locator("article.message--assistant").last
    expect(answer).to_have_class(re.compile("message--complete"), timeout=60_000)
    return answer.inner_text()


@pytest.fixture
def serving(sign_in: SignIn) -> Callable[[str], Person]:
    """Function: make a model the active one, and give ann with a chat open."""

    def serve(model: str) -> Person:
        ann = sign_in("ann")
        page = ann.first
        if page.locator("textarea[name=text]").get_attribute("placeholder") != f"Message {model}":
            switch_in_chat(page, model)
        wait_for_model(page, model)
        return ann

    return serve


def test_three_tabs_lock_within_a_second_show_the_same_and_unlock(
    serving: Callable[[str], Person], sign_in: SignIn
) -> None:
    ann = serving(SMOL)
    ben = sign_in("ben")
    tabs = [ann.first, ben.first, ben.open("/")]
    for tab in tabs:
        wait_for_model(tab, SMOL)
        tab.evaluate(WATCH)
    tabs[2].locator("textarea[name=text]").fill("half a thought")

    clicked = switch_in_chat(tabs[0], GEMMA)
    for tab in tabs:
        wait_for_model(tab, GEMMA)

    seen = [tab.evaluate("() => window.seen") for tab in tabs]
    assert all(0 < one["locked"] - clicked < 1000 for one in seen), seen
    assert all(one["unlocked"] > one["locked"] for one in seen)
    assert len(seen[0]["percents"]) >= 3
    assert seen[0]["percents"] == sorted(seen[0]["percents"])
    assert seen[0]["percents"] == seen[1]["percents"] == seen[2]["percents"]
    assert tabs[2].locator("textarea[name=text]").input_value() == "half a thought"

    answer = ask(tabs[1], "What is the capital of France?")
    assert GEMMA in answer
    assert "Paris" in answer


def test_switch_from_the_models_tab_marks_the_new_model_without_a_reload(
    serving: Callable[[str], Person], demo: Demo
) -> None:
    page = serving(SMOL).open("/admin/models/")
    page.evaluate("() => { window.isTheSamePage = true }")
    page.get_by_role("link", name=f"Switch to {GEMMA}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(SMOL)
    dialog.get_by_role("button", name=f"Unload {SMOL} and load {GEMMA}").click()
    expect(page.locator("#switch-panel")).to_contain_text(f"Switching from {SMOL} to {GEMMA}")
    expect(page.locator("#switch-panel")).to_contain_text(
        re.compile(rf"{GEMMA} is active\. Took .* s \(expected .* s\)"), timeout=30_000
    )
    row = page.locator("tr", has_text="gemma-3-270m")
    expect(row).to_contain_text("Active")
    expect(page.locator("tr", has_text="smollm2")).not_to_contain_text("Active")
    assert page.evaluate("() => window.isTheSamePage")

    page.get_by_role("link", name="How it went").click()
    expect(page.locator("body")).to_contain_text("ann asked for a switch to Gemma 3 270M")


def test_person_who_may_not_switch_is_told_so_and_can_chat(serving: Callable[[str], Person], sign_in: SignIn) -> None:
    serving(GEMMA)
    oda = sign_in("oda")
    wait_for_model(oda.first, GEMMA)
    oda.first.locator("#model-button").click()
    expect(oda.first.locator("#model-menu")).to_contain_text(
        "You may not switch models yourself. Choose one to ask for it."
    )
    oda.first.keyboard.press("Escape")
    assert "Paris" in ask(oda.first, "What is the capital of France?")


def test_unload_leaves_the_chat_asking_for_a_model(serving: Callable[[str], Person]) -> None:
    ann = serving(SMOL)
    page = ann.open("/admin/models/")
    page.get_by_role("link", name=f"Unload {SMOL}").click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("Unload")).click()
    expect(ann.first.locator("textarea[name=text]")).to_have_attribute(
        "placeholder", "Select a model to start chatting", timeout=20_000
    )
