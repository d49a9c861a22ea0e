"""What the operations share: who asks, what they may, and what is documented of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from django.http import HttpRequest
from ninja import Router

from gantry.api.auth import ApiRequest
from gantry.api.errors import ERRORS
from gantry.api.idempotency import make_idempotent
from models_admin.actor import Actor
from models_admin.exceptions import ActionRefused, NotAllowed
from models_admin.job_requests import need_permission
from models_admin.models import ModelDefinition


class NotThere(ActionRefused):
    """Nothing has this number."""

    code = "not_found"
    status = 404


def new_router(tag: str) -> Router:
    """A router whose POSTs heed `Idempotency-Key`."""
    router = Router(tags=[tag])
    make_idempotent(router)
    return router


def answers(responses: Mapping[int, Any]) -> dict[Any, Any]:
    """For `response=`: these, and what any operation may answer beside them."""
    return {**responses, **ERRORS}


def actor_of(request: HttpRequest) -> Actor:
    """Who was let in."""
    return cast("ApiRequest", request).auth


def allowed(request: HttpRequest, permission: str, doing: str) -> Actor:
    """Who asks, if they hold a permission of this app.

    Raises:
        NotAllowed: they do not.
    """
    actor = actor_of(request)
    need_permission(actor, permission, doing)
    return actor


def need_model(actor: Actor, model: ModelDefinition) -> None:
    """A key for some models sees all, and changes only these.

    Raises:
        NotAllowed: it is for others.
    """
    if not actor.may_use(model):
        raise NotAllowed(f"This key may not be used for {model.name}.", "Use another key, or ask its owner.")


def need_all_models(actor: Actor) -> None:
    """What is about any number of models is for a key without a list of them.

    Raises:
        NotAllowed: the key is for some models only.
    """
    if actor.key is not None and actor.key.model_ids:
        raise NotAllowed("This key may be used for some models only.", "Use another key, or ask its owner.")
