"""Refresh on the Models tab: a server is asked for its models at once; and what rows tell of who holds a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, current_app
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client

from gantry.runtimes.registry import KINDS, capabilities_of
from models_admin.models import MemoryPool, Runtime
from tests.factories import make_model
from tests.functional.admin_world import load, staff

HTMX = {"HX-Request": "true"}
TAB = "/admin/models/"
Sent = Callable[[], list[Any]]
SEES, SWITCHES, CHANGES = "view_modeldefinition", "switch_model", "change_runtime"


@pytest.fixture
def tabby(pool: MemoryPool) -> Runtime:
    return Runtime.objects.create(name="Workshop", kind="tabby", pool=pool, url="http://127.0.0.1:1")


@pytest.fixture
def llama(pool: MemoryPool) -> Runtime:
    return Runtime.objects.create(name="llama-server", kind="llama_server", pool=pool)


@pytest.fixture
def sent() -> Iterator[Sent]:
    """Function: the tasks in the host's queue with their arguments, taken out of it."""
    with current_app.connection_for_read() as connection:
        queue = connection.SimpleQueue("host.local")

        def take() -> list[Any]:
            messages = [queue.get(block=False) for _ in range(queue.qsize())]
            for message in messages:
                message.ack()
            return [(message.headers["task"], message.payload[0]) for message in messages]

        queue.clear()
        yield take
        queue.close()


@pytest.fixture
def no_broker() -> Iterator[None]:
    """Messages go to an address where nobody answers."""
    usual = current_app._get_current_object()  # type: ignore[attr-defined]
    lonely = Celery("lonely", set_as_current=False)
    lonely.config_from_object("django.conf:settings", namespace="CELERY")
    lonely.conf.update(broker_url="redis://127.0.0.1:1/0")
    lonely.set_current()
    yield
    usual.set_current()
    lonely.close()


def refresh(user: User, runtime: Runtime, *, is_htmx: bool = True) -> HttpResponse:
    client = Client()
    client.force_login(user)
    address = f"/admin/runtimes/{runtime.pk}/refresh/"
    return client.post(address, headers=HTMX if is_htmx else {}, follow=not is_htmx)  # type: ignore[return-value]


def tab(user: User) -> str:
    client = Client()
    client.force_login(user)
    return client.get(TAB).content.decode()


def test_worker_of_the_host_is_asked_and_the_page_says_so_at_once(tabby: Runtime, sent: Sent) -> None:
    answer = refresh(staff("ben", SEES, SWITCHES), tabby)
    assert answer.status_code == 200
    assert "Asking Workshop for its models…" in answer.content.decode()
    assert sent() == [("models_admin.tasks.refresh_models", [tabby.pk])]


def test_button_works_without_script(tabby: Runtime, sent: Sent) -> None:
    answer = refresh(staff("ben", SEES, SWITCHES), tabby, is_htmx=False)
    assert "Asking Workshop for its models…" in answer.content.decode()
    assert len(sent()) == 1


@pytest.mark.parametrize(
    ("rights", "may"), [((SWITCHES,), True), ((CHANGES,), True), (("change_modeldefinition",), False), ((), False)]
)
def test_who_switches_models_or_changes_runtimes_may_ask(
    tabby: Runtime, sent: Sent, rights: tuple[str, ...], may: bool
) -> None:
    person = staff("ben", SEES, *rights)
    answer = refresh(person, tabby)
    assert answer.status_code == (200 if may else 403)
    assert len(sent()) == may
    assert ("data-may-refresh" in tab(person)) is may
    if not may:
        assert "You may not ask servers for their models. " in " ".join(answer.content.decode().split())


def test_only_a_server_that_lists_its_models_can_be_asked(tabby: Runtime, llama: Runtime, admin_person: User) -> None:
    page = tab(admin_person)
    assert "Refresh the models of Workshop" in page
    assert "Refresh the models of llama-server" not in page
    answer = refresh(admin_person, llama)
    assert answer.status_code == 409
    assert "llama-server has no list of models." in answer.content.decode()


def test_router_of_somebody_else_lists_its_models_and_our_own_is_given_files(
    pool: MemoryPool, admin_person: User
) -> None:
    Runtime.objects.create(name="Ours", kind="llama_router", pool=pool)
    Runtime.objects.create(name="Theirs", kind="llama_router", pool=pool, url="http://127.0.0.1:1")
    page = tab(admin_person)
    assert "Refresh the models of Theirs" in page
    assert "Refresh the models of Ours" not in page


def test_runtime_that_is_switched_off_is_not_asked(tabby: Runtime, admin_person: User, sent: Sent) -> None:
    Runtime.objects.update(is_enabled=False)
    answer = refresh(admin_person, tabby)
    assert answer.status_code == 409
    assert "Workshop is switched off." in answer.content.decode()
    assert sent() == []
    assert "Refresh the models of Workshop" not in tab(admin_person)


@pytest.mark.usefixtures("no_broker")
def test_broker_that_is_away_is_told(tabby: Runtime, admin_person: User) -> None:
    answer = refresh(admin_person, tabby)
    assert answer.status_code == 503
    assert "The message broker does not answer" in answer.content.decode()


def test_runtime_that_is_gone_has_no_address(admin_person: User, tabby: Runtime) -> None:
    tabby.pk += 1
    assert refresh(admin_person, tabby).status_code == 404


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_runtime_tells_what_it_can_do(kind: str) -> None:
    assert capabilities_of(kind).lists_models is (kind in {"null", "tabby"})


# What rows tell


def test_row_names_its_runtime_where_there_are_several(null_runtime: Runtime, admin_person: User) -> None:
    make_model(null_runtime, model_id="small", name="Small")
    assert f"on {null_runtime.name}" not in tab(admin_person)
    Runtime.objects.create(name="Workshop", kind="tabby", pool=null_runtime.pool, url="http://127.0.0.1:1")
    assert f"on {null_runtime.name}" in tab(admin_person)


def test_row_tells_of_a_model_that_others_loaded_and_of_one_that_sleeps(
    null_runtime: Runtime, admin_person: User
) -> None:
    instance = load(make_model(null_runtime, model_id="small", name="Small"), is_active=True)
    page = tab(admin_person)
    assert "loaded from outside Gantry" not in page
    assert "wakes it" not in page
    type(instance).objects.update(is_external=True, is_asleep=True)
    page = tab(admin_person)
    assert "loaded from outside Gantry" in page
    assert "Active, asleep" in page
    assert "the next message wakes it" in page


# Before there is any model


def test_first_start_leads_to_each_way_in_that_its_reader_may_go(null_runtime: Runtime, admin_person: User) -> None:
    assert "Connect TabbyAPI" in tab(admin_person)
    client = Client()
    client.force_login(admin_person)
    form = client.get("/admin/models_admin/runtime/add/?kind=tabby").content.decode()
    assert '<option value="tabby" selected>' in form
    assert "Connect TabbyAPI" not in tab(staff("ben", SEES, "add_modeldefinition"))
