"""Models that a server offers by itself: definitions follow its list, so that what appears there can be chosen here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import structlog
from django.conf import settings
from django.db import transaction

from gantry import live
from gantry.modelfiles.model_entry import MODEL_ID
from gantry.runtimes.base import AvailableModel
from gantry.runtimes.exceptions import RuntimeFault
from models_admin import audit
from models_admin.actor import SYSTEM
from models_admin.catalog import audited_values
from models_admin.model_files import is_on_this_host, loads_from_disk
from models_admin.models import ModelDefinition, Runtime
from models_admin.runtime_access import runtime_for

log = structlog.get_logger(__name__)

OFFERED = "offered"  # key of `metadata`: the server has this model in its list, or had it
_MOST_TOKENS, _MOST_BYTES = 2**31 - 1, 2**63 - 1  # what the fields hold

_refreshed_at: dict[int, float] = {}  # runtime -> when this process last asked it


def refresh_when_due(row: Runtime) -> None:
    """Ask a server for its models again when REFRESH_INTERVAL has passed since this process last did."""
    now = time.monotonic()
    last = _refreshed_at.get(row.pk)
    if last is not None and now - last < settings.REFRESH_INTERVAL:
        return
    refresh_safely(row)


def refresh_safely(row: Runtime) -> None:
    """Ask a server for its models now; one that cannot be asked is logged and asked again when it is due."""
    _refreshed_at[row.pk] = time.monotonic()
    try:
        refresh_models(row)
    except RuntimeFault as exc:
        log.warning("models_not_listed", runtime=row.name, reason=str(exc))


def refresh_models(row: Runtime) -> list[str]:
    """Compare a server's models with their definitions: new ones are added, those that vanished are shown as not downloaded.

    One that is given files offers none and is left alone. A model whose files are on this host is judged by them.

    Returns:
        The ids of the models that changed.

    Raises:
        RuntimeFault: the server could not be asked.
    """
    offers = {model.model_id: model for model in runtime_for(row).models()}
    known = {model.model_id: model for model in row.definitions.select_related("runtime__pool")}
    changed = [model_id for model_id, model in known.items() if _compare(model, offers.get(model_id))]
    new = [offer for model_id, offer in offers.items() if model_id not in known]
    created = [model.model_id for offer in new if (model := define(row, offer))]
    if changed:
        live.publish_models_changed(changed, event_id=f"offers-{uuid4().hex}")
    return [*created, *changed]


def model_named(row: Runtime, name: str) -> ModelDefinition | None:
    """The definition of what a server calls so. One that keeps its models in nested folders may name the last folder only."""
    same = row.definitions.filter(model_id=name).first()
    nested = [] if same else list(row.definitions.filter(model_id__endswith=f"/{name}")[:2])
    return nested[0] if len(nested) == 1 else same


def define(row: Runtime, offer: AvailableModel) -> ModelDefinition | None:
    """A definition for a model that a server offers; None when its name cannot be used here, which is logged."""
    name = offer.model_id
    is_taken = ModelDefinition.objects.filter(model_id=name).exists()
    if is_taken or not MODEL_ID.match(name):
        # The server knows it by this name only, so it cannot be given another one.
        log.warning("offered_model_left_out", runtime=row.name, model=name, is_taken=is_taken)
        return None
    model = ModelDefinition(
        model_id=name,
        name=_free_name(row, name.rpartition("/")[2] or name),
        runtime=row,
        path=name if loads_from_disk(row) else "",  # its folder, should it lie within GANTRY_MODELS_DIR
        source=ModelDefinition.Source.SCAN,
        **_fields(offer, {}),
    )
    with transaction.atomic():
        model.save(force_insert=True)
        audit.write(audit.AuditEvent.MODEL_CREATE, actor=SYSTEM, object_text=model.name, after=audited_values(model))
        live.publish_models_changed([], event_id=f"offer-{model.pk}")  # all: pages have no row yet to put it into
    return model


def _compare(model: ModelDefinition, offer: AvailableModel | None) -> bool:
    """Note what the server's list says of a model; whether that was news."""
    if is_on_this_host(model):
        return False
    if offer is not None:
        fields = _fields(offer, model.metadata)
    else:
        fields = {"is_available": False} if OFFERED in model.metadata else {}
    news = {name: value for name, value in fields.items() if getattr(model, name) != value}
    return bool(news and ModelDefinition.objects.filter(pk=model.pk).update(**news))


def _fields(offer: AvailableModel, metadata: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"is_available": True, "metadata": {**metadata, OFFERED: True}}
    if offer.size_bytes and 0 < offer.size_bytes <= _MOST_BYTES:
        fields["size_bytes"] = offer.size_bytes
    context = offer.facts.get("context_length")
    if isinstance(context, int) and 0 < context <= _MOST_TOKENS:
        fields["context_length"] = context
    return fields


def _free_name(row: Runtime, name: str) -> str:
    """The name as people read it, with the server's where two have it."""
    is_taken = ModelDefinition.objects.filter(name=name).exists()
    return f"{name[:95]} ({row.name[:95]})" if is_taken else name[:190]
