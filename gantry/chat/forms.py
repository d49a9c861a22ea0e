"""The chat's forms."""

from __future__ import annotations

from django import forms

from gantry.chat.models import Conversation


class RenameForm(forms.ModelForm):  # type: ignore[type-arg]
    """A conversation's title."""

    class Meta:
        model = Conversation
        fields = ("title",)
        error_messages = {"title": {"required": "Give it a title.", "max_length": "At most 200 characters."}}
        widgets = {"title": forms.TextInput(attrs={"autofocus": True, "class": "field", "autocomplete": "off"})}
