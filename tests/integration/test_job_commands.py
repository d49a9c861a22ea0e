"""`manage.py switch`, `unload`, `restart`, `create_api_key` and `api_keys`, without a terminal."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections

from gantry.planning.states import ErrorCode
from gantry.runtimes.null import Failure, NullWorld
from models_admin import actions, keys, running, worker_signs
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.models import ApiKey, AuditEntry, ModelDefinition, ModelInstance, SwitchJob, SwitchPolicy
from tests.functional.admin_world import loading_job
from tests.functional.stack import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def living(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no broker here; the worker is the test's own."""
    monkeypatch.setattr(worker_signs, "living_hosts", lambda: ["local"])


@contextmanager
def worker() -> Iterator[None]:
    """Does every job that waits, beside the command."""
    is_over = threading.Event()

    def work() -> None:
        try:
            while not is_over.wait(0.02):
                for pk in SwitchJob.objects.waiting().order_by("id").values_list("pk", flat=True):
                    running.run_job(pk)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def run(*arguments: str) -> str:
    """What a command writes to stdout."""
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def refused(*arguments: str) -> tuple[int, str]:
    """Exit code and words of a command that does not do it."""
    with pytest.raises(CommandError) as info:
        run(*arguments)
    return info.value.returncode, str(info.value)


def active() -> str:
    return str(ModelInstance.objects.values_list("model__model_id", flat=True).get(is_active=True))


def test_switch_with_wait_tells_each_stage_and_the_end(small: ModelDefinition, world: NullWorld) -> None:
    world.load_seconds = 0.6
    with worker():
        *lines, last = run("switch", "small", "--wait").splitlines()

    assert last.startswith("Small is active. Took ")
    assert any("Loading Small" in line for line in lines)
    assert active() == "small"
    entries = AuditEntry.objects.filter(via="command").order_by("id")
    assert [entry.event for entry in entries] == [AuditEvent.SWITCH_REQUEST, AuditEvent.JOB_END]


def test_switch_without_wait_says_how_to_follow_it(small: ModelDefinition) -> None:
    told = run("switch", "Small")
    assert told == (
        f"Switching to Small: asked for as job {SwitchJob.objects.get().pk}. "
        "`manage.py status` shows how far it is, --wait waits for it.\n"
    )


def test_switch_that_fails_says_why_and_what_to_do(small: ModelDefinition, world: NullWorld) -> None:
    world.failures["small"] = Failure(ErrorCode.OUT_OF_MEMORY)
    with worker():
        code, words = refused("switch", "small", "--wait")

    assert code == 1
    assert words.startswith("The switch to Small failed after ")
    assert "unload another model" in words


def test_context_is_for_this_load(small: ModelDefinition) -> None:
    code, words = refused("switch", "small", "--context", "7")
    assert (code, words) == (2, "A context of 7 tokens cannot be used. context must be at least 256")
    run("switch", "small", "--context", "4096")
    assert SwitchJob.objects.get().options == {"context": 4096}


def test_policy_that_asks_first_wants_yes(small: ModelDefinition, other: ModelDefinition) -> None:
    SwitchPolicy(confirm_before_unload=True).save()
    with worker():
        run("switch", "small", "--wait")
        code, words = refused("switch", "other")
        assert (code, words) == (
            1,
            "This unloads Small, which has to be confirmed. Add --yes to do it all the same.",
        )
        run("switch", "other", "--wait", "--yes")
    assert active() == "other"


def test_half_done_switch_is_taken_over_with_yes_only(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    loading_job(other, admin_person)
    code, words = refused("switch", "small")
    assert (code, words) == (
        1,
        "A switch to Other is more than half done (asked by ann). Add --yes to do it all the same.",
    )
    run("switch", "small", "--yes")
    assert SwitchJob.objects.filter(target=small).exists()


def test_missing_worker_is_said(small: ModelDefinition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_signs, "living_hosts", list)
    err = io.StringIO()
    call_command("switch", "small", stdout=io.StringIO(), stderr=err)
    assert "No worker is heard of on local" in err.getvalue()


def test_unload_all_and_restart(small: ModelDefinition) -> None:
    with worker():
        run("switch", "small", "--wait")
        assert "Small was restarted. Took" in run("restart", "small", "--wait")
        assert "All models were unloaded." in run("unload", "--all", "--wait")
        assert refused("unload", "--all") == (1, "No model is loaded. There is nothing to unload.")
    assert not ModelInstance.objects.exists()


def test_unload_of_one(small: ModelDefinition) -> None:
    with worker():
        run("switch", "small", "--wait")
        assert "Small was unloaded." in run("unload", "Small", "--wait")


def test_job_that_somebody_else_cancels_ends_the_command(
    small: ModelDefinition, admin_person: User, world: NullWorld
) -> None:
    world.load_seconds = 30.0

    def cancel() -> None:
        try:
            wait_until(lambda: SwitchJob.objects.filter(state="loading").exists(), 20)
            actions.cancel_job(SwitchJob.objects.get(), actor=Actor(admin_person, "page"))
        finally:
            connections.close_all()

    thread = threading.Thread(target=cancel)
    thread.start()
    with worker():
        code, words = refused("switch", "small", "--wait")
    thread.join()
    assert (code, words[:34]) == (1, "The switch to Small was cancelled ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["switch", "nothing"], 2, "There is no model “nothing”."),
        (["unload", "small"], 1, "is not loaded"),
        (["restart", "small"], 1, "is not loaded"),
        (["create_api_key", "nobody", "--name", "x", "--scope", "chat"], 2, "There is no user “nobody”."),
        (["create_api_key", "ann", "--name", "x", "--scope", "all"], 1, "invalid choice: 'all'"),
        (["create_api_key", "ann", "--name", " ", "--scope", "chat"], 2, "name must have 1 to 100 characters"),
        (["create_api_key", "ann", "--name", "x", "--scope", "chat", "--expires", "soon"], 1, "like 12h, 90d or 4w"),
        (["create_api_key", "ann", "--name", "x", "--scope", "chat", "--expires", "0d"], 1, "like 12h, 90d or 4w"),
        (["create_api_key", "ann", "--name", "x", "--scope", "chat", "--expires", "99999w"], 1, "like 12h"),
        (["create_api_key", "ann", "--name", "x", "--scope", "chat", "--model", "y"], 2, "there is no model y"),
        (["api_keys", "revoke", "gty_00000000"], 2, "There is no key gty_00000000."),
    ],
)
def test_refusal_says_what_is_wrong(
    arguments: list[str], code: int, words: str, small: ModelDefinition, admin_person: User
) -> None:
    # What the parser refuses ends the program with 2; called like this, Django makes a 1 of it.
    found, text = refused(*arguments)
    assert found == code
    assert words in text


def test_key_alone_goes_to_stdout_and_works(small: ModelDefinition, admin_person: User) -> None:
    out, err = io.StringIO(), io.StringIO()
    arguments = [
        "ann",
        "--name",
        "panel",
        "--scope",
        "chat",
        "--scope",
        "switch",
        "--expires",
        "90d",
        "--model",
        "small",
    ]
    call_command("create_api_key", *arguments, stdout=out, stderr=err)
    [token] = out.getvalue().splitlines()

    actor = keys.authenticate(token)
    assert (actor.name, actor.may_use(small)) == ("ann", True)
    assert "The key of ann for chat, switch, good until " in err.getvalue()
    assert token not in err.getvalue()
    assert AuditEntry.objects.get(event="key:create").via == "command"


def test_keys_are_listed_without_their_secrets_and_revoked(admin_person: User) -> None:
    assert run("api_keys", "list") == "There are no keys yet. `manage.py create_api_key` makes one.\n"
    token = run("create_api_key", "ann", "--name", "panel", "--scope", "status").strip()
    prefix = ApiKey.objects.get().prefix

    head, line = run("api_keys", "list").splitlines()
    assert head.split() == ["Key", "User", "Name", "Scopes", "Models", "Last", "used", "State"]
    assert line.split() == [prefix, "ann", "panel", "status", "all", "never", "no", "end"]

    assert run("api_keys", "revoke", token) == f"{prefix} (panel) of ann is revoked; it is refused from now on.\n"
    assert run("api_keys", "revoke", prefix) == f"{prefix} (panel) was revoked already.\n"
    assert run("api_keys", "list").splitlines()[1].endswith("revoked")
