"""What the imports and the scan of the catalogue share: reports, rows with their audit entries, the runtime for a new model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings
from typing_extensions import override

from gantry import live
from gantry.modelfiles.model_file import Form
from models_admin import audit
from models_admin.actor import Actor
from models_admin.audit import AuditEvent
from models_admin.exceptions import InvalidDefinition, NotAllowed
from models_admin.model_files import LOADED_FORMS
from models_admin.models import ModelDefinition, Runtime

NEEDS_FOLDER_RUNTIME = (
    "needs TabbyAPI or vLLM: llama-server cannot load safetensors, and no other runtime of this host is set up"
)

# What a person decides about a model. The rest of a definition is read from its file.
DECIDED = (
    "name",
    "description",
    "path",
    "parameter_label",
    "parameters",
    "extra_args",
    "devices",
    "chat_template",
    "sampling",
    "tags",
    "is_pinned",
)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did, as model ids."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    damaged: tuple[tuple[str, str], ...] = field(
        default=(), kw_only=True
    )  # whose file is there and cannot be used, why

    @override
    def __str__(self) -> str:
        """As a sentence."""
        return f"{len(self.created)} created, {len(self.changed)} changed, {len(self.unchanged)} unchanged"


@dataclass(frozen=True, slots=True)
class ScanReport(ImportReport):
    """What a scan did, and which files it could make nothing of: (path, why)."""

    problems: tuple[tuple[Path, str], ...] = field(default=())  # fit to be shown, whatever bytes a file's name has


def audited_values(model: ModelDefinition) -> dict[str, Any]:
    """What a person decides about a model, for the before and after of an audit entry."""
    return {name: getattr(model, name) for name in ("model_id", *DECIDED)}


def save_new(model: ModelDefinition, actor: Actor) -> ModelDefinition:
    """Add a definition, and tell the audit log."""
    model.save(force_insert=True)
    audit.write(AuditEvent.MODEL_CREATE, actor=actor, object_text=model.name, after=audited_values(model))
    return model


def finish(event: AuditEvent, actor: Actor, object_text: str, report: ImportReport) -> None:
    """Tell the audit log and the pages what an import or a scan did."""
    audit.write(
        event,
        actor=actor,
        object_text=object_text,
        after={"created": list(report.created), "changed": list(report.changed)},
        outcome=str(report),
    )
    if report.created or report.changed:
        live.publish_models_changed([*report.created, *report.changed], event_id=f"catalog-{uuid4().hex}")


def require_permission(actor: Actor) -> None:
    """Check that the actor may add and change models.

    Raises:
        NotAllowed: they may not.
    """
    for permission in ("add_modeldefinition", "change_modeldefinition"):
        if not actor.may(permission):
            raise NotAllowed("You may not add or change models.", "Ask an administrator for the permission.")


def runtime_for(form: Form) -> Runtime | None:
    """The runtime for new models of this form; None for folders when nothing here can load them.

    Raises:
        InvalidDefinition: there is none for GGUF files.
    """
    if form == Form.FILE:
        return _llama_server()
    kinds = [kind for kind, loaded in LOADED_FORMS.items() if loaded == form]
    candidates = Runtime.objects.filter(kind__in=kinds, is_enabled=True, pool__host=settings.HOST_NAME)
    return candidates.select_related("pool").order_by("pk").first()


def _llama_server() -> Runtime:
    """The llama-server for new models.

    Raises:
        InvalidDefinition: there is none.
    """
    candidates = Runtime.objects.filter(kind=Runtime.Kind.LLAMA_SERVER, is_enabled=True)
    runtime = candidates.select_related("pool").order_by("pool__host", "pk").first()
    if runtime is None:
        message = "there is no llama-server runtime yet; run `manage.py up` once or add one under Runtimes"
        raise InvalidDefinition("Models need a runtime to be loaded with.", [("runtime", message)])
    return runtime
