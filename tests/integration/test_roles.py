"""The roles as groups: who may what from the start, what an administrator changes, what an upgrade leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.test import Client

from models_admin import audit_triggers
from models_admin.actor import Actor
from models_admin.models import SwitchPolicy
from models_admin.roles import (
    ADMINISTRATOR,
    MEMBER,
    MEMBER_RIGHTS,
    OPERATOR,
    OPERATOR_RIGHTS,
    ROLES,
    after_migrate,
    may_enter_admin,
)

RIGHTS = ("chat", "switch_model", "cancel_any_job", "view_modeldefinition", "change_modeldefinition", "view_auditentry", "change_switchpolicy", "add_apikey")  # fmt: skip


@pytest.fixture
def migrating(transactional_db: None) -> Iterator[None]:
    """For tests that migrate: that makes the triggers of the audit log anew, which would keep the tables from being emptied."""
    yield
    audit_triggers.drop(connection)


def join(name: str, *groups: str) -> User:
    """Somebody new in exactly these groups."""
    user = User.objects.create_user(name, password=f"pass-{name}")
    user.groups.set(Group.objects.filter(name__in=groups))
    return User.objects.get(pk=user.pk)


def rights_of(group: str) -> set[str]:
    """Codenames of what a group may."""
    return set(Group.objects.get(name=group).permissions.values_list("codename", flat=True))


def policy(**fields: Any) -> None:
    """The switch policy with these values."""
    SwitchPolicy(**fields).save()


@pytest.mark.django_db
def test_three_roles_are_there_from_the_start() -> None:
    assert set(Group.objects.values_list("name", flat=True)) == set(ROLES)
    assert rights_of(MEMBER) == set(MEMBER_RIGHTS)
    assert rights_of(OPERATOR) == set(OPERATOR_RIGHTS)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("role", "may"),
    [
        (ADMINISTRATOR, set(RIGHTS)),
        (OPERATOR, {"chat", "switch_model", "cancel_any_job", "view_modeldefinition", "view_auditentry"}),
        (MEMBER, {"chat"}),
    ],
)
def test_what_each_role_may(role: str, may: set[str]) -> None:
    actor = Actor(join("pat", role), "page")
    assert {right for right in RIGHTS if actor.may(right)} == may


@pytest.mark.django_db
def test_administrator_holds_every_right_there_is_on_gantry_people_and_lockouts() -> None:
    apps = ("models_admin", "chat", "auth", "axes")
    held = Group.objects.get(name=ADMINISTRATOR).permissions
    assert set(held.all()) == set(Permission.objects.filter(content_type__app_label__in=apps))
    assert held.filter(codename="view_switchrequest").exists()


@pytest.mark.django_db
def test_somebody_without_a_role_may_nothing_and_who_is_switched_off_neither() -> None:
    nobody, former = join("nora"), join("finn", ADMINISTRATOR)
    former.is_active = False
    assert not any(Actor(person, "page").may(right) for person in (nobody, former) for right in RIGHTS)


@pytest.mark.django_db
def test_who_joins_is_a_member_and_a_superuser_needs_no_role() -> None:
    ben = User.objects.create_user("ben")
    ann = User.objects.create_superuser("ann")
    assert [group.name for group in ben.groups.all()] == [MEMBER]
    assert not ann.groups.exists()
    assert Actor(User.objects.get(pk=ben.pk), "page").may("chat")


@pytest.mark.django_db
def test_member_who_was_taken_out_of_the_group_stays_out() -> None:
    ben = join("ben")
    ben.first_name = "Ben"
    ben.save()
    assert not ben.groups.exists()
    assert not Actor(ben, "page").may("chat")


@pytest.mark.django_db
def test_no_member_role_no_member() -> None:
    Group.objects.get(name=MEMBER).delete()
    assert not User.objects.create_user("ben").groups.exists()


@pytest.mark.django_db
def test_members_switch_while_the_policy_lets_them() -> None:
    join("ben", MEMBER)
    assert not Actor(User.objects.get(username="ben"), "page").may("switch_model")
    policy(members_may_switch=True)
    ben = Actor(User.objects.get(username="ben"), "page")
    assert ben.may("switch_model")
    assert not ben.may("cancel_any_job")
    policy(members_may_switch=False)
    assert not Actor(User.objects.get(username="ben"), "page").may("switch_model")


@pytest.mark.django_db
def test_policy_for_members_gives_nothing_to_others() -> None:
    policy(members_may_switch=True)
    former = join("finn", MEMBER)
    former.is_active = False
    assert not any(Actor(person, "page").may("switch_model") for person in (join("nora"), former))


@pytest.mark.django_db
def test_right_of_members_is_asked_once_for_each_person_read(django_assert_num_queries: Any) -> None:
    policy(members_may_switch=True)
    ben = User.objects.get(pk=join("ben", MEMBER).pk)
    ben.has_perm("models_admin.chat")  # reads what Django's own backend knows
    with django_assert_num_queries(2):
        assert all(ben.has_perm("models_admin.switch_model") for _ in range(5))


@pytest.mark.django_db
def test_pages_of_the_admin_are_for_staff_and_those_who_see_models() -> None:
    staff = join("sam", MEMBER)
    staff.is_staff = True
    assert may_enter_admin(staff)
    assert may_enter_admin(join("otto", OPERATOR))
    assert may_enter_admin(join("ada", ADMINISTRATOR))
    assert not may_enter_admin(join("ben", MEMBER))


@pytest.mark.usefixtures("migrating")
def test_roles_come_back_after_flush() -> None:
    Group.objects.get(name=MEMBER).permissions.clear()
    call_command("flush", interactive=False, verbosity=0)
    assert set(Group.objects.values_list("name", flat=True)) == set(ROLES)
    assert rights_of(MEMBER) == set(MEMBER_RIGHTS)
    assert rights_of(OPERATOR) == set(OPERATOR_RIGHTS)
    assert {"add_user", "change_switchpolicy", "view_accessattempt", "change_conversation"} <= rights_of(ADMINISTRATOR)


@pytest.mark.usefixtures("migrating")
def test_upgrade_keeps_what_an_administrator_has_changed() -> None:
    Group.objects.get(name=OPERATOR).permissions.remove(Permission.objects.get(codename="cancel_any_job"))
    Group.objects.get(name=ADMINISTRATOR).permissions.remove(Permission.objects.get(codename="add_user"))
    Group.objects.get(name=MEMBER).delete()
    call_command("migrate", interactive=False, verbosity=0)
    assert "cancel_any_job" not in rights_of(OPERATOR)
    assert "add_user" not in rights_of(ADMINISTRATOR)
    assert not Group.objects.filter(name=MEMBER).exists()


@pytest.mark.django_db
def test_right_on_a_new_model_comes_to_the_administrator_alone() -> None:
    """As after an upgrade whose plan makes the model."""
    for role in ROLES:
        Group.objects.get(name=role).permissions.clear()
    loader = MigrationExecutor(connection).loader
    made = loader.get_migration("models_admin", "0005_keys_roles_and_limits")
    after_migrate(app_config=apps.get_app_config("models_admin"), using="default", plan=[(made, False)])
    new = {f"{verb}_{name}" for verb in ("add", "change", "delete", "view") for name in ("apikey", "switchrequest")}
    assert rights_of(ADMINISTRATOR) == new
    assert not rights_of(OPERATOR) | rights_of(MEMBER)


@pytest.mark.usefixtures("migrating")
def test_those_who_were_there_before_the_roles_become_members() -> None:
    executor = MigrationExecutor(connection)
    executor.migrate([("models_admin", "0005_keys_roles_and_limits")])
    Group.objects.all().delete()
    old = User.objects.create_user("old")
    User.objects.create_superuser("ann")
    MigrationExecutor(connection).migrate(MigrationExecutor(connection).loader.graph.leaf_nodes())
    assert [group.name for group in old.groups.all()] == [MEMBER]
    assert not User.objects.get(username="ann").groups.exists()


@pytest.mark.django_db
def test_operator_works_in_the_admin_and_a_member_is_sent_to_sign_in(client: Client) -> None:
    client.force_login(join("otto", OPERATOR))
    assert client.get("/admin/").headers["Location"] == "/admin/models/"
    for address in ("/admin/models/", "/admin/models_admin/switchjob/", "/admin/models_admin/auditentry/"):
        assert client.get(address).status_code == 200
    assert client.get("/admin/models_admin/switchpolicy/1/change/").status_code == 403
    client.force_login(join("ben", MEMBER))
    assert "/login/" in client.get("/admin/models/").headers["Location"]
