"""The list of models as a whole: import, export, scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse

from gantry.api.idempotency import PARAMETER
from gantry.api.reading import text_of
from gantry.api.v1.bodies_models import FolderIn, ImportAnswer
from gantry.api.v1.common import actor_of, allowed, answers, need_all_models, new_router
from models_admin import catalog
from models_admin.catalog import ImportReport

router = new_router("Models")
YAML = "application/yaml"
_YAML_TEXT = {
    "content": {
        YAML: {"schema": {"type": "object", "properties": {"models": {"type": "array", "items": {"type": "object"}}}}}
    }
}  # what the text says; config/models.yaml explains every key


@router.post(
    "/import",
    response=answers({200: ImportAnswer}),
    operation_id="import_models",
    summary="Import a models.yaml",
    openapi_extra={**PARAMETER, "requestBody": {"required": True, **_YAML_TEXT}},
)
def import_models(request: HttpRequest) -> dict[str, Any]:
    """Take over the models of a models.yaml, which is the body, up to 1 MB: all of it, or none of it and a list of what is wrong.

    Needs the rights to add and to change models.
    """
    actor = actor_of(request)
    need_all_models(actor)
    return _report(catalog.import_models_yaml(text_of(request), file_name="models.yaml", actor=actor))


@router.get(
    "/export",
    response=answers({200: None}),
    operation_id="export_models",
    summary="Export a models.yaml",
    openapi_extra={"responses": {200: _YAML_TEXT}},
)
def export_models(request: HttpRequest) -> HttpResponse:
    """All models as a models.yaml; importing it elsewhere gives the same definitions."""
    allowed(request, "view_modeldefinition", "see models")
    return HttpResponse(
        catalog.export_models_yaml(),
        content_type=f"{YAML}; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="models.yaml"'},
    )


@router.post(
    "/scan",
    response=answers({200: ImportAnswer}),
    operation_id="scan_folder",
    summary="Find models in a folder",
    openapi_extra=PARAMETER,
)
def scan_folder(request: HttpRequest, wanted: FolderIn) -> dict[str, Any]:
    """Look for models in a folder of the server: new ones become definitions, known ones are read again.

    Needs the rights to add and to change models.
    """
    actor = actor_of(request)
    need_all_models(actor)
    report = catalog.import_folder(Path(wanted.path), actor=actor)
    return {**_report(report), "problems": [{"path": str(path), "why": why} for path, why in report.problems]}


def _report(report: ImportReport) -> dict[str, Any]:
    return {
        **{name: list(getattr(report, name)) for name in ("created", "changed", "unchanged")},
        "damaged": [{"model_id": model_id, "why": why} for model_id, why in report.damaged],
    }
