"""Runtimes in the admin: where they are, their keys, what they can do, how they are."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from typing_extensions import override
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminPasswordWidget

from gantry.runtimes.base import ProgressKind
from gantry.runtimes.registry import capabilities_of
from models_admin.actor import Actor
from models_admin.exceptions import InvalidRequest
from models_admin.forms import JSONTextField
from models_admin.models import Runtime
from models_admin.runtime_access import KEY_FROM_ENVIRONMENT, model_limit
from models_admin.runtimes import checked_address, delete_runtime, save_runtime
from models_admin.templatetags.gantry_format import ago

REMOVE = "-"  # typed into a key's field
_PROGRESS = {
    ProgressKind.FRACTION: "tells how far a load is",
    ProgressKind.BYTES: "tells the bytes a load has read",
    ProgressKind.STEPS: "tells the modules a load has done",
    ProgressKind.NONE: "tells nothing of a load until it has ended",
}


class KeyField(forms.CharField):
    """A secret: never shown, kept when left empty, removed by a dash."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False,
            widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False),
            help_text=f"Never shown again. Empty: stays as it is; “{REMOVE}” removes it. “{KEY_FROM_ENVIRONMENT}NAME” reads "
            "it from an environment variable of the worker, so that it is stored nowhere.",
            **kwargs,
        )

    @override
    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(data)


class RuntimeForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    """A runtime. Options that are no object would stop the worker of its host."""

    options = JSONTextField(kind=dict, help_text="Settings of this kind of runtime. llama-server needs none.")
    api_key = KeyField(label="API key")
    admin_key = KeyField(label="Admin key")

    class Meta:
        model = Runtime
        fields = "__all__"  # noqa: DJ007 - the admin's fieldsets name them

    def clean_url(self) -> str:
        """Scheme and host, as far as the kind of runtime takes one."""
        kind = self.cleaned_data.get("kind") or self.instance.kind
        try:
            return checked_address(kind, str(self.cleaned_data.get("url") or ""))
        except InvalidRequest as exc:
            raise ValidationError([message for _, message in exc.errors]) from exc

    def clean_api_key(self) -> str:
        """What is to be stored."""
        return self._key("api_key")

    def clean_admin_key(self) -> str:
        """What is to be stored."""
        return self._key("admin_key")

    def _key(self, name: str) -> str:
        typed = str(self.cleaned_data.get(name) or "").strip()
        if typed == REMOVE:
            return ""
        return typed or str(getattr(self.instance, name) or "")


@admin.register(Runtime)
class RuntimeAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """Runtimes. Their health is read only: a worker looks at it every few seconds."""

    form = RuntimeForm
    list_display = ("name", "kind", "pool", "is_on", "is_well", "health_text", "version", "checked")
    list_select_related = ("pool",)
    readonly_fields = ("is_healthy", "health_text", "version", "checked_at", "abilities")
    fieldsets = (
        (None, {"fields": ("name", "kind", "pool", "is_enabled")}),
        ("Connection", {"fields": ("url", "api_key", "admin_key", "options")}),
        ("Health", {"fields": ("is_healthy", "health_text", "version", "checked_at", "abilities")}),
    )

    @admin.display(description="Switched on", ordering="is_enabled", boolean=True)
    def is_on(self, runtime: Runtime) -> bool:
        """Whether it is used."""
        return runtime.is_enabled

    @admin.display(description="Ready", ordering="is_healthy", boolean=True)
    def is_well(self, runtime: Runtime) -> bool:
        """Whether it can be used."""
        return runtime.is_healthy

    @admin.display(description="last checked", ordering="checked_at")
    def checked(self, runtime: Runtime) -> str:
        """How long ago a worker looked."""
        return ago(runtime.checked_at)

    @admin.display(description="what it can do")
    def abilities(self, runtime: Runtime) -> str:
        """Its capabilities in words."""
        if not runtime.kind:
            return "–"
        can = capabilities_of(runtime.kind)
        words = [
            _holds(model_limit(runtime)),
            _PROGRESS[can.progress],
            "a load can be cancelled"
            if can.can_cancel_load
            else "a load cannot be stopped, only unloaded after its end",
            "started and ended by Gantry" if can.owns_processes else "run by somebody else",
        ]
        return "; ".join(words).capitalize() + "."

    @override
    def save_model(self, request: HttpRequest, obj: Runtime, form: Any, change: bool) -> None:
        save_runtime(obj, changed=list(form.changed_data), actor=Actor.from_request(request, via="page"))

    @override
    def delete_model(self, request: HttpRequest, obj: Runtime) -> None:
        delete_runtime(obj, actor=Actor.from_request(request, via="page"))

    @override
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Runtime]) -> None:
        for runtime in queryset:
            self.delete_model(request, runtime)


def _holds(limit: int | None) -> str:
    if limit is None:
        return "holds several models at once"
    return "holds one model at a time" if limit == 1 else f"holds {limit} models at once at the most"
