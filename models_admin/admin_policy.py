"""The switch policy in the admin: one form, no list."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from typing_extensions import override
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminSelect2MultipleWidget

from models_admin.actor import Actor
from models_admin.models import ModelDefinition, SwitchPolicy
from models_admin.models.switch_policy import ONLY_ROW
from models_admin.policies import save_policy


class SwitchPolicyForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    """The policy, with the pins of the models beside it."""

    preserve_models = forms.ModelMultipleChoiceField(
        queryset=ModelDefinition.objects.order_by("name"),
        required=False,
        label="Never unload",
        widget=UnfoldAdminSelect2MultipleWidget,
        help_text="Pinned models: no switch unloads them. The pin in the Models tab is the same.",
    )

    class Meta:
        model = SwitchPolicy
        fields = "__all__"  # noqa: DJ007 - the admin's fieldsets name them

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "preserve_models" in self.fields:  # not for who may only look
            self.fields["preserve_models"].initial = ModelDefinition.objects.filter(is_pinned=True)


@admin.register(SwitchPolicy)
class SwitchPolicyAdmin(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """One row: the list leads straight to it."""

    form = SwitchPolicyForm
    autocomplete_fields = ("default_model",)
    warn_unsaved_form = True
    fieldsets = (
        (
            "Making room",
            {"fields": ("strategy", "preserve_models", "auto_unload", "confirm_before_unload", "keep_former")},
        ),
        ("Running answers", {"fields": ("drain_seconds", "drain_action")}),
        (
            "Who and how often",
            {"fields": ("members_may_switch", "switches_per_user", "switches_in_all", "stay_seconds")},
        ),
        ("After failed loads", {"fields": ("cool_down_seconds", "cool_down_most_seconds")}),
        ("Loads", {"fields": ("stall_seconds", "load_seconds")}),
        ("By itself", {"fields": ("default_model", "load_at_start", "restart_crashed")}),
    )

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @override
    def has_delete_permission(self, request: HttpRequest, obj: SwitchPolicy | None = None) -> bool:
        return False

    @override
    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> SwitchPolicy | None:
        """The only row; the defaults before somebody has changed one."""
        return SwitchPolicy.current() if object_id == str(ONLY_ROW) else None

    @override
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return redirect("admin:models_admin_switchpolicy_change", ONLY_ROW)

    @override
    def save_model(self, request: HttpRequest, obj: SwitchPolicy, form: Any, change: bool) -> None:
        save_policy(
            obj,
            changed=[name for name in form.changed_data if name != "preserve_models"],
            pinned=form.cleaned_data["preserve_models"],
            actor=Actor.from_request(request, via="page"),
        )

    @override
    def response_change(self, request: HttpRequest, obj: SwitchPolicy) -> HttpResponse:
        messages.success(request, "The switch policy was changed. It holds from the next switch on.")
        return redirect("admin:models_admin_switchpolicy_change", ONLY_ROW)
