"""Who may use /ws/llm, and how those are told who may not, or not any more."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session

from gantry.api import ws_base
from models_admin import keys
from models_admin.actor import Actor
from models_admin.models import ApiKey, ModelDefinition, SwitchJob
from tests.functional.admin_world import staff
from tests.integration.program_sockets import LOCAL, connected, cookie_of, key_of

pytestmark = pytest.mark.django_db(transaction=True)

PATH = "/ws/llm"


@pytest.mark.parametrize("scopes", [("status",), ("chat", "status")])
async def test_key_without_the_scope_may_look_but_not_switch(
    scopes: tuple[str, ...], small: ModelDefinition, admin_person: User
) -> None:
    async with connected(PATH, await key_of(admin_person, *scopes)) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="small")
        done = await program.next()

    assert (done["success"], done["code"]) == (False, "forbidden")
    assert not await sync_to_async(SwitchJob.objects.exists)()


async def test_key_for_other_models_may_not_switch_to_this_one(
    small: ModelDefinition, other: ModelDefinition, admin_person: User
) -> None:
    async with connected(PATH, await key_of(admin_person, "switch", model_ids=["other"])) as program:
        await program.next()
        await program.send(type="switch_llm_model", model_id="small")
        assert (await program.next())["code"] == "forbidden"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "key_refused"),
        (LOCAL, "key_refused"),
        ([(b"authorization", b"Bearer gty_00000000_" + b"0" * 64)], "key_refused"),
        ([(b"authorization", b"Bearer nonsense")], "key_refused"),
        ([(b"authorization", b"Basic YTpi")], "key_refused"),
    ],
    ids=["nothing", "page without cookie", "unknown key", "no key", "another kind"],
)
async def test_stranger_is_told_why_and_closed(
    headers: list[tuple[bytes, bytes]], code: str, admin_person: User
) -> None:
    async with connected(PATH, headers) as program:
        assert (await program.next())["code"] == code
        assert await program.close_code() == 4401


@pytest.mark.parametrize("way", ["session", "key"])
async def test_who_may_not_see_the_state_of_models_is_told_so_and_closed(way: str, outsider: User) -> None:
    await outsider.groups.aclear()
    headers = await cookie_of(outsider) if way == "session" else await key_of(outsider, "admin")
    async with connected(PATH, headers) as program:
        assert (await program.next())["code"] == "forbidden"
        assert await program.close_code() == 4403


async def test_page_of_another_site_cannot_use_somebodys_cookie(admin_person: User) -> None:
    headers = [(name, value) for name, value in await cookie_of(admin_person) if name != b"origin"]
    for origin in ([(b"origin", b"http://evil.example")], []):
        with pytest.raises(AssertionError):
            async with connected(PATH, [*headers, *origin]):
                pass


async def test_key_needs_no_origin_and_its_cookies_are_not_looked_at(admin_person: User, outsider: User) -> None:
    cookies = [pair for pair in await cookie_of(outsider) if pair[0] == b"cookie"]
    async with connected(
        PATH, [*await key_of(admin_person, "status"), *cookies, (b"origin", b"http://other.example")]
    ) as program:
        assert (await program.next())["type"] == "llm_status"


async def test_revoked_key_is_told_so_at_its_next_message(admin_person: User) -> None:
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        key = await sync_to_async(ApiKey.objects.select_related("user").get)()
        await sync_to_async(keys.revoke_key)(key, actor=Actor(admin_person, "page"))
        await program.send(type="get_llm_status")
        told = await program.next()
        assert (told["type"], told["code"]) == ("error", "key_refused")
        assert "was revoked" in told["message"]
        assert await program.close_code() == 4401


@pytest.mark.parametrize("how", ["switched off", "signed out", "password changed", "right taken away"])
async def test_person_who_may_not_any_more_is_closed_at_the_next_message(how: str) -> None:
    person = await sync_to_async(staff)("eve", "view_modeldefinition")
    async with connected(PATH, await cookie_of(person)) as program:
        await program.next()
        await sync_to_async(take_away)(person, how)
        await program.send(type="get_llm_status")
        assert (await program.next())["type"] == "error"
        assert await program.close_code() == (4403 if how == "right taken away" else 4401)


def take_away(person: User, how: str) -> None:
    if how == "signed out":
        Session.objects.all().delete()
    elif how == "right taken away":
        person.user_permissions.clear()
        person.groups.clear()
    elif how == "password changed":
        person.set_password("another")
    else:
        person.is_active = False
    person.save()


async def test_who_only_listens_is_closed_too(admin_person: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ws_base, "RIGHTS_SECONDS", 0.05)
    async with connected(PATH, await key_of(admin_person, "status")) as program:
        await program.next()
        await sync_to_async(User.objects.update)(is_active=False)
        assert "switched off" in (await program.next())["message"]
        assert await program.close_code() == 4401
