"""Getting models in: a models.yaml, a folder of GGUF files; and out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from models_admin import catalog
from models_admin.exceptions import InvalidDefinition
from models_admin.forms import FolderForm, YAMLForm
from models_admin.views.common import HtmxRequest, actor_of, may_see_models, render_page

MOST_WARNINGS = 10  # after an import, about single models

_may_add = permission_required(
    ("models_admin.add_modeldefinition", "models_admin.change_modeldefinition"), raise_exception=True
)


@require_safe
@_may_add
def import_page(request: HtmxRequest) -> HttpResponse:
    """Both ways in."""
    return _page(request)


@require_POST
@_may_add
def import_yaml(request: HtmxRequest) -> HttpResponse:
    """Import an uploaded or pasted models.yaml: all of it, or nothing and a list of what is wrong."""
    form = YAMLForm(request.POST, request.FILES)
    if not form.is_valid():
        typed = request.POST.get("text", "")
        return _page(request, yaml_errors=_form_errors(form), yaml_text=typed, status=422)
    text = form.cleaned_data["text"]
    try:
        report = catalog.import_models_yaml(text, file_name=form.cleaned_data["name"], actor=actor_of(request))
    except InvalidDefinition as exc:
        return _page(request, yaml_errors=exc.errors, yaml_text=text, status=exc.status)
    messages.success(request, f"{form.cleaned_data['name']}: {report}.")
    for model_id, reason in report.damaged[:MOST_WARNINGS]:
        messages.warning(request, f"{model_id}: the file {reason}.")
    if (left := len(report.damaged) - MOST_WARNINGS) > 0:
        messages.warning(request, f"{left} more have files that cannot be used; the list marks them.")
    return redirect("admin:models_tab")


@require_POST
@_may_add
def scan_folder(request: HtmxRequest) -> HttpResponse:
    """Look for GGUF files in a folder of the server."""
    form = FolderForm(request.POST)
    if not form.is_valid():
        typed = request.POST.get("path", "")
        return _page(request, folder_errors=_form_errors(form), folder=typed, status=422)
    folder = form.cleaned_data["path"]
    try:
        report = catalog.import_folder(Path(folder), actor=actor_of(request))
    except InvalidDefinition as exc:
        return _page(request, folder_errors=exc.errors, folder=folder, status=exc.status)
    return _page(request, folder=folder, report=report)


@require_safe
@may_see_models
def export_yaml(request: HtmxRequest) -> HttpResponse:
    """All models as a models.yaml."""
    return HttpResponse(
        catalog.export_models_yaml(),
        content_type="application/yaml; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="models.yaml"'},
    )


def _page(request: HtmxRequest, *, status: int = 200, **context: Any) -> HttpResponse:
    defaults = {"title": "Import models", "content_title": "Import models", "folder": str(settings.MODELS_DIR)}
    return render_page(request, "models_admin/import.html", {**defaults, **context}, status=status)


def _form_errors(form: YAMLForm | FolderForm) -> list[tuple[str, str]]:
    return [("", str(message)) for errors in form.errors.values() for message in errors]
