"""A whole Gantry on llama-server's router mode, driven through its pages: a router of its own, and one that somebody else runs."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gantry.bringup.demo import DEMO_MODELS, MEMORY, DemoModel
from tests.functional.stack import ADMIN_NAME, ADMIN_PASSWORD, Stack, is_alive, start_stack, wait_until
from tests.integration.llama_router.helpers import KEY, RealRouter
from tests.tiny_gguf import write_tiny_model

pytestmark = pytest.mark.llama

SMOLLM2, GEMMA = DEMO_MODELS
SMOL_NAME, GEMMA_NAME = "SmolLM2 135M Instruct", "Gemma 3 270M"
SECONDS = 120.0  # for a job on a machine with much other work
OUTSIDE_SECONDS = 20.0  # within which an outside change is shown
RUNTIMES = "/admin/models_admin/runtime/"
MODELS = "/admin/models_admin/modeldefinition/"
TAB, AUDIT = "/admin/models/", "/admin/models_admin/auditentry/"


@dataclass
class Administrator:
    """Somebody with a browser without script: signs in, opens pages, sends their forms."""

    stack: Stack
    client: httpx.Client

    def sign_in(self) -> None:
        """Through the form."""
        self.open("/sign-in/")
        self.send("/sign-in/", username=ADMIN_NAME, password=ADMIN_PASSWORD)

    def open(self, path: str) -> str:
        """A page as its reader sees it: without markup in the words."""
        answer = self.client.get(path)
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        return answer.text

    def send(self, path: str, /, **fields: Any) -> httpx.Response:
        """A form with its token."""
        token = self.client.cookies["csrftoken"]
        return self.client.post(
            path, data={**fields, "csrfmiddlewaretoken": token}, headers={"Referer": str(self.client.base_url)}
        )

    # What the administrator sets up

    def add_router(self, name: str, /, **fields: str) -> None:
        """A runtime of this kind in the only pool there is."""
        page = self.open(f"{RUNTIMES}add/")
        [pool] = re.findall(r'<option value="(\d+)"', page.partition('name="pool"')[2].partition("</select>")[0])
        answer = self.send(
            f"{RUNTIMES}add/", name=name, kind="llama_router", pool=pool, is_enabled="on", options="", **fields
        )
        assert "was added successfully" in words_of(answer.text), words_of(answer.text)

    def add_model(self, runtime: str, model_id: str, /, **fields: Any) -> None:
        """A model on a runtime."""
        page = self.open(f"{MODELS}add/").partition('name="runtime"')[2].partition("</select>")[0]
        [pk] = re.findall(rf'<option value="(\d+)"[^>]*>{re.escape(runtime)}<', page)
        values = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in fields.items()}
        values = {"size_bytes": "0", "tags": "chat", **values, "model_id": model_id, "runtime": pk}
        answer = self.send(f"{MODELS}add/", **values)
        assert "was added successfully" in words_of(answer.text), words_of(answer.text)
        self.wait(lambda: self.state(model_id) == "idle")  # the worker has found its file

    # What the administrator does, and sees

    def row(self, model_id: str) -> tuple[str, str, str]:
        """A model's line in the Models tab: its number, its state, its words."""
        found = re.search(
            rf'<tr id="model-row-(\d+)"[^>]*g-row--(\w+)"\s+data-model="{re.escape(model_id)}".*?</tr>',
            self.open(TAB),
            re.DOTALL,
        )
        return (found[1], found[2], words_of(found[0])) if found else ("", "", "")

    def state(self, model_id: str) -> str:
        """A model's state in the Models tab; "" while it is not listed."""
        return self.row(model_id)[1]

    def words(self, model_id: str) -> str:
        """What a model's line says."""
        return self.row(model_id)[2]

    def do(self, what: str, model_id: str) -> str:
        """Click on switch or unload in a model's line, confirm, and wait for the end; gives the words of the job's page."""
        answer = self.send(f"{TAB}{self.row(model_id)[0]}/{what}/", confirm="1")
        assert answer.status_code == 200, words_of(answer.text)
        job = max(int(number) for number in re.findall(r"/admin/switches/(\d+)/", answer.text))
        path = f"/admin/switches/{job}/"
        self.wait(lambda: "ws-connect=" not in self.open(path))
        return words_of(self.open(path))

    def ask(self, question: str) -> str:
        """Ask in a new conversation; gives the words of the answer's part of the page."""
        conversation = self.send("/send/", text=question)
        self.wait(lambda: "message--streaming" not in self.open(conversation.url.path))
        [answer] = re.findall(
            r'<article class="message message--assistant.*?</article>', self.open(conversation.url.path), re.DOTALL
        )
        return words_of(answer)

    def wait(self, condition: Any, seconds: float = SECONDS) -> None:
        """Until it holds."""
        wait_until(condition, seconds, lambda: "\n".join([*self.stack.lines[-60:], words_of(self.open(TAB))]))


@contextmanager
def signed_in(stack: Stack) -> Iterator[Administrator]:
    """The administrator with a browser open."""
    with httpx.Client(base_url=stack.url.rstrip("/"), follow_redirects=True, timeout=30) as client:
        ann = Administrator(stack, client)
        ann.sign_in()
        yield ann


def words_of(page: str) -> str:
    """The words of a piece of HTML; of a whole page those of its own part."""
    page = page.partition('id="main"')[2] or page
    page = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


# A router of Gantry's own


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Holds one of the two real models at a time; a third, as large as either, is broken."""
    data_dir = tmp_path_factory.mktemp("router")
    folder = data_dir / "models"
    folder.mkdir()
    for model in DEMO_MODELS:
        model.place(folder / model.file_name, lambda _: None)
    write_broken(folder / "broken.gguf")
    running = start_stack(data_dir, {"GANTRY_MEMORY": MEMORY})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def ann(stack: Stack) -> Iterator[Administrator]:
    """She has set up a router of Gantry's own with three models."""
    with signed_in(stack) as ann:
        ann.add_router("Router")
        for model in DEMO_MODELS:
            ann.add_model("Router", model.model_id, path=model.file_name, **fields_of(model))
        ann.add_model("Router", "broken", name="Broken", path="broken.gguf", parameters={"ctx_size": 256})
        yield ann


def test_models_of_an_own_router_take_turns_answer_and_leave_nothing(ann: Administrator, stack: Stack) -> None:
    assert f"{SMOL_NAME} is active." in ann.do("switch", SMOLLM2.model_id)
    assert SMOL_NAME in ann.ask("Say hello.")

    assert f"{GEMMA_NAME} is active." in ann.do("switch", GEMMA.model_id)
    assert (ann.state(SMOLLM2.model_id), ann.state(GEMMA.model_id)) == ("idle", "active")
    assert "Paris" in ann.ask("What is the capital of France?")

    assert f"{GEMMA_NAME} was unloaded." in ann.do("unload", GEMMA.model_id)
    assert ann.state(GEMMA.model_id) == "idle"
    ann.wait(lambda: servers_of(stack) == [])


def test_broken_model_fails_in_words_and_the_former_answers_again(ann: Administrator) -> None:
    ann.do("switch", GEMMA.model_id)
    ended = ann.do("switch", "broken")
    assert "The switch to Broken failed after" in ended
    assert "blk.1.ffn_down.weight" in ended
    assert f"{GEMMA_NAME} was put back" in ended
    assert (ann.state("broken"), ann.state(GEMMA.model_id)) == ("failed", "active")
    assert "Paris" in ann.ask("What is the capital of France?")


# A router that somebody else runs


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRouter]:
    """Offers two small models, and loads them for anybody."""
    folder = tmp_path_factory.mktemp("theirs")
    files = [write_tiny_model(folder / f"{name}.gguf", seed=seed) for seed, name in enumerate(("near", "far"))]
    lines = {file.stem: {"model": file, "ctx-size": 512, "threads": 1} for file in files}
    with RealRouter(folder, lines) as router:
        yield router


@pytest.fixture(scope="module")
def ben(router: RealRouter, ann: Administrator) -> Administrator:
    """An administrator who has attached Gantry to it; its models come by themselves."""
    ann.add_router("Theirs", url=router.url, api_key=KEY)
    ann.wait(lambda: ann.state("near") == ann.state("far") == "idle")
    return ann


def test_load_and_unload_by_others_are_shown_and_not_fought_over(ben: Administrator, router: RealRouter) -> None:
    router.load("near")
    ben.wait(lambda: ben.state("near") in {"loaded", "active"}, OUTSIDE_SECONDS)
    assert "from outside Gantry" in ben.words("near")
    assert "Gantry noticed that somebody else loaded near" in words_of(ben.open(AUDIT))

    router.unload("near")
    ben.wait(lambda: ben.state("near") == "idle", OUTSIDE_SECONDS)
    assert "Gantry noticed that somebody else unloaded near" in words_of(ben.open(AUDIT))


def test_model_of_an_attached_router_is_switched_to_and_answers(ben: Administrator, router: RealRouter) -> None:
    assert "far is active." in ben.do("switch", "far")
    assert router.status("far")["value"] == "loaded"
    assert ben.ask("Say hello.")

    router.unload("far")  # by somebody else: that is accepted, and said
    ben.wait(lambda: ben.state("far") == "idle", OUTSIDE_SECONDS)
    assert router.status("far")["value"] == "unloaded"


def fields_of(model: DemoModel) -> dict[str, Any]:
    """What the demo says of a model, as its form takes it."""
    return {**model.fields, "tags": ",".join(model.fields["tags"])}


def write_broken(path: Path) -> None:
    """Whole by its header, too large to lie beside another model, and of no use: one of its tensors bears another name."""
    write_tiny_model(path, n_layers=16, padding_bytes=200 * 1024**2)
    with path.open("r+b") as file:
        start = file.read(1024**2)
        file.seek(start.index(b"blk.1.ffn_down.weight"))
        file.write(b"blk.1.ffn_dawn.weight")


def servers_of(stack: Stack) -> list[int]:
    """Processes of llama-server that belong to this Gantry."""
    folder = str(stack.data_dir)
    found = psutil.process_iter(["exe", "cmdline"])
    return [
        process.pid
        for process in found
        if (process.info["exe"] or "").endswith("/llama-server")
        and any(folder in word for word in process.info["cmdline"] or [])
        and is_alive(process)
    ]
