"""TabbyAPI in the pages: a whole Gantry beside the double, and other people's clients of the same server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Demo, Person
from tests.browser.test_switch_in_tabs import ask, wait_for_model
from tests.fakes.tabby import FakeModel, TabbyDouble
from tests.functional.stack import start_stack

pytestmark = [pytest.mark.browser, pytest.mark.llama]

SignIn = Callable[[str], Person]
ALPHA, BETA, DAMAGED = "Alpha-7B-exl3", "Beta-13B-exl3", "Damaged-7B-exl3"
MODULES = 24
QUICK, WATCHABLE = 0.01, 0.15  # seconds for a module
OUTSIDE_MS = 20_000  # by then a page shows what other clients did
LOAD_MS = 30_000

# Keeps every "k of 24" that the panel shows for a switch to one model.
WATCH = """(model) => {
  window.modules = [];
  const look = () => {
    const words = document.querySelector('#switch-panel').textContent;
    const found = words.includes(`to ${model}`) && /Module (\\d+) of 24/.exec(words);
    if (found && Number(found[1]) !== window.modules.at(-1)) window.modules.push(Number(found[1]));
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


@pytest.fixture(scope="module")
def double() -> Iterator[TabbyDouble]:
    """A TabbyAPI with a model that fails in the middle of its load."""
    models = {name: FakeModel(modules=MODULES, module_seconds=QUICK) for name in (ALPHA, BETA)}
    models[DAMAGED] = FakeModel(modules=MODULES, module_seconds=QUICK, fails_at=15)
    with TabbyDouble(models=models) as running:
        yield running


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, double: TabbyDouble) -> Iterator[Demo]:
    """Gantry with the double as its TabbyAPI; it looks for new models only when it is asked to."""
    surroundings = {
        "TABBY_HOST": double.url,
        "TABBY_API_KEY": double.api_key,
        "TABBY_ADMIN_KEY": double.admin_key,
        "GANTRY_MEMORY": "fixed:24GiB",
        "REFRESH_INTERVAL": "3600",
    }
    stack = start_stack(tmp_path_factory.mktemp("tabby"), surroundings)
    try:
        yield Demo(stack)
    finally:
        stack.stop()


@pytest.fixture
def tab(sign_in: SignIn) -> Page:
    """The Models tab, in front of an administrator, with the models that the server has listed."""
    page = sign_in("ann").open("/admin/models/")
    expect(row(page, ALPHA)).to_be_visible(timeout=OUTSIDE_MS)
    page.evaluate("() => { window.isTheSamePage = true }")
    return page


@pytest.fixture
def others(double: TabbyDouble) -> Iterator[httpx.Client]:
    """Another client of the same server."""
    with httpx.Client(base_url=double.url, headers={"X-Admin-Key": double.admin_key}, timeout=20) as client:
        yield client


def row(page: Page, model: str) -> Locator:
    return page.locator(f'tr[data-model="{model}"]')


def switch(page: Page, model: str) -> None:
    """Click through the dialog."""
    page.get_by_role("link", name=f"Switch to {model}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=re.compile(rf"load {model}", re.IGNORECASE)).click()


def serve(page: Page, model: str) -> None:
    """Have a model active."""
    if "Active" not in row(page, model).inner_text():
        switch(page, model)
    expect(row(page, model)).to_contain_text("Active", timeout=LOAD_MS)


def test_load_shows_its_modules_and_ends_with_the_model_active(tab: Page, double: TabbyDouble) -> None:
    serve(tab, BETA)
    tab.evaluate(WATCH, ALPHA)
    double.models[ALPHA].module_seconds = WATCHABLE
    try:
        switch(tab, ALPHA)
        panel = tab.locator("#switch-panel")
        expect(panel).to_contain_text(f"Switching from {BETA} to {ALPHA}")
        expect(panel).to_contain_text(re.compile(rf"Module \d+ of {MODULES}"), timeout=LOAD_MS)
        tab.wait_for_function("window.modules.length >= 4")
    finally:
        double.models[ALPHA].module_seconds = QUICK
    expect(panel).to_contain_text(f"{ALPHA} is active.", timeout=LOAD_MS)
    expect(row(tab, ALPHA)).to_contain_text("Active")
    expect(row(tab, BETA)).not_to_contain_text("Active")
    seen = tab.evaluate("window.modules")
    assert seen == sorted(set(seen))
    assert seen[-1] <= MODULES
    assert tab.evaluate("window.isTheSamePage")


def test_load_that_fails_puts_the_old_model_back_and_tells_the_cause(tab: Page, double: TabbyDouble) -> None:
    serve(tab, BETA)
    switch(tab, DAMAGED)
    panel = tab.locator("#switch-panel")
    expect(panel).to_contain_text(f"{BETA} was put back.", timeout=LOAD_MS)
    expect(panel).to_contain_text("The runtime could not load the model.")
    expect(panel).to_contain_text(double.models[DAMAGED].error)
    expect(row(tab, BETA)).to_contain_text("Active")
    expect(row(tab, DAMAGED)).to_contain_text("Failed: did not load")
    assert double.loaded == BETA


def test_model_that_another_client_unloads_or_loads_is_shown_so(
    tab: Page, double: TabbyDouble, others: httpx.Client
) -> None:
    serve(tab, BETA)
    assert others.post("/v1/model/unload").status_code == 200
    expect(row(tab, BETA)).not_to_contain_text("Active", timeout=OUTSIDE_MS)
    expect(row(tab, BETA).get_by_role("link", name=f"Switch to {BETA}")).to_be_visible()

    assert '"finished"' in others.post("/v1/model/load", json={"model_name": ALPHA}).text
    expect(row(tab, ALPHA)).to_contain_text("loaded from outside Gantry", timeout=OUTSIDE_MS)
    assert double.loaded == ALPHA
    assert tab.evaluate("window.isTheSamePage")


def test_refresh_brings_a_model_that_appeared_on_the_server(tab: Page, double: TabbyDouble) -> None:
    double.models["Gamma-2B-exl3"] = FakeModel(modules=4, module_seconds=QUICK)
    try:
        expect(row(tab, "Gamma-2B-exl3")).to_have_count(0)
        tab.get_by_role("button", name="Refresh the models of TabbyAPI").click()
        expect(row(tab, "Gamma-2B-exl3")).to_be_visible(timeout=OUTSIDE_MS)
    finally:
        del double.models["Gamma-2B-exl3"]
    tab.get_by_role("button", name="Refresh the models of TabbyAPI").click()
    expect(row(tab, "Gamma-2B-exl3")).to_contain_text("Not downloaded", timeout=OUTSIDE_MS)


def test_page_without_a_row_for_what_changed_fetches_itself_anew(tab: Page) -> None:
    """As one does that was opened before there was any model."""
    other = tab.context.new_page()
    other.goto(tab.url)
    tab.evaluate("(row) => row.remove()", row(tab, DAMAGED).element_handle())
    other.get_by_role("button", name=f"Pin {DAMAGED}").click()
    expect(row(tab, DAMAGED)).to_contain_text("Pinned")
    assert not tab.evaluate("window.isTheSamePage")


def test_chat_is_answered_through_it(tab: Page, sign_in: SignIn) -> None:
    serve(tab, BETA)
    chat = sign_in("ann").first
    wait_for_model(chat, BETA)
    answer = ask(chat, "What is the capital of France?")
    assert BETA in answer
    assert len(answer.split()) > 3
