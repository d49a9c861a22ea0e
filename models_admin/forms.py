"""Forms of the admin pages."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from typing_extensions import override
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from gantry import strict_json
from models_admin import catalog, definitions
from models_admin.exceptions import InvalidDefinition, ModelInUse
from models_admin.models import ModelDefinition

MOST_YAML_BYTES = 1_000_000  # a file with thousands of models is far smaller
_IDENTITY = ("model_id", "runtime")  # by these the process of a model is known


class JSONTextField(forms.JSONField):
    """JSON of one kind, shown indented. Its errors name the line and what was expected."""

    def __init__(self, *, kind: type[dict[str, Any] | list[Any]], **kwargs: Any) -> None:
        self.kind = kind
        super().__init__(
            required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 5, "spellcheck": "false"}), **kwargs
        )

    @override
    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            try:
                value = strict_json.decode(value)
            except strict_json.NotStrictJSON as exc:
                raise ValidationError(str(exc), code="invalid") from exc
        if value in (None, ""):
            return self.kind()
        if not isinstance(value, self.kind):
            example = '{"ctx_size": 4096}' if self.kind is dict else '["--no-warmup"]'
            noun = "an object" if self.kind is dict else "a list"
            raise ValidationError(f"This has to be {noun}, for example {example}.", code="invalid")
        return value

    @override
    def bound_data(self, data: Any, initial: Any) -> Any:
        """What somebody typed comes back as it was, whatever it is."""
        return data

    @override
    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return value
        return json.dumps(value, indent=2, ensure_ascii=False) if value else ""

    @override
    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.to_python(data) != (initial or self.kind()))
        except ValidationError:
            return True


class TagsField(forms.CharField):
    """Words with commas between them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=UnfoldAdminTextInputWidget(), **kwargs)

    @override
    def to_python(self, value: Any) -> Any:
        parts = value if isinstance(value, list) else str(value or "").split(",")
        return list(dict.fromkeys(part.strip() for part in parts if part.strip()))

    @override
    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    @override
    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.to_python(data) != (initial or []))


class DevicesField(TagsField):
    """Ids of GPUs with commas between them; `auto` is the same as none."""

    @override
    def to_python(self, value: Any) -> Any:
        return [device for device in super().to_python(value) if device != "auto"]


class ModelDefinitionForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    """A model. What is wrong is told at its field; the rules are the catalogue's, the same as for a file or a scan."""

    tags = TagsField(
        help_text="What it is good for, with commas between: chat, coding. “embedding” marks a model that cannot chat."
    )
    parameters = JSONTextField(
        kind=dict, help_text='How it is loaded, for example {"ctx_size": 4096, "n_gpu_layers": -1}.'
    )
    extra_args = JSONTextField(
        kind=list, help_text='Further arguments for the server, one by one: ["--rope-scaling", "yarn"].'
    )
    devices = DevicesField(
        help_text="Ids of the GPUs it is loaded on, with commas between. Empty or auto: Gantry chooses for each load."
    )
    sampling = JSONTextField(
        kind=dict, help_text='Defaults for chat, for example {"temperature": 0.7, "stop": ["\\n"]}.'
    )

    class Meta:
        model = ModelDefinition
        fields = "__all__"  # noqa: DJ007 - the admin's fieldsets name them
        widgets: ClassVar = {"description": UnfoldAdminTextareaWidget(attrs={"rows": 3})}

    @override
    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        try:
            catalog.validate_definition(cleaned)
        except InvalidDefinition as exc:
            for place, message in exc.errors:
                self._note(place, message)
        self._check_move()
        return cleaned

    def _check_move(self) -> None:
        """What names the model to its process, and where that is, stays as long as there is one."""
        moved = [
            name for name in _IDENTITY if self.instance.pk and name in self.changed_data and name not in self.errors
        ]
        if not moved:
            return
        try:
            definitions.refuse_move(ModelDefinition.objects.get(pk=self.instance.pk))
        except ModelInUse as exc:
            for name in moved:
                self.add_error(name, f"{exc} {exc.hint}")

    def _note(self, place: str, message: str) -> None:
        """An error at "parameters.ctx_size" stands at the field `parameters` and names the key."""
        field, _, key = place.partition(".")
        if field not in self.fields:
            self.add_error(None, f"{place}: {message}")
        elif field not in self.errors:  # an unreadable field has said enough
            self.add_error(field, f"{key}: {message}" if key else message)


class YAMLForm(forms.Form):
    """A models.yaml: a file, or its text."""

    file = forms.FileField(required=False)
    text = forms.CharField(required=False, strip=False)

    @override
    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        upload, text = cleaned.get("file"), cleaned.get("text", "")
        if upload is not None and upload.size > MOST_YAML_BYTES:
            raise ValidationError("This file is larger than 1 MB. A models.yaml is a few kilobytes.")
        if upload is not None:
            cleaned["text"], cleaned["name"] = _decoded(upload.read()), upload.name
        elif text.strip():
            cleaned["name"] = "models.yaml"
        elif not self.errors:
            raise ValidationError("Choose a file, or paste its text.")
        return cleaned


class FolderForm(forms.Form):
    """A folder on the server."""

    path = forms.CharField(max_length=1000, error_messages={"required": "Name a folder on the server."})


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw[: exc.start].count(b"\n") + 1
        raise ValidationError(f"Line {line} is not UTF-8 text. Save the file as UTF-8.") from exc
