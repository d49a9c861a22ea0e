"""The form that a new key is made with."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.utils import timezone
from typing_extensions import override

from models_admin.exceptions import InvalidRequest
from models_admin.models import ModelDefinition
from models_admin.models.api_key import Scope

UNTIL_DAY, NEVER = "day", "never"
LIFETIMES = [("30", "30 days"), ("90", "90 days"), ("365", "A year"), (UNTIL_DAY, "Until the day"), (NEVER, "For good")]
# Which right of the person each scope is about, to say so when they do not hold it.
_RIGHTS = {Scope.STATUS: "see_status", Scope.CHAT: "chat", Scope.SWITCH: "switch_model"}
_FIELDS = {"model_ids": "models", "expires_at": "lifetime"}  # where the action's names differ


class KeyForm(forms.Form):
    """What a key is for, how far it reaches, and how long."""

    name = forms.CharField(
        label="What it is for",
        max_length=100,
        error_messages={"required": "Say what it is for."},
        widget=forms.TextInput(attrs={"class": "field", "autocomplete": "off", "placeholder": "Nightly report"}),
    )
    scopes = forms.MultipleChoiceField(
        label="What it may do",
        choices=Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        initial=[Scope.STATUS, Scope.CHAT],
        error_messages={"required": "Choose at least one thing that it may do."},
    )
    models = forms.MultipleChoiceField(
        label="Only for these models", required=False, widget=forms.CheckboxSelectMultiple
    )
    lifetime = forms.ChoiceField(label="Valid for", choices=LIFETIMES, initial="90", widget=forms.RadioSelect)
    day = forms.DateField(
        label="Last day",
        required=False,
        error_messages={"invalid": "Give the day as 2027-01-31."},
        widget=forms.DateInput(attrs={"class": "field key-day", "type": "date"}),
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = ModelDefinition.objects.order_by("name").values_list("model_id", "name")
        self.fields["models"].choices = list(names)  # type: ignore[attr-defined]
        lacking = [scope for scope, right in _RIGHTS.items() if not user.has_perm(f"models_admin.{right}")]
        self.without_effect = ", ".join(f"“{Scope(scope).label.split(';')[0]}”" for scope in lacking)

    @override
    def clean(self) -> dict[str, Any]:
        """A day that was chosen has to be there."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if cleaned.get("lifetime") == UNTIL_DAY and not cleaned.get("day") and "day" not in self.errors:
            self.add_error("day", "Choose the last day.")
        return cleaned

    @property
    def wanted(self) -> dict[str, Any]:
        """What `keys.create_key` is to be given, of a form that is valid."""
        return {
            "name": self.cleaned_data["name"],
            "scopes": self.cleaned_data["scopes"],
            "model_ids": self.cleaned_data["models"],
            "expires_at": self._end(),
        }

    def add_refusal(self, refusal: InvalidRequest) -> None:
        """Show what an action found wrong where it was typed."""
        for name, message in refusal.errors:
            field = _FIELDS.get(name, name)
            self.add_error(field if field in self.fields else None, f"This {message}.")

    def _end(self) -> datetime | None:
        lifetime = self.cleaned_data["lifetime"]
        if lifetime == NEVER:
            return None
        if lifetime != UNTIL_DAY:
            return timezone.now() + timedelta(days=int(lifetime))
        # The day counts to its end, on the clock of the person.
        return timezone.make_aware(datetime.combine(self.cleaned_data["day"], time.max))
