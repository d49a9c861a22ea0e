"""Keys of programs: what they let in, for how long, how far, and what is written down about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from models_admin import actions
from models_admin.actor import Actor
from models_admin.exceptions import InvalidRequest, KeyRefused, NotAllowed
from models_admin.keys import authenticate, bearer_token, create_key, keys_seen_by, recheck, revoke_key
from models_admin.models import ApiKey, AuditEntry, ModelDefinition, Runtime, SwitchJob
from tests.factories import make_model
from tests.integration.limits_world import serve


def make(user: User, *scopes: str, **fields: Any) -> tuple[ApiKey, str]:
    """A key that somebody makes for themselves."""
    return create_key(user, actor=Actor(user, "page"), name="script", scopes=scopes or ["status"], **fields)


def acting(user: User, *scopes: str, **fields: Any) -> Actor:
    """A program with a new key of this person."""
    return authenticate(make(user, *scopes, **fields)[1])


def refusal_of(token: str) -> KeyRefused:
    """Why a key is not taken."""
    with pytest.raises(KeyRefused) as caught:
        authenticate(token)
    return caught.value


def allow(user: User, *permissions: str) -> User:
    """The person as somebody who also holds these permissions."""
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    return User.objects.get(pk=user.pk)


def test_key_acts_for_its_user_from_an_address(member: User) -> None:
    key, token = make(member)
    actor = authenticate(token, via="rest", address="192.0.2.7")
    assert (actor.user, actor.key, actor.via, actor.address) == (member, key, "rest", "192.0.2.7")
    assert actor.name == "ben"


def test_secret_is_256_random_bits_behind_a_readable_beginning(member: User) -> None:
    key, token = make(member)
    _, other = make(member)
    assert token.startswith(f"{key.prefix}_")
    assert key.prefix.startswith("gty_")
    assert len(bytes.fromhex(token.rpartition("_")[2])) == 32
    assert token != other


def test_secret_is_kept_nowhere(member: User) -> None:
    key, token = make(member)
    secret = token.rpartition("_")[2]
    kept = json.dumps([list(ApiKey.objects.values()), list(AuditEntry.objects.values())], default=str)
    assert key.prefix in kept
    assert secret not in kept
    assert secret not in repr(vars(key))


@pytest.mark.parametrize(
    "token",
    ["", "gty_", "sk-abc", "gty_0123abcd_", f"gty_0123abcd_{'0' * 63}", f"gty_0123abcd_{'0' * 65}", f"gty_0123ABCD_{'0' * 64}"],
)  # fmt: skip
def test_what_is_no_key_is_refused_without_a_query(token: str) -> None:
    """The test has no database."""
    with pytest.raises(KeyRefused, match="not a key of Gantry"):
        authenticate(token)


def test_unknown_key_and_wrong_secret_are_refused_in_the_same_words(member: User) -> None:
    key, token = make(member)
    wrong = f"{key.prefix}_{'0' * 64}"
    unknown = f"gty_00000000_{token.rpartition('_')[2]}"
    first, second = refusal_of(wrong), refusal_of(unknown)
    assert (str(first), first.hint) == (str(second), second.hint)
    assert first.status == 401
    assert first.headers == {"WWW-Authenticate": 'Bearer realm="Gantry"'}


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer   abc ", "abc"), ("Basic abc", None), ("abc", None), ("", None)],
)
def test_token_is_read_from_a_bearer_header_only(header: str, token: str | None) -> None:
    assert bearer_token(header) == token


def test_revoked_key_is_refused_at_once_and_for_good(member: User) -> None:
    key, token = make(member)
    actor = authenticate(token)
    revoke_key(key, actor=Actor(member, "page"))
    with pytest.raises(KeyRefused, match=f"The key {key.prefix} was revoked"):
        authenticate(token)
    with pytest.raises(KeyRefused, match="was revoked"):
        recheck(actor)


def test_revoking_twice_is_written_down_once(member: User) -> None:
    key, _ = make(member)
    revoke_key(key, actor=Actor(member, "page"))
    first = ApiKey.objects.get().revoked_at
    revoke_key(ApiKey.objects.get(), actor=Actor(member, "page"))
    assert ApiKey.objects.get().revoked_at == first
    assert AuditEntry.objects.filter(event="key:revoke").count() == 1


def test_key_ends_at_its_moment(member: User) -> None:
    key, token = make(member, expires_at=timezone.now() + timedelta(days=30))
    actor = authenticate(token)
    ApiKey.objects.update(expires_at=timezone.now())
    with pytest.raises(KeyRefused, match=f"The key {key.prefix} has expired"):
        authenticate(token)
    with pytest.raises(KeyRefused, match="has expired"):
        recheck(actor)


def test_key_of_somebody_who_is_switched_off_is_refused_until_they_are_back(member: User) -> None:
    _, token = make(member)
    actor = authenticate(token)
    User.objects.filter(pk=member.pk).update(is_active=False)
    with pytest.raises(KeyRefused, match="is switched off"):
        authenticate(token)
    with pytest.raises(KeyRefused, match="is switched off"):
        recheck(actor)
    User.objects.filter(pk=member.pk).update(is_active=True)
    assert authenticate(token).user == member


def test_keys_go_with_their_user(member: User) -> None:
    _, token = make(member)
    actor = authenticate(token)
    member.delete()
    with pytest.raises(KeyRefused, match="not known"):
        authenticate(token)
    with pytest.raises(KeyRefused, match="not known"):
        recheck(actor)


def test_connection_that_stays_open_loses_a_right_that_was_taken_away(member: User) -> None:
    actor = acting(member, "switch")
    assert actor.may("switch_model")
    member.user_permissions.clear()
    assert not recheck(actor).may("switch_model")


def test_connection_of_a_person_without_a_key_is_looked_at_too(member: User) -> None:
    actor = Actor(member, "websocket")
    assert recheck(actor).user == member
    User.objects.filter(pk=member.pk).update(is_active=False)
    with pytest.raises(KeyRefused, match="This account is switched off"):
        recheck(actor)


@pytest.mark.parametrize(
    ("scope", "may"),
    [
        ("status", {"view_modeldefinition"}),
        ("chat", {"chat"}),
        ("switch", {"view_modeldefinition", "switch_model"}),
        ("admin", {"view_modeldefinition", "chat", "switch_model", "cancel_any_job", "change_modeldefinition", "view_auditentry"}),
    ],
)  # fmt: skip
def test_scope_narrows_an_administrator(admin_person: User, scope: str, may: set[str]) -> None:
    actor = acting(admin_person, scope)
    rights = (
        "view_modeldefinition",
        "chat",
        "switch_model",
        "cancel_any_job",
        "change_modeldefinition",
        "view_auditentry",
    )
    assert {right for right in rights if actor.may(right)} == may


@pytest.mark.parametrize("scope", ["status", "chat", "switch", "admin"])
def test_no_scope_gives_what_the_user_may_not(outsider: User, scope: str) -> None:
    actor = acting(outsider, scope)
    assert not actor.may("switch_model")
    assert not actor.may("change_modeldefinition")
    assert actor.may("chat") == (scope in {"chat", "admin"})


@pytest.mark.parametrize(
    ("scopes", "reaches"),
    [
        (["status"], {"status"}),
        (["chat"], {"chat"}),
        (["switch"], {"switch", "status"}),
        (["chat", "status"], {"chat", "status"}),
        (["admin"], {"status", "chat", "switch", "admin"}),
    ],
)
def test_wider_scopes_hold_narrower_ones(member: User, scopes: Sequence[str], reaches: set[str]) -> None:
    actor = acting(member, *scopes)
    assert {scope for scope in ("status", "chat", "switch", "admin") if actor.has_scope(scope)} == reaches


def test_person_without_a_key_is_narrowed_by_no_scope(member: User) -> None:
    assert all(Actor(member, "page").has_scope(scope) for scope in ("status", "chat", "switch", "admin"))


def test_key_without_the_scope_cannot_switch_though_its_user_may(member: User, null_runtime: Runtime) -> None:
    model = make_model(null_runtime)
    with pytest.raises(NotAllowed, match="You may not switch models"):
        actions.request_switch(model, actor=acting(member, "status", "chat"))
    assert not SwitchJob.objects.exists()


def test_key_switches_only_to_the_models_it_is_for(member: User, null_runtime: Runtime) -> None:
    mine, other = make_model(null_runtime, size_bytes=1), make_model(null_runtime, size_bytes=1)
    actor = acting(member, "switch", model_ids=[mine.model_id])
    with pytest.raises(NotAllowed, match=f"This key may not be used for {other.name}"):
        actions.request_switch(other, actor=actor)
    assert actions.request_switch(mine, actor=actor).status == "accepted"


def test_key_for_some_models_may_not_unload_them_all(member: User, null_runtime: Runtime) -> None:
    actor = acting(member, "switch", model_ids=[make_model(null_runtime).model_id])
    serve(ModelDefinition.objects.get())
    with pytest.raises(NotAllowed, match="This key may not be used for"):
        actions.request_unload_all(null_runtime.pool, actor=actor)


def test_program_cancels_jobs_of_its_own_user_only_when_it_may_switch(member: User, null_runtime: Runtime) -> None:
    model = make_model(null_runtime, size_bytes=1)
    job = actions.request_switch(model, actor=Actor(member, "page")).job
    assert job is not None
    assert not actions.may_cancel(job, acting(member, "chat"))
    assert actions.may_cancel(job, acting(member, "switch"))


def test_use_is_written_once_a_minute_at_most(member: User) -> None:
    key, token = make(member)
    assert key.last_used_at is None
    authenticate(token)
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    with CaptureQueriesContext(connection) as captured:
        authenticate(token)
    assert len(captured) == 1
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(seconds=61))
    authenticate(token)
    last = ApiKey.objects.get().last_used_at
    assert last is not None
    assert last >= first


def test_refused_use_is_not_written(member: User) -> None:
    key, token = make(member)
    revoke_key(key, actor=Actor(member, "page"))
    with pytest.raises(KeyRefused):
        authenticate(token)
    assert ApiKey.objects.get().last_used_at is None


def test_making_and_revoking_are_audited_with_what_the_key_may(member: User, null_runtime: Runtime) -> None:
    model = make_model(null_runtime)
    key, _ = make(member, "chat", "status", model_ids=[model.model_id])
    revoke_key(key, actor=Actor(member, "page", "192.0.2.7"))
    made, revoked = AuditEntry.objects.order_by("id")
    facts = {
        "user": "ben",
        "scopes": ["chat", "status"],
        "models": [model.model_id],
        "expires_at": None,
        "switches_per_minute": None,
    }
    assert (made.event, made.actor, made.object_text, made.after) == (
        "key:create",
        member,
        f"{key.prefix} (script)",
        facts,
    )
    assert (revoked.event, revoked.address, revoked.before) == ("key:revoke", "192.0.2.7", facts)


def test_key_that_could_not_be_made_leaves_nothing(member: User) -> None:
    with pytest.raises(InvalidRequest) as caught:
        create_key(
            member,
            actor=Actor(member, "page"),
            name=" ",
            scopes=["root"],
            model_ids=["nobody"],
            expires_at=timezone.now() - timedelta(minutes=1),
        )
    assert [place for place, _ in caught.value.errors] == ["name", "scopes", "model_ids", "expires_at"]
    assert not ApiKey.objects.exists()
    assert not AuditEntry.objects.exists()


def test_key_without_scopes_is_not_made(member: User) -> None:
    with pytest.raises(InvalidRequest):
        create_key(member, actor=Actor(member, "page"), name="script", scopes=[])


def test_everybody_sees_their_own_keys_and_who_may_sees_all(member: User, outsider: User, admin_person: User) -> None:
    (bens, _), (odas, _) = make(member), make(outsider)
    assert list(keys_seen_by(Actor(member, "page"))) == [bens]
    assert list(keys_seen_by(Actor(outsider, "page"))) == [odas]
    assert list(keys_seen_by(Actor(admin_person, "page"))) == [odas, bens]
    assert list(keys_seen_by(acting(admin_person, "status"))) == list(ApiKey.objects.filter(user=admin_person))


def test_nobody_makes_or_revokes_keys_of_others_without_the_right(member: User, outsider: User) -> None:
    key, token = make(outsider)
    ben = Actor(member, "page")
    with pytest.raises(NotAllowed, match="make keys for others"):
        create_key(outsider, actor=ben, name="script", scopes=["status"])
    with pytest.raises(NotAllowed, match="revoke keys of others"):
        revoke_key(key, actor=ben)
    assert authenticate(token).user == outsider


def test_administrator_makes_and_revokes_keys_of_others(member: User, admin_person: User) -> None:
    ann = Actor(admin_person, "page")
    key, token = create_key(member, actor=ann, name="script", scopes=["switch"], switches_per_minute=7)
    assert authenticate(token).user == member
    revoke_key(key, actor=ann)
    assert set(AuditEntry.objects.values_list("actor_name", flat=True)) == {"ann"}


def test_own_limit_of_a_key_is_an_administrators_to_set(member: User) -> None:
    with pytest.raises(NotAllowed, match="You may not set how often a key may switch"):
        make(member, switches_per_minute=1000)
    assert make(allow(member, "change_switchpolicy"), switches_per_minute=1000)[0].switches_per_minute == 1000


@pytest.mark.parametrize("scope", ["status", "chat", "switch"])
def test_key_makes_no_keys_without_the_scope_for_all(member: User, scope: str) -> None:
    actor = acting(member, scope)
    with pytest.raises(NotAllowed, match="This key may not manage keys"):
        create_key(member, actor=actor, name="more", scopes=["status"])
    assert actor.key is not None
    with pytest.raises(NotAllowed, match="This key may not manage keys"):
        revoke_key(actor.key, actor=actor)


def test_key_for_some_models_makes_none_that_reaches_further(member: User, null_runtime: Runtime) -> None:
    mine, other = make_model(null_runtime).model_id, make_model(null_runtime).model_id
    actor = acting(member, "admin", model_ids=[mine])
    for wanted in ([], [other], [mine, other]):
        with pytest.raises(NotAllowed, match="only for the models"):
            create_key(member, actor=actor, name="more", scopes=["status"], model_ids=wanted)
    assert create_key(member, actor=actor, name="more", scopes=["status"], model_ids=[mine])[0].model_ids == [mine]


def test_person_who_was_switched_off_makes_no_keys(member: User) -> None:
    member.is_active = False
    with pytest.raises(NotAllowed):
        make(member)
