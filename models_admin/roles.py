"""The three roles, as groups of Django: Administrator, Operator, Member.

A migration makes them once; from then on they are an administrator's to change, and no upgrade undoes such a change. Rights that come
with a later upgrade are given to Administrator in that upgrade, since that role is to hold all.

Who joins is a Member, and so is everybody who was there before the roles: anyone who was signed in could chat, and nothing else comes
with it. To keep somebody from chatting, take the group away from them.

Whether members may switch is not a right of the group but the switch policy's word (`MembersMaySwitch`), so that one tick turns it on and off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from django.apps import AppConfig
from django.apps import apps as present_apps
from django.apps.registry import Apps
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, Group, User
from django.db import models
from django.db.migrations.operations import CreateModel
from typing_extensions import override

ADMINISTRATOR, OPERATOR, MEMBER = "Administrator", "Operator", "Member"
ROLES = (ADMINISTRATOR, OPERATOR, MEMBER)
APPS = ("models_admin", "chat", "auth", "axes")  # whose rights an administrator holds
MEMBER_RIGHTS = frozenset({"chat", "see_status"})
OPERATOR_RIGHTS = MEMBER_RIGHTS | {
    "switch_model",
    "cancel_any_job",
    "view_auditentry",
    "view_memorypool",
    "view_modeldefinition",
    "view_modelinstance",
    "view_runtime",
    "view_switchevent",
    "view_switchjob",
    "view_switchrequest",
}
_SWITCH = "models_admin.switch_model"


def may_enter_admin(user: AbstractBaseUser | AnonymousUser) -> bool:
    """Whether somebody may come into the pages under /admin/: staff, and whoever may see models there, such as operators."""
    if not isinstance(user, User) or not user.is_active:
        return False
    return user.is_staff or user.has_perm("models_admin.view_modeldefinition")


def make_roles(apps: Apps, using: str) -> None:
    """Make the groups that are missing, with their rights; a group that is there is left as it is.

    Args:
        apps: those of a migration, or the present ones.
    """
    permissions = apps.get_model("auth", "Permission").objects.using(using)
    of_models_admin = permissions.filter(content_type__app_label="models_admin")
    _make(apps, using, ADMINISTRATOR, permissions.filter(content_type__app_label__in=APPS))
    _make(apps, using, OPERATOR, of_models_admin.filter(codename__in=OPERATOR_RIGHTS))
    _make(apps, using, MEMBER, of_models_admin.filter(codename__in=MEMBER_RIGHTS))


def make_everybody_members(apps: Apps, using: str) -> None:
    """Those who were there before the roles could chat: they still can. Switched-off accounts too, for they may come back."""
    users = apps.get_model("auth", "User").objects.using(using).filter(is_superuser=False)
    apps.get_model("auth", "Group").objects.using(using).get(name=MEMBER).user_set.add(*users)


def after_migrate(*, app_config: AppConfig, using: str, apps: Apps = present_apps, **kwargs: Any) -> None:
    """Receiver of post_migrate, after Django has made the rights.

    `flush` sends it without a plan: it has emptied the tables, and the roles are made again. After a migration Administrator is given
    the rights on models that are new, and only these.
    """
    if app_config.label not in APPS or not _has_groups(apps):
        return
    if "plan" not in kwargs:
        if app_config.label == APPS[0]:
            make_roles(apps, using)
            _give_rights(apps, using, APPS)
        else:
            _give_rights(apps, using, [app_config.label])
    elif new := _new_models(app_config.label, kwargs["plan"]):
        _give_rights(apps, using, [app_config.label], new)


def note_new_user(*, instance: User, created: bool, raw: bool, using: str, **kwargs: Any) -> None:
    """Receiver of post_save: who joins is a Member. Superusers may do everything anyway."""
    if created and not raw and not instance.is_superuser:
        member = Group.objects.using(using).filter(name=MEMBER).first()
        if member is not None:
            instance.groups.add(member)


class MembersMaySwitch(BaseBackend):
    """Gives members the right to switch while the switch policy says so. Asked after Django's own backend, only about that right."""

    @override
    def has_perm(self, user_obj: Any, perm: str, obj: models.Model | None = None) -> bool:
        if perm != _SWITCH or obj is not None or not user_obj.is_active or user_obj.is_anonymous:
            return False
        # Kept with the object as Django keeps rights: one request, one answer.
        if not hasattr(user_obj, "_may_switch_as_member"):
            user_obj._may_switch_as_member = _is_member_who_may_switch(user_obj)  # noqa: SLF001 - our own mark
        return bool(user_obj._may_switch_as_member)  # noqa: SLF001


def _is_member_who_may_switch(user: User) -> bool:
    from models_admin.models import SwitchPolicy

    allowed = SwitchPolicy.objects.filter(members_may_switch=True)
    return allowed.exists() and user.groups.filter(name=MEMBER).exists()


def _make(apps: Apps, using: str, name: str, permissions: Iterable[Any]) -> None:
    group, is_new = apps.get_model("auth", "Group").objects.using(using).get_or_create(name=name)
    if is_new:
        group.permissions.add(*permissions)


def _has_groups(apps: Apps) -> bool:
    try:
        apps.get_model("auth", "Group")
    except LookupError:  # Django was migrated back to before it had groups
        return False
    return True


def _new_models(label: str, plan: Iterable[tuple[Any, bool]]) -> list[str]:
    """Lower-case names of the models of an app that a plan made."""
    return [
        operation.name.lower()
        for migration, is_backwards in plan
        if migration.app_label == label and not is_backwards
        for operation in migration.operations
        if isinstance(operation, CreateModel)
    ]


def _give_rights(apps: Apps, using: str, labels: Collection[str], names: Collection[str] | None = None) -> None:
    """Give Administrator the rights on models of these apps: those named, or all."""
    group = apps.get_model("auth", "Group").objects.using(using).filter(name=ADMINISTRATOR).first()
    if group is None:
        return  # an administrator has removed it
    rights = apps.get_model("auth", "Permission").objects.using(using).filter(content_type__app_label__in=labels)
    if names is not None:
        rights = rights.filter(content_type__model__in=names)
    group.permissions.add(*rights)
