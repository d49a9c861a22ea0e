"""Users, groups and failed sign-ins in the admin: what is changed is written down beside the change."""

from __future__ import annotations

from typing import Any, TypeVar

from axes.admin import AccessAttemptAdmin
from axes.models import AccessAttempt
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, User
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from typing_extensions import override
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from models_admin import audit
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.audit_lockouts import lifted_by

Values = dict[str, Any]
_Row = TypeVar("_Row", bound=models.Model)

admin.site.unregister(User)
admin.site.unregister(Group)
admin.site.unregister(AccessAttempt)


class AuditedAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """Writes an audit entry with what differs, in the transaction of the change. Passwords only as "changed"."""

    created: AuditEvent
    changed: AuditEvent
    deleted: AuditEvent

    def audited(self, row: Any) -> Values:
        """What an entry keeps of a row, as it is in the database."""
        raise NotImplementedError

    @override
    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        form.audited_before = self.audited(_stored(obj)) if change else {}
        super().save_model(request, obj, form, change)

    @override
    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        # Rights and groups are rows of their own, written last.
        before, after = form.audited_before, self.audited(_stored(form.instance))
        self.write(request, self.changed if change else self.created, form.instance, before, after)

    @override
    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        with transaction.atomic():
            self.write(request, self.deleted, obj, self.audited(obj), {})
            super().delete_model(request, obj)

    @override
    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        for row in queryset:
            self.delete_model(request, row)

    def write(self, request: HttpRequest, event: AuditEvent, row: models.Model, before: Values, after: Values) -> None:
        """One entry, of the values that differ; none when nothing does."""
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if not names:
            return
        audit.write(
            event,
            actor=Actor.from_request(request, via="page"),
            object_text=str(row),
            before={name: before[name] for name in names if name in before and name != "password"},
            after={name: "changed" if name == "password" else after[name] for name in names if name in after},
        )


def _stored(row: _Row) -> _Row:
    return type(row)._default_manager.get(pk=row.pk)  # noqa: SLF001 - Django's documented name


@admin.register(User)
class UserAdmin(DjangoUserAdmin, AuditedAdmin):  # type: ignore[type-arg]
    """People."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    created, changed, deleted = AuditEvent.USER_CREATE, AuditEvent.USER_CHANGE, AuditEvent.USER_DELETE

    @override
    def audited(self, row: Any) -> Values:
        plain = ("username", "first_name", "last_name", "email", "is_active", "is_staff", "is_superuser", "password")
        return {name: getattr(row, name) for name in plain} | {
            "groups": sorted(row.groups.values_list("name", flat=True)),
            "permissions": sorted(row.user_permissions.values_list("codename", flat=True)),
        }

    @override
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        """Django's page, which saves past `save_model`."""
        with transaction.atomic():
            before = self.get_object(request, id)
            response: HttpResponse = super().user_change_password(request, id, form_url)
            if before is not None and (after := User.objects.filter(pk=before.pk).first()):
                self.write(request, self.changed, after, {"password": before.password}, {"password": after.password})
        return response


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, AuditedAdmin):  # type: ignore[misc]  # the stubs know unfold's base as Any
    """Groups of people with the same rights."""

    created, changed, deleted = AuditEvent.GROUP_CREATE, AuditEvent.GROUP_CHANGE, AuditEvent.GROUP_DELETE

    @override
    def audited(self, row: Any) -> Values:
        return {"name": row.name, "permissions": sorted(row.permissions.values_list("codename", flat=True))}


@admin.register(AccessAttempt)
class AttemptAdmin(AccessAttemptAdmin):  # type: ignore[misc]  # axes ships no types
    """Failed sign-ins. Deleting them lifts the pause that they hold, in the name of whoever does it."""

    @override
    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        with transaction.atomic(), lifted_by(Actor.from_request(request, via="page")):
            super().delete_model(request, obj)

    @override
    def delete_queryset(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> None:
        with transaction.atomic(), lifted_by(Actor.from_request(request, via="page")):
            super().delete_queryset(request, queryset)
